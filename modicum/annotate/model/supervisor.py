"""Starts the trainer, watches it, starts it again when it has died, and hands its news to the store and the queue.

Lives in the server's event loop and loads no model library. No label waits for it, and its failures are told through
``state``: what is being done, by which model, and whether more labelling is worth it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from modicum.annotate.model.queue import Queue
from modicum.annotate.model.worth import curve_point, is_worth
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Suggestion
from modicum.base.errors import ModicumError
from modicum.base.events import Trained

LOG = "trainer.log"
LOG_SIZE = 5_000_000
"""Bytes of the log after which it begins anew, keeping the last one."""
LINE = 2**20
"""Bytes of a message from the trainer at most."""
GRACE = 5.0
"""Seconds that a trainer has to leave before it is killed."""
COUNTED = ("labelled", "adjudicated", "imported")
"""Events that give a label."""


class Supervisor:
    """Runs the trainer of the project in ``folder``. All but ``suggestion`` belongs to the event loop.

    on_change: called when ``state`` has changed. command: in place of the trainer's (for tests). delays: seconds before
    the first new attempt and at most, doubling from one to the other until a training succeeds.

    retrain_every: new labels that ask for a training; set it when the settings change.
    """

    def __init__(
        self,
        folder: Path,
        store: ProjectStore,
        queue: Queue,
        *,
        on_change: Callable[[], None] | None = None,
        command: Sequence[str] | None = None,
        delays: tuple[float, float] = (1.0, 60.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.store, self.queue = Path(folder), store, queue
        self.on_change, self.delays, self.clock = on_change, delays, clock
        self.command = list(command or (sys.executable, "-m", "modicum.annotate.model.trainer", str(self.folder)))
        self.retrain_every = store.settings.retrain_every
        self._model = self._seen = self._new = 0
        self._curve: list[dict[str, Any]] = []
        self._kappas: list[float] = []
        self._suggestions: np.ndarray | None = None
        self._phase, self._message = "loading", ""
        self._since: float | None = None
        self._progress: dict[str, Any] | None = None
        self._ready = self._busy = self._wanted = self._ranked = False
        self._failures = 0
        self._pause: asyncio.TimerHandle | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- for the server ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the last model and its order, and start the trainer; returns before that is ready."""
        strategy = await asyncio.to_thread(self._look_up)
        self._new = await asyncio.to_thread(self._count_new)
        self._ranked = self._take_rank(self._model, strategy)
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """End the trainer, in the midst of its work if need be: labels are safe, and a training can begin anew."""
        self._over.set()
        if self._pause is not None:
            self._pause.cancel()
        await self._end_child()
        if self._task is not None:  # not cancelled: it may be starting a child, which would be lost
            await self._task

    def labelled(self, count: int = 1) -> None:
        """So many new labels are durable; asks for a training when they are enough."""
        self._new += count
        self._ask()

    def retrain(self) -> None:
        """Train as soon as the trainer is free, however few the new labels are."""
        self._wanted = True
        self._ask()

    def suggestion(self, item: int) -> Suggestion | None:
        """What the present model says of an item; None where it has not looked. From any thread."""
        known = self._suggestions
        if known is None or not 0 <= item < len(known) or known[item]["label"] < 0:
            return None
        return Suggestion(label=int(known[item]["label"]), confidence=min(1.0, float(known[item]["confidence"])))

    def state(self) -> dict[str, Any]:
        """For the page, as plain values.

        phase: loading, waiting (for labels), training, scoring, ready or failed; message: why it waits or has failed.
        model: its number, None before the first. labels: what it was trained on; new: what came since. seconds: how
        long the present work has taken; progress: {stage, done, total} of it. worth: whether more labelling is worth
        it, yes, no or unknown; advice: why.
        """
        worth = is_worth(self._curve, self._kappas)
        return {
            "phase": self._phase,
            "message": self._message,
            "model": self._model or None,
            "labels": self._seen,
            "new": self._new,
            "seconds": None if self._since is None else round(max(0.0, self.clock() - self._since), 1),
            "progress": self._progress,
            "worth": worth.verdict,
            "advice": worth.text,
        }

    def curve(self) -> dict[str, Any]:
        """{metric, audit, points}: each model's accuracy on the audit items that had labels then, with 95 % limits.

        No model was trained on audit items, and no model chose them.
        """
        return {"metric": "accuracy", "audit": self._curve[-1]["items"] if self._curve else 0, "points": self._curve}

    # ---- the child -----------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while not self._over.is_set():
            self._set("loading")
            try:
                reason = await self._run_child()
            except OSError as error:
                reason = f"the trainer could not be started: {error}"
            except Exception as error:  # whatever a trainer says, labelling goes on and another one is tried
                traceback.print_exc()
                reason = f"what the trainer said could not be used ({type(error).__name__}: {error})"
            await self._end_child()
            if self._over.is_set():
                break
            self._failures += 1
            self._done("failed", reason)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._delay())

    async def _run_child(self) -> str:
        """Start a trainer and listen until it ends; returns how it did."""
        log = self.folder / LOG
        if log.is_file() and log.stat().st_size > LOG_SIZE:
            log.replace(log.with_suffix(".old.log"))
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as errors:
            self._child = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE,
                env=_few_threads() | os.environ,
            )
        assert self._child.stdout is not None
        if self._over.is_set():
            await self._end_child()
        async for line in self._child.stdout:
            await self._hear(line)
        await self._end_child()
        return f"the trainer ended unexpectedly ({_ending(self._child.returncode)}); {LOG} says more"

    async def _end_child(self) -> None:
        self._ready = False
        child = self._child
        if child is None or child.returncode is not None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), GRACE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _hear(self, line: bytes) -> None:
        """Take in one message; what is none is passed over."""
        try:
            message = json.loads(line)
            kind = message["kind"]
        except (ValueError, KeyError, TypeError):
            return
        if kind == "ready":
            self._ready = True
            self._done("ready" if self._model else "waiting")
        elif kind in ("started", "progress"):
            counts = {name: message[name] for name in ("done", "total") if name in message}
            self._progress = {"stage": message["stage"], **counts}
            self._set("loading" if message["stage"] == "features" else message["stage"])
        elif kind == "ranked":
            self._ranked = self._take_rank(0, message["strategy"])
            self._done("ready" if self._model else "waiting")
        elif kind == "trained":
            await self._take_model(message)
        elif kind == "waiting":
            self._done("waiting", message["reason"])
            return  # until there are more labels
        elif kind == "failed":
            self._fail(message["error"])
        self._ask()

    def _ask(self) -> None:
        """Give the trainer its next work, if it is free and there is some."""
        child = self._child
        if not self._ready or self._busy or self._pause is not None or child is None or child.stdin is None:
            return
        if self._wanted or self._new >= self.retrain_every:
            work: dict[str, Any] = {"kind": "train", "model": self._model + 1}
            self._wanted = False
        elif not self._model and not self._ranked:
            work, self._ranked = {"kind": "rank"}, True
        else:
            return
        self._busy, self._since = True, self.clock()
        with suppress(OSError, RuntimeError):  # it has just died, which is told when its output ends
            child.stdin.write((json.dumps(work) + "\n").encode())

    def _fail(self, reason: str) -> None:
        """The trainer lives, but its work failed: it is tried again after a while."""
        self._failures += 1
        self._ranked = self._ranked and self._model > 0
        self._done("failed", reason)
        self._pause = asyncio.get_running_loop().call_later(self._delay(), self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._ask()

    def _delay(self) -> float:
        first, most = self.delays
        return float(min(most, first * 2.0 ** min(30, max(0, self._failures - 1))))

    def _done(self, phase: str, message: str = "") -> None:
        self._busy, self._since, self._progress = False, None, None
        self._set(phase, message)

    def _set(self, phase: str, message: str = "") -> None:
        self._phase, self._message = phase, message
        if self.on_change is not None:
            self.on_change()

    # ---- models --------------------------------------------------------------------------------------------------

    async def _take_model(self, message: Mapping[str, Any]) -> None:
        """A model is there: note it for good, then go by it."""
        model, labels, record = int(message["model"]), int(message["labels"]), dict(message["record"])
        event = Trained(round=model - 1, labels=labels, record=record)
        try:
            await asyncio.to_thread(self.store.record_training, event, model, self.clock())
        except ModicumError as error:  # a full disk, say: the training is done again
            self._fail(f"model {model} could not be noted: {error}")
            return
        before = self._new
        strategy = await asyncio.to_thread(self._look_up)
        counted = await asyncio.to_thread(self._count_new)
        self._new = max(counted, self._new - before)  # what came in meanwhile may be in both
        self._failures, self._ranked = 0, self._take_rank(model, strategy)
        self._done("ready" if self._model else "waiting")

    def _look_up(self) -> str:
        """Take in what the store knows of models; returns the strategy of the last one's order. In a worker thread."""
        settings, models = self.store.settings, self.store.models()
        self.retrain_every = settings.retrain_every
        points = (curve_point(row.model, row.labels, row.record) for row in models)
        self._curve = [point for point in points if point is not None]
        self._kappas = [row.record["kappa"] for row in models if "kappa" in row.record]
        if not models:
            return settings.warm_strategy
        last = models[-1]
        self._suggestions = _load(self.folder / "models" / str(last.model) / "suggestions.npy", self._suggestions)
        self._model, self._seen = last.model, last.labels
        return str(last.record.get("strategy", settings.strategy.label))

    def _count_new(self) -> int:
        """Labels since those that the last model has seen. In a worker thread."""
        models = self.store.models()
        seq = int(models[-1].record.get("seq", 0)) if models else 0
        return sum(1 for kind in COUNTED for _ in self.store.log(seq, kind))

    def _take_rank(self, model: int, strategy: str) -> bool:
        """Let the queue go by a model's order; False where there is none."""
        rank = _load(self.folder / "ranks" / f"{model}.npy", None)
        if rank is None:
            return False
        self.queue.set_rank(rank[(rank >= 0) & (rank < self.queue.n)], strategy, model or None)
        return True


def _load(path: Path, otherwise: np.ndarray | None) -> np.ndarray | None:
    """An array; what was there before where the file is lost or damaged, since a training makes it anew."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return otherwise


def _few_threads() -> dict[str, str]:
    """Environment of the child: one core stays with the server."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(max(1, cores - 1)))


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
