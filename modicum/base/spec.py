"""Frozen records whose canonical JSON is their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from modicum.base.errors import SpecError, did_you_mean

SCHEMA_VERSION = 1
"""Part of every key: raised when the same settings begin to mean another result."""


class Record(BaseModel):
    """A frozen, closed record of settings: unknown fields and wrong types are refused with a readable message."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(explain(error, type(self))) from None

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """Make a record from plain JSON or TOML values.

        Raises:
            SpecError: a field is unknown, missing or of the wrong type.
        """
        return cls(**fields)

    def canonical(self) -> str:
        """The same text for the same settings, whatever the order in which they were given."""
        return canonical_json(self.model_dump(mode="json"))


class Choice(Record):
    """A plug-in by name, with its options."""

    name: str
    options: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """``lora`` or ``lora(rank=4)``."""
        inner = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({inner})" if inner else self.name

    @classmethod
    def of(cls, value: Any, where: str) -> Choice:
        """From a name, or a table of a name and options. where: the setting that the value is for, told in errors.

        Raises:
            SpecError: it is something else.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            return cls(name=value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return cls(name=value["name"], options={k: v for k, v in value.items() if k != "name"})
        raise SpecError(
            f'{where} is a name such as "lora" or a table such as {{name = "lora", rank = 4}}, got {value!r}'
        )

    @classmethod
    def restored(cls, value: Any, where: str) -> Choice:
        """As ``of``, and also from what a record was written as: its own two fields."""
        if isinstance(value, Mapping) and set(value) == {"name", "options"}:
            return cls(**value)
        return cls.of(value, where)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: Any) -> str:
    """A 20-digit hexadecimal hash of JSON values, with the schema version mixed in."""
    text = canonical_json([SCHEMA_VERSION, *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def explain(error: ValidationError, record: type[BaseModel]) -> str:
    """Pydantic's findings in one line a user can act on."""
    lines = []
    findings = error.errors()
    for finding in findings:
        inner = [other for other in findings if other["loc"][: len(finding["loc"])] == finding["loc"]]
        if finding["type"] == "too_short" and len(inner) > 1:
            continue  # its items are missed because they were refused, each with its own finding
        where = ".".join(str(part) for part in finding["loc"]) or record.__name__
        if finding["type"] == "extra_forbidden":
            valid = list(record.model_fields)
            lines.append(f"unknown setting {where!r}{did_you_mean(where, valid)}; valid settings: {', '.join(valid)}")
        elif finding["type"] == "missing":
            lines.append(f"setting {where!r} is missing")
        else:
            message = finding["msg"].removeprefix("Value error, ")
            lines.append(f"setting {where!r}: {message} (got {finding['input']!r})")
    return f"{record.__name__}: " + "; ".join(lines)
