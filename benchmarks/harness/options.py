"""The options that all benchmarks have."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.environments import ROOT
from harness.machine import cores


def parser(doc: str | None, *, repeats: int | None = None, systems: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A parser with the common options. repeats: measurements of each contestant unless told otherwise; None where each
    is measured once."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR", help="Parquet sets")
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, metavar="N", help=f"default {repeats}")
    made.add_argument("--threads", type=int, default=threads(), metavar="N", help="for every contestant")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; kept in results/quick/")
    made.add_argument("--resume", action="store_true", help="keep what is measured already, and measure the rest")
    if systems:
        made.add_argument("--systems", nargs="+", choices=systems, default=list(systems), metavar="NAME")
    return made


def threads() -> int:
    """OMP_NUM_THREADS where it is set, else all hardware threads of this process."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else cores()


def parse(made: argparse.ArgumentParser, *sets: str) -> argparse.Namespace:
    """The options, checked. Ends with a message, and without an error, where one of the data sets is missing."""
    chosen = made.parse_args()
    for name in ("repeats", "threads"):
        if getattr(chosen, name, 1) < 1:
            made.error(f"--{name} must be 1 or more, got {getattr(chosen, name)}")
    if chosen.quick:
        chosen.repeats = 1
    absent = [name for name in sets if not (chosen.data / name / "train.parquet").is_file()]
    if absent:
        shown = os.path.relpath(chosen.data)
        print(f"Nothing measured: {shown} does not hold {', '.join(absent)}. Name the folder of data sets with --data.")
        sys.exit(0)
    return chosen
