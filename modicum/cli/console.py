"""What the commands print, and how: progress for people, JSON lines for programs, errors without tracebacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer


def say(text: str = "") -> None:
    """A line on standard output."""
    typer.echo(text)


def fail(message: str) -> typer.Exit:
    """Print an error; raise what this returns."""
    typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    return typer.Exit(1)


def emit(kind: str, **values: Any) -> None:
    """One JSON line on standard output."""
    typer.echo(json.dumps({"event": kind, **values}, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", plain_columns: int = 1) -> None:
    """A table for people; the first ``plain_columns`` are text, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", header_style="bold")
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i < plain_columns else "right")
    for row in rows:
        shown.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, highlight=False).print(shown)


@contextmanager
def progress(title: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar with rate and ETA on a terminal's standard error, silent elsewhere; yields a function to advance it."""
    if quiet or not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.advance(task, n)


class StudyWatcher:
    """Shows a study's rounds: a bar on a terminal, a line per round elsewhere, or JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._stop: Callable[[], None] = lambda: None
        self._advance: Callable[[int], None] = lambda n: None
        self._started, self._done, self._first, self._total = 0.0, 0, 0, 0

    def started(self, study: Any, trials: int, rounds: int, done: int) -> None:
        import time

        self._started, self._done, self._first, self._total = time.monotonic(), done, done, rounds
        if self.as_json:
            emit("started", title=study.title, trials=trials, rounds=rounds, done=done)
            return
        resumed = f", {done} of them done before" if done else ""
        say(f"{study.title}: {trials} trials, {rounds} rounds{resumed}.")
        bar = progress("rounds", rounds)
        self._advance = bar.__enter__()
        self._stop = lambda: bar.__exit__(None, None, None)
        self._advance(done)

    def pretrained(self, trial: Any, epoch: int, loss: float) -> None:
        name = {"dataset": trial.dataset, "method": trial.method.label, "objective": trial.tapt.objective}
        if self.as_json:
            emit("pretraining", **name, epoch=epoch, epochs=trial.tapt.epochs, loss=loss)
        else:
            what = f"{trial.dataset} {trial.method.label}: {trial.tapt.objective}"
            say(f"{what}, epoch {epoch} of {trial.tapt.epochs}, loss {loss:.3f}")

    def round_done(self, trial: Any, record: Mapping[str, Any]) -> None:
        import time

        self._done += 1
        self._advance(1)
        elapsed = time.monotonic() - self._started
        eta = elapsed / (self._done - self._first) * max(0, self._total - self._done)
        metrics = {k: v for k, v in record.items() if isinstance(v, int | float)}
        name = {
            "dataset": trial.dataset,
            "method": trial.label,
            "strategy": trial.strategy.label,
            "seed": trial.seed,
        }
        if self.as_json:
            emit("round", **name, **metrics, done=self._done, rounds=self._total, eta_seconds=round(eta, 1))
        elif not sys.stderr.isatty():
            main = next(iter(metrics.items()))
            what = f"{trial.dataset} {trial.label} × {trial.strategy.label}, seed {trial.seed}"
            say(
                f"[{self._done}/{self._total}] {what}: {record['labels']} labels, "
                f"{main[0]} {main[1]:.3f} (ETA {clock(eta)})"
            )

    def finished(self) -> None:
        """Take the bar away."""
        self._stop()
        self._stop = lambda: None


def clock(seconds: float) -> str:
    """``75`` -> ``1:15``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
