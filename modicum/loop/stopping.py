"""When a loop ends: each rule reads what has been recorded, and says why it would stop or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from modicum.base.spec import Record


class Stopping(Record):
    """All rules at once; the first that holds ends the loop.

    budget: labels in all. seconds: of training, scoring and selecting in all (depends on the machine).
    plateau: stop when predictions hardly change, that is when Cohen's kappa between the predictions of ``patience``
    + 1 successive rounds on a fixed sample stays at or above this (Bloodgood & Vijay-Shanker 2009 use 0.99).
    """

    budget: int = Field(default=300, ge=2)
    seconds: float | None = Field(default=None, gt=0)
    plateau: float | None = Field(default=None, gt=0, le=1)
    patience: int = Field(default=2, ge=1)

    def reason(self, labels: int, records: Sequence[dict[str, Any]]) -> str | None:
        """Why to stop now, or None. records: those of all rounds so far, in order."""
        if labels >= self.budget:
            return f"budget of {self.budget} labels reached"
        if self.seconds is not None and (spent := sum(r.get("seconds", 0.0) for r in records)) >= self.seconds:
            return f"time budget of {self.seconds:g} s reached after {spent:.0f} s"
        if self.plateau is not None:
            recent = [r.get("kappa") for r in records[-self.patience :]]
            if len(recent) == self.patience and all(k is not None and k >= self.plateau for k in recent):
                return f"predictions agreed (kappa ≥ {self.plateau:g}) in {self.patience} rounds"
        return None
