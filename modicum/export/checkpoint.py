"""A trained classifier as a small folder: safetensors and JSON, never pickle.

modicum.json            what it is: method, classes, backbone (name, hash of its weights), pooling, training
modicum.safetensors     all that was learned, a few kilobytes to a few megabytes
adapter_config.json     } the same in the format of Hugging Face PEFT, where PEFT has the method
adapter_model.safetensors }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

import modicum
from modicum.base.errors import DataError, SpecError
from modicum.base.files import atomic_write
from modicum.base.types import Task
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Weights
from modicum.export.peft import write_peft
from modicum.methods import METHODS

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds. method: (name, options) as the registry takes them. settings: whatever else was saved."""

    weights: Weights
    task: Task
    classes: tuple[str, ...]
    method: tuple[str, dict[str, Any]]
    backbone: dict[str, Any]
    settings: dict[str, Any]


def save_checkpoint(
    folder: Path,
    backbone: Backbone,
    weights: Weights,
    *,
    task: Task,
    classes: tuple[str, ...],
    method: tuple[str, dict[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write a checkpoint in place of an earlier one; ``modicum.json`` comes last, so a folder with it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("modicum.json", "adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    tensors = {f"adapter/{name}": t.contiguous().cpu() for name, t in weights.adapter.items()}
    tensors |= {f"head/{name}": t.contiguous().cpu() for name, t in weights.head.items()}
    with atomic_write(folder / "modicum.safetensors", "wb") as file:
        file.write(save(tensors))
    write_peft(folder, backbone, weights, classes)
    description = {
        "format": FORMAT,
        "modicum": modicum.__version__,
        "task": task,
        "classes": list(classes),
        "outputs": weights.outputs,
        "method": {"name": method[0], "options": method[1]},
        "backbone": {
            "name": backbone.name,
            "weights_sha256": backbone.fingerprint,
            "pooling": backbone.pooling,
            "max_length": backbone.max_length,
        },
        "settings": dict(settings),
    }
    with atomic_write(folder / "modicum.json") as file:
        json.dump(description, file, indent=2, ensure_ascii=False)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; the backbone is not loaded.

    Raises:
        DataError: the folder is no complete checkpoint, or of a later format.
    """
    path = folder / "modicum.json"
    if not path.is_file():
        raise DataError(
            f"{folder} is no Modicum model: it must hold modicum.json. Give the folder that fit --out wrote"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise DataError(
                f"{folder} has format {found['format']}, this Modicum reads format {FORMAT}: "
                "use the version that wrote it"
            )
        tensors = load_file(folder / "modicum.safetensors")
        method = METHODS.create(found["method"]["name"], **found["method"]["options"])
        parts = {
            part: {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
            for part in ("adapter/", "head/")
        }
        weights = Weights(method, int(found["outputs"]), parts["adapter/"], parts["head/"])
        return Checkpoint(
            weights,
            found["task"],
            tuple(found["classes"]),
            (found["method"]["name"], found["method"]["options"]),
            found["backbone"],
            found["settings"],
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(
            f"{folder} is a damaged Modicum model ({type(error).__name__}: {error}): save it again"
        ) from error


def check_backbone(backbone: Backbone, expected: Mapping[str, Any]) -> None:
    """A checkpoint works only on the very weights that it was trained on.

    Raises:
        SpecError: the backbone's weights are others.
    """
    if backbone.fingerprint != expected["weights_sha256"]:
        raise SpecError(
            f"this model was trained on {expected['name']!r} with weights {expected['weights_sha256'][:12]}…, "
            f"but the ones found here are {backbone.fingerprint[:12]}…: install the same version of the backbone"
        )
