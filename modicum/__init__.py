"""Text classification where labels are few and hardware is small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ActiveLearner", "Classifier", "Dataset", "ModicumError", "__version__"]

if TYPE_CHECKING:
    from modicum.api.active import ActiveLearner
    from modicum.api.classifier import Classifier
    from modicum.base.errors import ModicumError
    from modicum.data.dataset import Dataset

_HOMES = {
    "ActiveLearner": "modicum.api.active",
    "Classifier": "modicum.api.classifier",
    "Dataset": "modicum.data.dataset",
    "ModicumError": "modicum.base.errors",
}


def __getattr__(name: str) -> Any:  # torch is loaded only by those who use it
    if name not in _HOMES:
        raise AttributeError(f"module 'modicum' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
