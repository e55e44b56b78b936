"""Contestants in processes of their own, taken in turn, with every measurement kept as soon as it is taken."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness import machine
from harness.environments import OWN, ROOT, EnvironmentFailed, python_of, versions
from modicum.base.files import atomic_write
from modicum.base.spec import digest

FOLDER = ROOT / "benchmarks"
TIMES = ("seconds", "cpu_seconds")  # what a measurement beside other work must not tell
CLAIMS = Path(tempfile.gettempdir()) / "modicum-benchmarks"  # locks of the measurements that processes are at
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

    A measurement's identity is its work, system, settings and number, and the number of threads too where
    ``threads_decide``, as they do what speed is. What is asked for is measured anew, unless ``--resume`` finds it
    there; all other measurements in the file stay. Processes share a benchmark: what one of them is at, the others pass
    over.
    With ``--untimed`` a contestant has one thread and may run beside other work: its quality is kept, its seconds are
    not, and ``--resume`` measures it anew where seconds are wanted.
    """

    def __init__(
        self, name: str, options: argparse.Namespace, settings: dict[str, Any], *, threads_decide: bool = True
    ) -> None:
        self.options, self.errors, self.taken = options, list[str](), list[dict[str, Any]]()
        self.threads_decide = threads_decide
        self.untimed = bool(getattr(options, "untimed", False))
        results = FOLDER / "results"
        self.path = (results / "quick" if options.quick else results) / f"{name}.json"
        self.data = self._kept()
        self.data |= {"benchmark": name, "machine": machine.record(), "settings": settings}
        self.data.setdefault("environments", {})
        self.data.setdefault("measurements", [])
        peak = self.data.get("matrix_products", {})
        if not self.untimed and not (options.resume and peak.get("cpu") == self.cpu):
            seconds = 0.05 if options.quick else 0.5
            peak = self._call(Entry("", "", "peak.py", settings={"seconds": seconds}))
            self.data["matrix_products"] = peak | {"cpu": self.cpu}

    @property
    def cpu(self) -> str:
        """This machine's kind of processor."""
        return str(self.data["machine"]["cpu"])

    def _kept(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            shown = self.path.relative_to(ROOT)
            raise SystemExit(f"{shown} is no JSON: remove it, and what it held is measured again") from None
        for one in (*kept.get("measurements", []), kept.get("matrix_products", {})):
            one.setdefault("cpu", kept.get("machine", {}).get("cpu"))  # files of one machine did not tell it each time
        return kept

    # ---- measuring -----------------------------------------------------------------------------------------------

    def run(self, entries: Sequence[Entry], repeats: int | None = None) -> None:
        """Measure each entry so many times in turn: A B C A B C ..."""
        for number in range(repeats or self.options.repeats):
            for entry in entries:
                self.measure(entry, number)

    def measure(self, entry: Entry, number: int = 0, timeout: float | None = None) -> dict[str, Any] | None:
        """One measurement's result, kept at once; None where the contestant failed (which is kept as well), or where
        another process is at it and none waits, as with ``--untimed``."""
        with self._claimed(entry, number) as ours:
            return self._measured(entry, number, timeout) if ours else None

    def adopt(self, entry: Entry, elsewhere: Iterable[dict[str, Any]]) -> None:
        """Take over what another benchmark has measured of an entry, for --resume to find."""
        found = [m for m in elsewhere if "result" in m and self._same(m, entry)]
        self.taken += [m for m in found if self._find(entry, m["number"]) is None]

    @contextmanager
    def _claimed(self, entry: Entry, number: int) -> Iterator[bool]:
        CLAIMS.mkdir(exist_ok=True)
        lock = FileLock(CLAIMS / f"{digest(str(self.path), _identity(self._named(entry, number)))}.lock")
        try:
            held = lock.acquire(timeout=0 if self.untimed else -1)
        except Timeout:
            yield False
            return
        with held:
            yield True

    def _measured(self, entry: Entry, number: int, timeout: float | None) -> dict[str, Any] | None:
        self.data["measurements"] = self._with_others(self._kept())
        before = self._find(entry, number)
        serves = before is not None and "result" in before and (self.untimed or not before.get("untimed"))
        if before is not None and serves and self.options.resume:
            return before["result"]
        taken = self._named(entry, number)
        taken.pop("given")
        taken |= {"cpu": self.cpu, "threads": self._threads}
        taken |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 2)}
        taken["commit"] = self.data["machine"]["commit"]
        try:
            taken["result"] = self._call(entry, timeout)
            if self.untimed:
                taken["untimed"] = True
                for name in TIMES:
                    taken["result"].pop(name, None)
            seconds = "untimed" if self.untimed else f"{taken['result'].get('seconds', float('nan')):.2f} s"
            told = f"{seconds} {taken['result'].get('precision', '')}".strip()
        except (ContestantFailed, EnvironmentFailed) as problem:
            taken["error"] = told = str(problem).replace(str(ROOT), ".")
            self.errors.append(f"{entry.work} · {entry.system}: {told}")
            if before is not None and "result" in before and self.options.resume:
                return before["result"]  # its time could not be taken; its quality stays
        self.taken = [m for m in self.taken if _identity(m) != _identity(taken)] + [taken]
        self.data["environments"][entry.environment] = _environment(entry.environment)
        self.write()
        print(f"{entry.work} · {entry.system} · {number + 1}: {told}", file=sys.stderr, flush=True)
        return taken.get("result")

    def _call(self, entry: Entry, timeout: float | None = None) -> dict[str, Any]:
        told = self._settings(entry) | {"given": entry.given | {"untimed": self.untimed}}
        script = FOLDER / "contestants" / entry.script
        threads = {f"{name}_NUM_THREADS": str(self._threads) for name in ("OMP", "MKL", "OPENBLAS")}
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

    @property
    def _threads(self) -> int:
        return 1 if self.untimed else self.options.threads

    def _settings(self, entry: Entry) -> dict[str, Any]:
        return entry.settings | ({"threads": self.options.threads} if self.threads_decide else {})

    def _named(self, entry: Entry, number: int) -> dict[str, Any]:
        return asdict(entry) | {"settings": self._settings(entry), "number": number}

    def _same(self, measurement: dict[str, Any], entry: Entry) -> bool:
        return _identity(self._named(entry, measurement["number"])) == _identity(measurement)

    def _find(self, entry: Entry, number: int) -> dict[str, Any] | None:
        return next((m for m in self.data["measurements"] if m["number"] == number and self._same(m, entry)), None)

    def results(self, entry: Entry, *, timed: bool = False) -> list[dict[str, Any]]:
        """All results of an entry, by number; or those with a time, from the processor that most of these are from."""
        found = [m for m in self.data["measurements"] if "result" in m and self._same(m, entry)]
        if timed:
            cpu = self.timed_on
            found = [m for m in found if "seconds" in m["result"] and m.get("cpu") == cpu]
        return [m["result"] for m in sorted(found, key=lambda m: m["number"])]

    def values(self, entries: Entry | Iterable[Entry], name: str = "seconds") -> list[float]:
        """One value of every result of one or more entries; of times, those from one kind of processor alone."""
        several = [entries] if isinstance(entries, Entry) else entries
        results = (result for entry in several for result in self.results(entry, timed=name in TIMES))
        return [result[name] for result in results if name in result]

    @property
    def timed_on(self) -> str | None:
        """The kind of processor that most measurements with a time are from; None where there is none."""
        timed = Counter(m.get("cpu") for m in self.data["measurements"] if "seconds" in m.get("result", {}))
        return next((cpu for cpu, _ in timed.most_common(1)), None)

    def _with_others(self, kept: dict[str, Any]) -> list[dict[str, Any]]:
        """What was taken here, and after it all else that the file holds."""
        mine = {_identity(m) for m in self.taken}
        return [m for m in kept.get("measurements", []) if _identity(m) not in mine] + self.taken

    def write(self) -> None:
        """Keep everything, with what another process has kept meanwhile, wholly or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")), atomic_write(self.path) as file:
            kept = self._kept()
            self.data["measurements"] = self._with_others(kept)
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
def _interpreter(environment: str) -> Path | EnvironmentFailed:
    try:
        return python_of(environment)
    except EnvironmentFailed as problem:  # it is not tried again and again
        return problem


def _python(environment: str) -> Path:
    found = _interpreter(environment)
    if isinstance(found, EnvironmentFailed):
        raise found
    return found


@cache
def _environment(name: str) -> dict[str, str]:
    try:
        return versions(_python(name))
    except EnvironmentFailed:
        return {}
