"""Gangs at work side by side, in processes of their own: small models do not use all cores of a machine.

Each process has its share of the threads, a backbone and a connection to the store of its own. A gang's results
depend on the number of its threads as they always do, and on nothing that another gang does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any, Protocol

import torch

from modicum.base.errors import ModicumError, StoreError
from modicum.study.spec import Study, Trial

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

RunGang = Callable[[Trial, Sequence[str]], None]
"""Runs a gang: one of its trials, and the keys of all."""


class Hears(Protocol):
    """What a watcher hears of a gang."""

    def pretrained(self, trial: Trial, epoch: int, loss: float) -> None: ...

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None: ...


Prepare = Callable[[Study, Path, Hears], RunGang]
"""(study, its folder, a watcher) -> what runs its gangs, made once in each process."""


class _Sender:
    """A watcher that sends what it hears to the first process."""

    def __init__(self, news: Any) -> None:
        self.news = news

    def pretrained(self, trial: Trial, epoch: int, loss: float) -> None:
        self.news.put(("pretrained", trial, epoch, loss))

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        self.news.put(("round_done", trial, dict(record)))


def run_side_by_side(
    study: Study,
    out: Path,
    gangs: Sequence[tuple[Trial, Sequence[str]]],
    workers: int,
    watcher: Hears,
    prepare: Prepare,
) -> None:
    """Run all gangs, so many at a time. The watcher is told here, in this process.

    Raises:
        ModicumError: what a gang raised. StoreError: a process ended without a word.
    """
    context = multiprocessing.get_context("spawn")
    jobs, news = context.Queue(), context.Queue()
    for gang in gangs:
        jobs.put(gang)
    workers = min(workers, len(gangs))
    for _ in range(workers):
        jobs.put(None)
    with _threads(threads_each(workers)):
        made = [
            context.Process(target=_work, args=(study, out, jobs, news, prepare), daemon=True) for _ in range(workers)
        ]
        for process in made:
            process.start()
    try:
        at_work = workers
        while at_work:
            kind, *told = _next(news, made)
            if kind == "finished":
                at_work -= 1
            elif kind == "failed":
                raise ModicumError(told[0])
            else:
                getattr(watcher, kind)(*told)
    finally:
        for process in made:
            process.terminate()
        for process in made:
            process.join()


def _next(news: Any, processes: Sequence[Any]) -> tuple[Any, ...]:
    """What comes next from any process."""
    while True:
        try:
            told: tuple[Any, ...] = news.get(timeout=1)
            return told
        except Empty:
            ended = next((p for p in processes if p.exitcode not in (None, 0)), None)
            if ended is not None:
                raise StoreError(
                    f"a worker process ended with exit code {ended.exitcode} (memory?): every finished round is kept, "
                    "and the same command, with fewer --workers perhaps, goes on from there"
                ) from None


def threads_each(workers: int) -> int:
    """The share of this machine's threads that each of so many processes has."""
    return max(1, torch.get_num_threads() // workers)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started now have so many threads."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _work(study: Study, out: Path, jobs: Any, news: Any, prepare: Prepare) -> None:
    """A process's whole life: gangs until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends this one
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        run = prepare(study, out, _Sender(news))
        while (gang := jobs.get()) is not None:
            run(*gang)
        news.put(("finished",))
    except ModicumError as error:
        news.put(("failed", str(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
