"""What the labelling app must bear: a million rows, many people, and being killed at any moment.

    python benchmarks/labelling.py [--part import serve kills crashes annotators] [--items 1000000] [--kills 200]

import: a project of so many rows, with its seconds and its peak memory (the aim: 60 s and 1 GB for a million).
kills: a process that writes labels from eight threads is killed with SIGKILL, beside others that use the processor; no
acknowledged label may be lost and none doubled, the database must be whole, and open again within 3 s.
serve, annotators: see ``harness/labelling.py``. crashes: see ``harness/crashes.py``.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.crashes import crashes, lost_or_doubled

from modicum.annotate.store.exchange import create_project
from modicum.annotate.store.project import Conflict, ProjectStore
from modicum.annotate.store.records import Labelled, Settings

WORDS = ["refund", "order", "late", "parcel", "invoice", "address", "change", "broken", "screen", "battery", "login"]
THREADS = 8
CHECKED_EVERY = 20
"""Kills between checks that all derived tables follow from the events; these take as long as a rebuild."""


def write_rows(path: Path, items: int, seed: int) -> None:
    """A csv of texts of 5 to 30 words, one in ten labelled."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(20_000)] + WORDS * 300
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label"])
        for i in range(items):
            label = rng.choice("abcdefg") if i % 10 == 0 else ""
            rows.writerow([f"t{i:07}", " ".join(rng.choices(words, k=rng.randint(5, 30))), label])


# ---- import ----------------------------------------------------------------------------------------------------------


def measured_import(data: str, out: str) -> None:
    """In a process of its own: prints what it took."""
    began = time.perf_counter()
    with create_project(out, data, {}, now=time.time()) as store:
        taken, n = time.perf_counter() - began, store.count()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": n, "seconds": round(taken, 1), "peak MB": round(peak)}))


