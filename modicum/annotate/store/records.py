"""A labelling project's settings, and what people do in it: events in plain JSON, as in ``modicum.base.events``.

A label is a class's position in ``Settings.classes``. An event's ``version`` is that of the answer which its writer saw
(0 where there was none): the store refuses the event when the answer has changed since.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator

from modicum.base.events import Asked, Stopped, Trained, read_event
from modicum.base.spec import Choice, Record
from modicum.data.labels import class_names
from modicum.strategies import USUAL

MODICUM = 0
"""The user who stands for the project itself: imported labels and the lead's decisions are its answers."""
ME = 1
"""The one account of a project without accounts."""

Count = Annotated[int, Field(ge=0)]


class Settings(Record):
    """What a project is about and how it goes about it.

    keys: class -> the key that gives it, for those that have one of their own. guidelines: plain text.
    retrain_every: labels between trainings. per_item: how many annotators answer each item.
    blind: annotators see no answers but their own. suggest: when the model's suggestion is shown.
    audit: how many random items are kept for measuring; audit_share: their share of the new items until all are out.
    lease_seconds: how long an item that was handed out is kept for its annotator.
    """

    title: str = ""
    data_name: str = ""
    fingerprint: str = ""
    classes: tuple[str, ...]
    keys: dict[str, str] = {}
    text_direction: Literal["auto", "ltr", "rtl"] = "auto"
    guidelines: str = ""
    method: Choice = Choice(name="auto")
    strategy: Choice = Choice(name=USUAL["classification"])
    warm_strategy: str = "typiclust"
    backbone: str = "minilm"
    seed: Count = 0
    retrain_every: int = Field(default=25, ge=1)
    per_item: int = Field(default=1, ge=1, le=50)
    blind: bool = False
    suggest: Literal["hidden", "shown", "after"] = "hidden"
    audit: Count = 0
    audit_share: float = Field(default=0.2, ge=0, le=1)
    lease_seconds: float = Field(default=300.0, gt=0, le=7 * 86400)

    @field_validator("method", "strategy", mode="before")
    @classmethod
    def _choice(cls, value: Any, info: ValidationInfo) -> Choice:
        return Choice.restored(value, str(info.field_name))

    @field_validator("classes")
    @classmethod
    def _classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return class_names(value) or ()

    @field_validator("keys")
    @classmethod
    def _keys(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        strangers = [name for name in value if name not in info.data.get("classes", value)]
        if strangers:
            raise ValueError(f"{strangers[0]!r} is none of the classes")
        if len(set(value.values())) < len(value) or any(len(key) != 1 for key in value.values()):
            raise ValueError("each class has a key of its own, which is one character")
        return value


class Suggestion(Record):
    """What a model says of an item. confidence: the probability that it gives this label."""

    label: Count
    confidence: float = Field(ge=0, le=1)


class _Answer(Record):
    """What both kinds of answer say. seconds: from seeing the item to answering it; shown: the suggestion seen.

    strategy, model: what had chosen the item; None before the first model. bulk: names the selection it was part of.
    """

    item: Count
    version: Count = 0
    seconds: float | None = Field(default=None, ge=0)
    shown: Suggestion | None = None
    strategy: str = ""
    model: Count | None = None
    bulk: str | None = None


class Labelled(_Answer):
    """A person gave an item a label."""

    kind: Literal["labelled"] = "labelled"
    label: Count


class Skipped(_Answer):
    """A person gave an item none, for a reason."""

    kind: Literal["skipped"] = "skipped"
    reason: str = Field(default="", max_length=1_000)


class Marked(Record):
    """A person set or cleared an item's flag, or its note (an empty one clears it); None leaves it as it is."""

    kind: Literal["marked"] = "marked"
    item: Count
    version: Count = 0
    flag: bool | None = None
    note: str | None = Field(default=None, max_length=10_000)


class Undone(Record):
    """A person took an act back. undoes: the number of its first event."""

    kind: Literal["undone"] = "undone"
    undoes: int


class Adjudicated(Record):
    """A lead decided an item's label for all; None takes the decision back."""

    kind: Literal["adjudicated"] = "adjudicated"
    item: Count
    version: Count = 0
    label: Count | None


class Imported(Record):
    """A label that came with the data. It stands aside where a lead has decided."""

    kind: Literal["imported"] = "imported"
    item: Count
    label: Count


class Changed(Record):
    """Settings were changed to these."""

    kind: Literal["changed"] = "changed"
    settings: dict[str, Any]


Answering = Labelled | Skipped | Marked | Adjudicated | Imported
"""The events that ``ProjectStore.write`` takes."""
ProjectEvent = Answering | Undone | Changed | Asked | Trained | Stopped
_ANY: TypeAdapter[ProjectEvent] = TypeAdapter(Annotated[ProjectEvent, Field(discriminator="kind")])


def parse_project_event(fields: dict[str, Any]) -> ProjectEvent:
    """The event that these JSON values describe.

    Raises:
        SpecError: they describe none that this version knows.
    """
    return read_event(_ANY, fields)
