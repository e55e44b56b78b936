"""What requests may say, and the form of errors: the models that the HTTP interface's description is made from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from modicum.annotate.server.auth import NAME, PASSWORD, Role
from modicum.annotate.store.records import Suggestion

BULK = 5_000
"""Items of one selection at most."""
MOST = 2**31 - 1
Client = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]
Position = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Version = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME)]
Password = Annotated[str, StringConstraints(min_length=PASSWORD[0], max_length=PASSWORD[1])]


class Body(BaseModel):
    """What a request says; fields that there are not are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AnswerBody(Body):
    """A label or a skip, and marks, or marks alone. version: of the answer that the page saw, 0 for none."""

    client: Client
    item: Position
    version: Version
    label: Position | None = None
    skip: Text | None = None
    flag: bool | None = None
    note: Text | None = None
    seconds: Annotated[float, Field(ge=0, le=1e6)] | None = None
    shown: Suggestion | None = None


class Act(Body):
    """Names an act, so that saying it twice does it once."""

    client: Client


class BulkBody(Act):
    """One label for many items."""

    items: Annotated[list[Position], Field(min_length=1, max_length=BULK)]
    label: Position
    preview: bool = False


class AdjudicationBody(Act):
    """A lead's decision; None takes it back. version: of the decision that the page saw."""

    item: Position
    version: Version
    label: Position | None


class SettingsBody(Act):
    """The settings that change."""

    title: Annotated[str, StringConstraints(max_length=200)] | None = None
    guidelines: Annotated[str, StringConstraints(max_length=50_000)] | None = None
    keys: dict[str, Annotated[str, StringConstraints(max_length=8)]] | None = None
    text_direction: Literal["auto", "ltr", "rtl"] | None = None
    suggest: Literal["hidden", "shown", "after"] | None = None
    retrain_every: Annotated[int, Field(ge=1, le=100_000)] | None = None
    per_item: Annotated[int, Field(ge=1, le=20)] | None = None
    lease_seconds: Annotated[float, Field(ge=10, le=86_400)] | None = None
    blind: bool | None = None


class NewUser(Body):
    """An account. Without a password its owner comes in by the link, and sets one."""

    name: Name
    role: Role = "annotator"
    password: Password | None = None


class UserChange(Body):
    """What changes in an account. link: make a one-time link for its owner."""

    name: Name
    role: Role | None = None
    password: Password | None = None
    closed: bool | None = None
    link: bool = False


class PasswordBody(Body):
    """One's own password. old: may be empty where there was none."""

    old: Annotated[str, StringConstraints(max_length=PASSWORD[1])] = ""
    new: Password


class Problem(BaseModel):
    """What went wrong, and what to do."""

    error: str
    hint: str = ""


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "the body is no JSON, or nested too deep",
        401: "no valid token or session",
        403: "another person's to do, or not from a page of this server",
        409: "the answer has changed since, or the item is another's",
        413: "the body is too large",
        415: "the body is compressed",
        422: "a value cannot be used",
        429: "too many attempts",
        503: "the disk refuses",
    }.items()
}