def part_import(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of an import, and of opening what it made."""
    write_rows(folder / "rows.csv", options.items, options.seed)
    command = [sys.executable, __file__, "--import-here", str(folder / "rows.csv"), str(folder / "million")]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    began = time.perf_counter()
    with ProjectStore(folder / "million") as store:
        store.progress()
        result["open and progress, s"] = round(time.perf_counter() - began, 2)
        result |= {"data MB": mb(folder / "rows.csv"), "project MB": mb(store.path)}
    result["ok"] = bool(result["seconds"] <= 60 and result["peak MB"] <= 1024)
    return result


def mb(path: Path) -> int:
    """A file's size."""
    return round(path.stat().st_size / 1e6)


# ---- kills -----------------------------------------------------------------------------------------------------------


def writer(project: str, turn: int) -> None:
    """The process that is killed: leases, labels, bulks and undos from several threads; tells each that returned."""
    store = ProjectStore(project)
    n, say = store.count(), threading.Lock()

    def tell(client: str) -> None:
        with say:
            os.write(1, f"{client}\n".encode())

    def work(thread: int) -> None:
        rng, act = random.Random(turn * THREADS + thread), 0
        while True:
            act += 1
            client, now = f"{turn}-{thread}-{act}", time.time()
            size = 1 if rng.random() < 0.9 else 20
            items = store.lease(rng.sample(range(n), size), 1, now + 60, now)
            events = [Labelled(item=i, label=rng.randrange(3), version=version(store, i), seconds=1.5) for i in items]
            try:
                if rng.random() < 0.1:
                    if store.undo(user=1, client=client, now=now) is not None:
                        tell(client)
                elif events:
                    store.write_many(events, user=1, client=client, now=now)
                    tell(client)
            except Conflict:  # another thread took the answer back in between
                continue

    tell("ready")
    for thread in range(THREADS):
        threading.Thread(target=work, args=(thread,)).start()


def version(store: ProjectStore, item: int) -> int:
    """The version of a user's present answer."""
    answer = store.answer(item, 1)
    return answer.version if answer is not None else 0


def kill_once(project: Path, turn: int, moments: random.Random) -> list[str]:
    """Start a writer, kill it at a random moment; the acts that it said were done."""
    command = [sys.executable, __file__, "--write-here", str(project), str(turn)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready = turn % 10 != 0  # now and then it is killed while it starts
    if ready:
        process.stdout.readline()
    time.sleep(moments.uniform(0.0, 0.6))
    process.send_signal(signal.SIGKILL)
    told = process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait()
    return [line.strip() for line in told if line.endswith("\n") and line != "ready\n"]


def inspect(project: Path, told: set[str], whole: bool) -> tuple[float, list[str]]:
    """Seconds until the project can be read and written again, and what is wrong with it."""
    began = time.perf_counter()
    with ProjectStore(project) as store:
        store.lease([0], 1, 1.0, 0.0)
        seconds = time.perf_counter() - began
        problems = lost_or_doubled(store, told)
        if whole:
            problems += store.check()
        else:
            problems += [row[0] for row in store._read("PRAGMA integrity_check") if row[0] != "ok"]
    return seconds, problems


def burn() -> None:
    """Use a core until killed."""
    while True:
        sum(range(10_000))


def part_kills(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """So many kills, and what they cost."""
    project, moments, told = folder / "killed", random.Random(options.seed), set[str]()
    rows = ((f"t{i}", f"{' '.join(moments.choices(WORDS, k=12))} {i}", None) for i in range(options.pool))
    ProjectStore.create(project, Settings(classes=("a", "b", "c")), rows, now=time.time()).close()
    burners = [multiprocessing.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for burner in burners:
        burner.start()
    taken, problems = [], list[str]()
    try:
        for turn in range(options.kills):
            told |= set(kill_once(project, turn, moments))
            last = turn % CHECKED_EVERY == CHECKED_EVERY - 1 or turn == options.kills - 1
            seconds, found = inspect(project, told, last)
            taken.append(seconds)
            problems += [f"kill {turn + 1}: {problem}" for problem in found]
            if last:
                print(f"  {turn + 1} kills, {len(told):,} acts acknowledged, {len(problems)} problems", flush=True)
    finally:
        for burner in burners:
            burner.kill()
    result = {"kills": options.kills, "acts acknowledged": len(told), "problems": problems}
    result |= {"slowest opening, s": round(max(taken), 2), "ok": not problems and max(taken) <= 3.0}
    return result


# ---- the server ------------------------------------------------------------------------------------------------------


def part_serve(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Next items and labels at the server while a model is trained."""
    from harness.labelling import serve

    return dict(serve(options.items, options.seconds))


def part_crashes(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kills of the server and of its trainer, while people label over HTTP."""
    return dict(crashes(folder / "crashed", options.kills, options.seed))


def part_annotators(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Simulated annotators on one project."""
    from harness.labelling import annotators

    return dict(annotators(options.people, options.minutes))


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "import": part_import,
    "serve": part_serve,
    "kills": part_kills,
    "crashes": part_crashes,
    "annotators": part_annotators,
}


def main() -> None:
    if sys.argv[1:2] == ["--import-here"]:
        return measured_import(*sys.argv[2:])
    if sys.argv[1:2] == ["--write-here"]:
        return writer(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--items", type=int, default=1_000_000, help="rows of import and serve")
    parser.add_argument("--kills", type=int, default=200, help="of kills and of crashes")
    parser.add_argument("--pool", type=int, default=20_000, help="items of kills")
    parser.add_argument("--seconds", type=float, default=120.0, help="of serve")
    parser.add_argument("--people", type=int, default=50, help="of annotators")
    parser.add_argument("--minutes", type=float, default=10.0, help="of annotators")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, ok = Path(tempfile.mkdtemp()), True
    try:
        for part in options.part:
            result = PARTS[part](options, folder)
            ok = ok and bool(result.get("ok", True))
            print(part, json.dumps(result, ensure_ascii=False), flush=True)
    finally:
        shutil.rmtree(folder)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
