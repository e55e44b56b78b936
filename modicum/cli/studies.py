"""``modicum demo``, ``study`` and ``report``."""

from __future__ import annotations

from pathlib import Path

from modicum.cli import console
from modicum.report import ReportSource, curve_table, write_report
from modicum.study.results import Results, load_results
from modicum.study.run import run_study
from modicum.study.spec import Study, read_study

QUICKSTART = Path(__file__).parent / "quickstart.toml"


def run(
    file: Path, out: Path, as_json: bool, data_dir: Path | None = None, profile: str | None = None, workers: int = 1
) -> None:
    """Run or resume a study file, print the curves, write the report."""
    run_and_show(read_study(file, data_dir, profile), out, as_json, workers)


def run_and_show(study: Study, out: Path, as_json: bool, workers: int = 1) -> None:
    """Run or resume a study, print the curves, write the report."""
    watcher = console.StudyWatcher(as_json)
    try:
        results = run_study(study, out, watcher, workers=workers)
    except KeyboardInterrupt:
        watcher.finished()
        console.fail(f"stopped; every finished round is kept in {out}, and the same command goes on from there")
        raise SystemExit(130) from None
    finally:
        watcher.finished()
    _show(results, out, as_json)


def write(folder: Path) -> None:
    """The report of what a study's folder holds by now."""
    _show(load_results(folder), folder, as_json=False)


def _show(results: Results, out: Path, as_json: bool) -> None:
    source = ReportSource(**vars(results))
    path = write_report(source, out)
    if as_json:
        console.emit("finished", report=str(path), results=str(out / "results.csv"))
        return
    header, rows = curve_table(source)
    console.table(
        header, rows, title=f"{results.title}: mean {results.metric} by number of labels", plain_columns=_words(rows)
    )
    console.say(f"Report: {path}")


def _words(rows: list[list[str]]) -> int:
    """How many leading columns hold names, not numbers."""
    return next((i for i, cell in enumerate(rows[0]) if cell[:1].isdigit() or cell[:1] in "-–"), 2) if rows else 2
