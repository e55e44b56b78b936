"""Contestants in processes of their own, taken in turn, with every measurement kept as soon as it is taken."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness import machine
from harness.environments import OWN, ROOT, EnvironmentFailed, python_of, versions
from modicum.base.files import atomic_write

FOLDER = ROOT / "benchmarks"
UNTIMED = ("seconds", "cpu_seconds")  # what a measurement beside other work must not tell
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Entry:
    """One system at one piece of work.

    script: a file in ``benchmarks/contestants``. environment: whose Python runs it. settings: what decides the result,
    handed over as JSON. given: what is handed over too, and is no part of an identity: files, first labels.
    """

    work: str
    system: str
    script: str
    environment: str = OWN
    settings: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)


class ContestantFailed(Exception):
    """A contestant ended with an error, by a signal, or not in time."""


class Contest:
    """A benchmark's measurements, in ``benchmarks/results/NAME.json``.

    A measurement's identity is its work, system, settings and number. What is asked for is measured anew, unless
    ``--resume`` finds it there; all other measurements in the file stay. With ``--untimed`` a contestant has one thread
    and may run beside other work, another process of the same benchmark among it: its quality is kept, its seconds are
    not.
    """

    def __init__(self, name: str, options: argparse.Namespace, settings: dict[str, Any]) -> None:
        self.options, self.errors, self.taken = options, list[str](), list[dict[str, Any]]()
        self.untimed = bool(getattr(options, "untimed", False))
        results = FOLDER / "results"
        self.path = (results / "quick" if options.quick else results) / f"{name}.json"
        self.data = self._kept()
        self.data |= {"benchmark": name, "machine": machine.record(), "settings": settings}
        self.data.setdefault("environments", {})
        self.data.setdefault("measurements", [])
        if not options.resume or "matrix_products" not in self.data:
            seconds = 0.05 if options.quick else 0.5
            self.data["matrix_products"] = self._call(Entry("", "", "peak.py", settings={"seconds": seconds}))

    def _kept(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            shown = self.path.relative_to(ROOT)
            raise SystemExit(f"{shown} is no JSON: remove it, and what it held is measured again") from None

    # ---- measuring -----------------------------------------------------------------------------------------------

    def run(self, entries: Sequence[Entry], repeats: int | None = None) -> None:
        """Measure each entry so many times in turn: A B C A B C ..."""
        for number in range(repeats or self.options.repeats):
            for entry in entries:
                self.measure(entry, number)

    def measure(self, entry: Entry, number: int = 0, timeout: float | None = None) -> dict[str, Any] | None:
        """One measurement's result, kept at once; None where the contestant failed (which is kept as well)."""
        before = self._find(entry, number)
        if before is not None and self.options.resume and "result" in before:
            return before["result"]
        taken: dict[str, Any] = asdict(entry) | {"settings": self._settings(entry), "number": number}
        taken.pop("given")
        taken |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 2)}
        taken["commit"] = self.data["machine"]["commit"]
        try:
            taken["result"] = self._call(entry, timeout)
            if self.untimed:
                taken["untimed"] = True
                for name in UNTIMED:
                    taken["result"].pop(name, None)
            seconds = "untimed" if self.untimed else f"{taken['result'].get('seconds', float('nan')):.2f} s"
            told = f"{seconds} {taken['result'].get('precision', '')}".strip()
        except (ContestantFailed, EnvironmentFailed) as problem:
            taken["error"] = told = str(problem).replace(str(ROOT), ".")
            self.errors.append(f"{entry.work} · {entry.system}: {told}")
        self.taken = [m for m in self.taken if _identity(m) != _identity(taken)] + [taken]
        self.data["environments"][entry.environment] = _environment(entry.environment)
        self.write()
        print(f"{entry.work} · {entry.system} · {number + 1}: {told}", file=sys.stderr, flush=True)
        return taken.get("result")

    def _call(self, entry: Entry, timeout: float | None = None) -> dict[str, Any]:
        told = self._settings(entry) | {"given": entry.given}
        script = FOLDER / "contestants" / entry.script
        count = 1 if self.untimed else self.options.threads
        threads = {f"{name}_NUM_THREADS": str(count) for name in ("OMP", "MKL", "OPENBLAS")}
        environment = dict(os.environ) | OFFLINE | threads
        if entry.environment != OWN:
            environment.pop("PYTHONPATH", None)
        command = [_python(entry.environment), script, json.dumps(told)]
        with tempfile.TemporaryDirectory() as folder:  # contestants may write where they stand
            try:
                done = subprocess.run(
                    command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
                )
            except subprocess.TimeoutExpired:
                raise ContestantFailed(f"not done after {timeout:.0f} s") from None
        if done.returncode < 0:
            raise ContestantFailed(f"ended by signal {-done.returncode}")
        if done.returncode:
            raise ContestantFailed((done.stderr.strip().splitlines() or ["no message"])[-1])
        return json.loads(done.stdout.strip().splitlines()[-1])

    # ---- what was measured ---------------------------------------------------------------------------------------

    def _settings(self, entry: Entry) -> dict[str, Any]:
        return entry.settings | {"threads": self.options.threads}

    def _same(self, measurement: dict[str, Any], entry: Entry) -> bool:
        mine = asdict(entry) | {"settings": self._settings(entry), "number": measurement["number"]}
        return _identity(mine) == _identity(measurement)

    def _find(self, entry: Entry, number: int) -> dict[str, Any] | None:
        return next((m for m in self.data["measurements"] if m["number"] == number and self._same(m, entry)), None)

    def results(self, entry: Entry) -> list[dict[str, Any]]:
        """All results of an entry, by number."""
        found = [m for m in self.data["measurements"] if "result" in m and self._same(m, entry)]
        return [m["result"] for m in sorted(found, key=lambda m: m["number"])]

    def values(self, entries: Entry | Iterable[Entry], name: str = "seconds") -> list[float]:
        """One value of every result of one or more entries."""
        several = [entries] if isinstance(entries, Entry) else entries
        return [result[name] for entry in several for result in self.results(entry) if name in result]

    def write(self) -> None:
        """Keep everything, with what another process has kept meanwhile, wholly or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")), atomic_write(self.path) as file:
            kept, mine = self._kept(), {_identity(m) for m in self.taken}
            others = [m for m in kept.get("measurements", []) if _identity(m) not in mine]
            self.data["measurements"] = others + self.taken
            for name in ("environments", "tables"):
                self.data[name] = kept.get(name, {}) | self.data.get(name, {})
            json.dump(self.data, file, indent=1, ensure_ascii=False)
            file.write("\n")

    def finish(self, **tables: list[dict[str, Any]]) -> None:
        """Keep the tables too, and end: with an error where a contestant failed."""
        self.data["tables"] = self.data.get("tables", {}) | tables
        self.write()
        print(f"Every measurement is in {os.path.relpath(self.path)}.")
        if self.errors:
            raise SystemExit("Some contestants failed:\n  " + "\n  ".join(dict.fromkeys(self.errors)))


def _identity(measurement: dict[str, Any]) -> tuple[str, ...]:
    told = tuple(str(measurement[name]) for name in ("work", "system", "script", "number"))
    return (*told, json.dumps(measurement["settings"], sort_keys=True))


@cache
def _python(environment: str) -> Path:
    return python_of(environment)


@cache
def _environment(name: str) -> dict[str, str]:
    try:
        return versions(_python(name))
    except EnvironmentFailed:
        return {}
