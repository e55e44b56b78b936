"""Data sets that come with Modicum, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SHIPPED = {"helpdesk": ("train.csv", "test.csv")}


def shipped(name: str) -> tuple[Path, Path] | None:
    """The train and test files of a shipped data set; None where there is none of that name."""
    if name not in SHIPPED:
        return None
    train, test = SHIPPED[name]
    return FOLDER / name / train, FOLDER / name / test
