"""Kills a study with SIGKILL at random moments, resumes it each time, and compares its results with a quiet run's.

    python benchmarks/kill_resume.py [--kills 20] [--seed 0]

Prints a row per kill and, in the end, whether results.csv is the same but for its timing columns.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from modicum.report import TIMING_COLUMNS

STUDY = """
title = "Killed and resumed"
methods = ["lora", "bitfit"]
strategies = ["random", "entropy", "coreset"]
seeds = 2
[[data]]
train = "helpdesk"
[backbone]
max_length = 16
[loop]
warm_start = 16
batch = 8
budget = 48
[training]
steps = 12
batch_size = 8
"""


def start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "modicum.cli.main", "study", str(file), "--out", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(file: Path, out: Path) -> tuple[list[dict[str, object]], float, float]:
    """Run to the end; the events printed, the seconds until the first round could begin, and the seconds in all."""
    began, loading = time.perf_counter(), 0.0
    process = start(file, out)
    told = []
    for line in process.stdout:
        told.append(line.decode())
        loading = loading or time.perf_counter() - began
    if process.wait():
        raise SystemExit("the study failed:\n" + "".join(told))
    return [json.loads(line) for line in told if line.startswith("{")], loading, time.perf_counter() - began


def untimed(path: Path) -> str:
    """results.csv without its timing columns."""
    rows = list(csv.DictReader(path.open(newline="")))
    kept = [name for name in rows[0] if name not in TIMING_COLUMNS]
    return "\n".join(",".join(row[name] for name in kept) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    moments = random.Random(settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.toml"
        file.write_text(STUDY)
        events, loading, seconds = finish(file, Path(folder) / "quiet")
        rounds = sum(e["event"] == "round" for e in events)
        print(f"quiet run: {rounds} rounds in {seconds:.1f} s, the first {loading:.1f} s of them loading")
        killed, done = Path(folder) / "killed", 0
        while done < settings.kills:
            process = start(file, killed)
            delay = moments.uniform(0.2, 1.5 * loading + (seconds - loading) / settings.kills * 2)
            try:
                process.communicate(timeout=delay)
                print(f"  finished before kill {done + 1}: starting over in a new folder")
                killed = Path(folder) / f"killed-{done}"
                continue
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            done += 1
            print(f"  kill {done:2} after {delay:4.1f} s")
        events, _, _ = finish(file, killed)
        resumed = next(e for e in events if e["event"] == "started")
        print(f"last resume found {resumed['done']} of {resumed['rounds']} rounds done")
        same = untimed(Path(folder) / "quiet" / "results.csv") == untimed(killed / "results.csv")
        print("results.csv without timing columns: " + ("identical" if same else "DIFFERENT"))
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
