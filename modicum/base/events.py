"""What happens to a learner, in the order in which it happened: the only truth about a trial or a labelling project.

Events are plain JSON values, so that a log can be read with any tool and replayed by any later version.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StrictFloat, StrictInt, TypeAdapter, ValidationError

from modicum.base.errors import SpecError
from modicum.base.spec import Record
from modicum.base.types import ExampleId


class Asked(Record):
    """A query was opened. cost: seconds spent on scoring candidates and on selecting among them."""

    kind: Literal["asked"] = "asked"
    round: int
    ids: tuple[ExampleId, ...]
    strategy: str
    cost: dict[str, float] = {}


class Told(Record):
    """Answers arrived, in no order; None skips an example. Where there is an answer already it is a correction."""

    kind: Literal["told"] = "told"
    answers: dict[ExampleId, StrictInt | StrictFloat | None]


class Trained(Record):
    """A model was trained on all labels so far. record: its metrics and costs."""

    kind: Literal["trained"] = "trained"
    round: int
    labels: int
    record: dict[str, Any]


class Stopped(Record):
    """No more queries will be opened."""

    kind: Literal["stopped"] = "stopped"
    reason: str


T = TypeVar("T")
Event = Asked | Told | Trained | Stopped
_ANY: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def parse_event(fields: dict[str, Any]) -> Event:
    """The event that these JSON values describe.

    Raises:
        SpecError: they describe none that this version knows.
    """
    return read_event(_ANY, fields)


def read_event(kinds: TypeAdapter[T], fields: dict[str, Any]) -> T:
    """The event of one of these kinds that JSON values describe.

    Raises:
        SpecError: they describe none of them.
    """
    try:
        return kinds.validate_python(fields)
    except ValidationError as error:
        raise SpecError(f"an event cannot be read: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
