"""Events: what is written is what is read, and what cannot be read is named."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from modicum.base.errors import SpecError
from modicum.base.events import Asked, Event, Stopped, Told, Trained, parse_event

EVENTS: list[Event] = [
    Asked(round=3, ids=("b", "a"), strategy="badge", cost={"score_seconds": 0.25}),
    Asked(round=0, ids=(), strategy=""),
    Told(answers={"z": 0, "a": 2.5, "m": None}),
    Told(answers={}),
    Trained(round=1, labels=40, record={"macro_f1": 0.1 + 0.2, "kappa": None, "stop_predictions": [1, 0]}),
    Stopped(reason="the pool is empty"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_survives_json(event: Event) -> None:
    again = parse_event(json.loads(event.canonical()))
    assert again == event and type(again) is type(event)
    assert again.canonical() == event.canonical()


def test_answers_keep_their_kind_of_number() -> None:
    again = parse_event(json.loads(json.dumps({"kind": "told", "answers": {"z": 1, "a": 1.0, "m": None}})))
    assert isinstance(again, Told)
    assert [type(label) for label in again.answers.values()] == [int, float, type(None)]


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EVENTS[0].round = 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "mused"}, "an event cannot be read: Input tag 'mused' .* expected tags: 'asked', 'told', 'trained'"),
        ({"round": 0}, "an event cannot be read: Unable to extract tag using discriminator 'kind'"),
        ({"kind": "told"}, "an event cannot be read: Told: setting 'answers' is missing"),
        ({"kind": "stopped", "reason": "x", "why": 1}, "Stopped: unknown setting 'why'; valid settings: kind, reason"),
        ({"kind": "asked", "round": "one", "ids": [], "strategy": ""}, "Asked: setting 'round': .* valid integer"),
    ],
)
def test_what_is_no_event_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_event(fields)


@pytest.mark.parametrize("label", ["1", True, [1], math.nan, math.inf])
def test_what_is_no_label_is_refused(label: Any) -> None:
    with pytest.raises(SpecError, match=r"Told: setting 'answers\.a\.(int|float)'"):
        Told(answers={"a": label})
