"""``modicum dynamics``, ``cka`` and ``shares``: studies of one data set that need no study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modicum.base.errors import SpecError
from modicum.cli.studies import run_and_show
from modicum.study.spec import Study, parse_study

COMPARED = 500
"""Texts on which layers are compared."""
HELD_OUT = 0.05
"""Share of the labels that ``dynamics`` tests on: those that it says nothing about."""


def dynamics(data: str, out: Path, settings: dict[str, Any], as_json: bool) -> None:
    """Train on all labels but those to test on, and keep what became of each."""
    own = {"task": "classification", "test_share": HELD_OUT}
    study = _study(f"Training dynamics of {Path(data).stem}", data, settings, {"keep_dynamics": True}, own)
    run_and_show(study, out, as_json)


def cka(data: str, out: Path, settings: dict[str, Any], as_json: bool) -> None:
    """Train on growing shares of the labels, and compare every layer with the pretrained model's."""
    more = {"layer_similarity": COMPARED}
    run_and_show(_study(f"How far layers move on {Path(data).stem}", data, settings, more), out, as_json)


def shares(data: str, out: Path, settings: dict[str, Any], as_json: bool) -> None:
    """Train on growing shares of the labels."""
    run_and_show(_study(f"Quality by share of {Path(data).stem}", data, settings, {}), out, as_json)


def _study(
    title: str, data: str, settings: dict[str, Any], more: dict[str, Any], own: dict[str, Any] | None = None
) -> Study:
    """settings: columns and files of the data, methods and shares as texts, seeds, epochs, backbone, max_length."""
    columns = {name: settings[name] for name in ("test", "text", "pair", "label", "id") if settings[name] is not None}
    training = {} if settings["epochs"] is None else {"epochs": settings["epochs"], "min_steps": 1}
    raw = {
        "title": title,
        "data": [{"train": data, "skip_bad_rows": settings["skip_bad_rows"]} | columns | (own or {})],
        "methods": [name.strip() for name in settings["methods"].split(",") if name.strip()],
        "strategies": ["random"],
        "seeds": settings["seeds"],
        "backbone": {"name": settings["backbone"], "max_length": settings["max_length"]},
        "loop": {"shares": _numbers(settings["shares"])},
        "training": training,
    }
    return parse_study(raw | more)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise SpecError(f"--shares are numbers such as 0.1,0.3,1, got {text!r}") from None
