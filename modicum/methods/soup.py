"""Model soup: the mean of what several methods make of one encoder (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from modicum.base.spec import Choice
from modicum.methods import METHODS
from modicum.methods.base import Method
from modicum.methods.full import Full, key

OF_PARTS = ("learning_rate", "head_learning_rate", "adapt_layers")
"""Settings that each part has for itself."""


class Soup(Full):
    """Trains by several methods, each from the encoder as it is, and takes the mean of their weights, heads too.

    One model comes out, as large as a fully tuned one (a uniform soup, Wortsman et al. 2022). of: two methods or more,
    names or tables, whose change can be written as weights; rates and layers are theirs.
    """

    of: tuple[Choice, ...] = Field(default=("bitfit", "full"), min_length=2)

    @field_validator("of", mode="before")
    @classmethod
    def _named(cls, value: Any) -> tuple[Choice, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError('of is a list of methods such as ["bitfit", "full"]')
        return tuple(Choice.restored(one, "of") for one in value)

    @model_validator(mode="after")
    def _can_be_mixed(self) -> Self:
        for part in self.parts:
            if part.parts:
                raise ValueError("a soup of soups is one soup: name all methods in one list")
            if type(part).merge is Method.merge:
                raise ValueError(
                    f"what {type(part).__name__} learns cannot be written as weights: take bitfit, lora, ia3 or full"
                )
        fields = type(self).model_fields
        if given := [name for name in OF_PARTS if getattr(self, name) != fields[name].default]:
            raise ValueError(f'{" and ".join(given)} are the parts\' own: of = [{{name = "full", {given[0]} = ...}}]')
        return self

    @property
    def parts(self) -> tuple[Method, ...]:
        return tuple(METHODS.create(one.name, **one.options) for one in self.of)

    def holding(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key(name): tensor for name, tensor in state.items()}
