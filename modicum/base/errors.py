"""Errors that a user can act on: each says what must hold, what arrived, and what to do.

ModicumError
├── DataError        a file, column, row or label
├── SpecError        a study file, an option, a hyper-parameter
│   └── UnknownName  a method, strategy or option that does not exist
├── BackboneError    a pretrained model that cannot be found, verified or used
├── StoreError       a study store that cannot be opened, read or written
└── StateError       a call that does not fit the learner's state
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModicumError(Exception):
    """The root. The command line prints its text alone, without a traceback."""


class DataError(ModicumError, ValueError):
    """Data that cannot be used as it is."""


class SpecError(ModicumError, ValueError):
    """A setting that cannot be used as it is."""


class BackboneError(ModicumError):
    """A pretrained model that cannot be found, verified or used."""


class StoreError(ModicumError):
    """A store that cannot be opened, read or written."""


class StateError(ModicumError, RuntimeError):
    """A call that does not fit the present state."""


class UnknownName(SpecError):
    """A name outside the list of valid ones."""

    def __init__(self, what: str, name: str, valid: Iterable[str]) -> None:
        names = sorted(valid)
        super().__init__(
            f"unknown {what} {name!r}{did_you_mean(name, names)}; valid names: {', '.join(names) or 'none'}"
        )


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`` (did you mean 'lora'?)`` where a valid name is near, else the empty string."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
