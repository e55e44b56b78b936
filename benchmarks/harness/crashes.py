"""Kills of a labelling server and of its trainer, at random moments while people label; run by ``labelling.py``.

Each life of the server begins as ``modicum label`` begins one: its trainer loads, trains and scores beside four people
who label over HTTP. In half of the lives the trainer is killed a few times, then the server, by SIGKILL. After each
death of the server its project is opened and looked through: every acknowledged label must be there once, and what the
tables say must follow from the events. back: seconds from the next server's start to its first answered question.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.labelling import Person, served
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings
from modicum.base.rng import stream

PEOPLE = 4
ITEMS = 8_000
OF_TRAINER = 4
"""Kills of the trainer in a life that has some."""
WORDS = {"refund": ("money", "back", "charge"), "login": ("password", "account", "locked"), "parcel": ("late", "lost")}


def crashes(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """So many kills, and what they cost."""
    rng, acknowledged, problems = random.Random(seed), set[str](), list[str]()
    rows = ((f"t{i}", _text(rng), None) for i in range(ITEMS))
    settings = Settings(classes=tuple(WORDS), retrain_every=20, audit=100, audit_share=0.1)
    ProjectStore.create(folder, settings, rows, now=time.time()).close()
    done = {"server": 0, "trainer": 0}
    back, opening, models, life = list[float](), list[float](), 0, 0
    while sum(done.values()) < kills:
        life += 1
        trainer_too = life % 2 == 0
        began = time.perf_counter()
        with suppress(subprocess.TimeoutExpired), served(folder, PEOPLE, trains=True) as (told, _):
            moments = _Moments(rng, told["pid"], OF_TRAINER if trainer_too else 0, kills - sum(done.values()))
            first = asyncio.run(_label_until_killed(told, f"{life}", acknowledged, moments))
        back.append(first - began)
        done["server"] += 1
        done["trainer"] += moments.of_trainer
        began = time.perf_counter()
        with ProjectStore(folder) as store:
            opening.append(time.perf_counter() - began)
            found = lost_or_doubled(store, acknowledged) + store.check()
            models = len(store.models())
        problems += [f"life {life}: {problem}" for problem in found]
        if life % 10 == 0:
            print(
                f"  {sum(done.values())} kills, {len(acknowledged):,} labels acknowledged, {models} models", flush=True
            )
    return {
        "kills": done, "labels_acknowledged": len(acknowledged), "problems": problems, "models": models,
        "slowest_opening_s": round(max(opening), 2), "median_back_s": round(sorted(back)[len(back) // 2], 2),
        "slowest_back_s": round(max(back), 2), "ok": not problems and max(opening) <= 3.0,
    }  # fmt: skip


def lost_or_doubled(store: ProjectStore, acknowledged: set[str]) -> list[str]:
    """What is wrong with acts that were acknowledged; the server puts the user's number before a client's name."""
    clients = [row[0] for row in store._read("SELECT client FROM events WHERE client IS NOT NULL")]
    kept = {client.rpartition(":")[2] for client in clients}
    doubled = len(clients) - len(set(clients))
    return [f"lost: {client}" for client in sorted(acknowledged - kept)] + [f"{doubled} doubled"] * bool(doubled)


def _text(rng: random.Random) -> str:
    about = rng.choice(list(WORDS))
    return " ".join([about, *rng.choices(WORDS[about], k=2), *(f"w{rng.randrange(2_000)}" for _ in range(8))])


class _Moments:
    """When a life ends, and which kills come before."""

    def __init__(self, rng: random.Random, server: int, of_trainer: int, left: int) -> None:
        self.rng, self.server, self.wanted, self.of_trainer = rng, server, min(of_trainer, left - 1), 0

    async def kill(self) -> None:
        """Kill the trainer so often as is wanted, each time at some moment of its life, then the server."""
        while self.of_trainer < self.wanted:
            await asyncio.sleep(self.rng.uniform(0.5, 12.0))
            trainer = _child_of(self.server)
            if trainer is not None:
                os.kill(trainer, signal.SIGKILL)
                self.of_trainer += 1
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        os.kill(self.server, signal.SIGKILL)


def _child_of(process: int) -> int | None:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True).stdout.split()
    return int(found[0]) if found else None


async def _label_until_killed(told: dict[str, Any], life: str, acknowledged: set[str], moments: _Moments) -> float:
    """People label until their server is gone; returns when the first question was answered."""
    first = list[float]()

    async def person(place: int) -> None:
        one, rng, act = Person(told["port"], told["tokens"][place]), stream(place, "crashes", int(life)), 0
        while True:
            status, found = await one.ask("GET", "/api/next?count=4")
            assert status == 200, found
            first.append(time.perf_counter())
            if not found["items"]:
                await asyncio.sleep(0.2)
            for item in found["items"]:
                act += 1
                client = f"{life}-{place}-{act}"
                label = next((i for i, word in enumerate(WORDS) if word in item["text"]), 0)
                body = {"client": client, "item": item["item"], "version": item["version"], "label": label}
                status, found = await one.ask("POST", "/api/answers", body)
                if status == 200:
                    acknowledged.add(client)
                await asyncio.sleep(float(rng.uniform(0.3, 0.9)))

    async def gone(place: int) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await person(place)

    await asyncio.gather(moments.kill(), *(gone(place) for place in range(PEOPLE)))
    return first[0] if first else time.perf_counter()
