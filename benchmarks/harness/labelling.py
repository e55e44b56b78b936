"""The labelling server under load; run by ``labelling.py``.

serve: one annotator at full speed before a pool of a million items, while the trainer trains and scores without a pause
(that many labels come in). Times of ``GET /api/next`` and of ``POST /api/answers`` are taken at the server (from a
request's arrival to its answer's end) and at the client. The aims: 95 % within 50 ms and 150 ms.

annotators: many people at once, some of whom vanish with their items, some for good; answers are sent twice at times,
and taken back. When all is done, each item must have exactly k answers, of k people, nobody may have got an item that
they had answered, and no request may have failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings

K = 2
LEASE = 15.0
RATE = 1.0
"""Answers a second of one person."""
LEAVE = 5
"""People who go for good, half-way."""


# ---- the server, in a process of its own -----------------------------------------------------------------------------


def run_server(folder: str, people: int, trains: bool) -> None:
    """Serve until the standard input ends; says its port and a token for each of so many people, times at the end."""
    import uvicorn

    from modicum.annotate.model.supervisor import Supervisor
    from modicum.annotate.server.app import _listen, make_app, make_queue
    from modicum.annotate.server.security import authorities

    store = ProjectStore(folder)
    listener = _listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    began = time.perf_counter()
    queue = make_queue(store)
    supervisor = Supervisor(Path(folder), store, queue) if trains else None
    app = make_app(store, queue, supervisor, hosts=authorities(port), users=True)
    auth, known = app.state.desk.accounts, {one.name: one.user for one in store.users()}
    names = [f"person {i}" for i in range(people)]
    users = [known[name] if name in known else auth.add(name, "annotator", None) for name in names]
    told = {"port": port, "tokens": [auth.api_token(user) for user in users], "queue": time.perf_counter() - began}
    times: dict[str, list[float]] = {}

    async def timed(scope: Any, receive: Any, send: Any) -> None:
        start = time.perf_counter()
        await app(scope, receive, send)
        if scope["type"] == "http":
            times.setdefault(f"{scope['method']} {scope['path']}", []).append(time.perf_counter() - start)

    server = uvicorn.Server(uvicorn.Config(timed, log_level="error", lifespan="on", timeout_graceful_shutdown=2))

    async def until_end() -> None:
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True

    async def both() -> None:
        await asyncio.gather(server.serve(sockets=[listener]), until_end())

    print(json.dumps(told), flush=True)
    asyncio.run(both())
    store.close()
    print(json.dumps(times), flush=True)


@contextmanager
def served(folder: Path, people: int, trains: bool) -> Iterator[tuple[dict[str, Any], dict[str, list[float]]]]:
    """What the server said, and where its times will be when it has ended."""
    command = [sys.executable, __file__, str(folder), str(people), "trains" * trains]
    times: dict[str, list[float]] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            yield json.loads(child.stdout.readline()) | {"pid": child.pid}, times
        finally:
            child.stdin.close()
            with suppress(ValueError):
                times |= json.loads(child.stdout.readline())
            child.wait(20)


class Person:
    """One connection that asks and waits."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        sent = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        self.writer.write(head.encode() + sent)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(answer.lower().split("content-length: ")[1].split("\r\n")[0])
        return int(answer.split()[1]), json.loads(await self.reader.readexactly(length))

    def hang_up(self) -> None:
        """Close the connection; the next question opens another."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: the median, 95 % and the longest."""
    found = np.quantile(np.array(seconds) * 1000, (0.5, 0.95, 1))
    return {"n": len(seconds), **dict(zip(("p50", "p95", "max"), found.round(2).tolist(), strict=True))}


# ---- serve -----------------------------------------------------------------------------------------------------------


def serve(pool: int = 1_000_000, seconds: float = 60.0) -> dict[str, Any]:
    """Times of next items and of durable answers while models are trained."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        rng = random.Random(0)
        words = [f"w{i}" for i in range(5_000)]
        rows = ((f"t{i}", " ".join(rng.choices(words, k=12)), None) for i in range(pool))
        ProjectStore.create(folder, Settings(classes=("a", "b", "c"), audit=200), rows, now=time.time()).close()
        with served(folder, 1, trains=True) as (told, times):
            at_client = asyncio.run(_one_person(told, seconds))
        with ProjectStore(folder, read_only=True) as store:
            records = [model.record for model in store.models()]
    found = {
        "next_at_server": quantiles(times["GET /api/next"]), "answer_at_server": quantiles(times["POST /api/answers"]),
        "next_at_client": quantiles(at_client["next"]), "answer_at_client": quantiles(at_client["answer"]),
    }  # fmt: skip
    return {
        "ok": found["next_at_server"]["p95"] <= 50 and found["answer_at_server"]["p95"] <= 150,
        "pool": pool, "seconds": seconds, "queue_seconds": round(told["queue"], 2), "models": len(records),
        "seconds_training_and_scoring": round(sum(record["seconds"] for record in records), 1),
        "trainer_peak_mb": round(max((record["peak_memory_mb"] for record in records), default=0.0)),
        "load": [round(value, 1) for value in os.getloadavg()], **found,
    }  # fmt: skip


async def _one_person(told: dict[str, Any], seconds: float) -> dict[str, list[float]]:
    person, taken = Person(told["port"], told["tokens"][0]), {"next": [], "answer": []}  # type: ignore[var-annotated]
    end, n = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        begin = time.perf_counter()
        status, found = await person.ask("GET", "/api/next?count=12")
        taken["next"].append(time.perf_counter() - begin)
        assert status == 200, found
        for item in found["items"][:6]:
            n += 1
            body = {"client": f"c{n}", "item": item["item"], "version": item["version"], "label": n % 3}
            begin = time.perf_counter()
            status, found = await person.ask("POST", "/api/answers", body)
            taken["answer"].append(time.perf_counter() - begin)
            assert status == 200, found
            await asyncio.sleep(0.05)
    return taken


# ---- annotators ------------------------------------------------------------------------------------------------------


def annotators(people: int = 50, minutes: float = 10.0) -> dict[str, Any]:
    """Many people until every item is done."""
    n = int(people * RATE * 60 * minutes / K * 0.8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        settings = Settings(classes=("a", "b", "c"), per_item=K, lease_seconds=LEASE, audit=50)
        rows = ((f"t{i}", f"text number {i}", None) for i in range(n))
        ProjectStore.create(folder, settings, rows, now=time.time()).close()
        with served(folder, people, trains=False) as (told, times):
            began = time.perf_counter()
            counts, repeats = asyncio.run(_many(told, 60 * minutes))
            taken = time.perf_counter() - began
        store = ProjectStore(folder)
        answers = Counter(one.item for one in store.answers() if one.answered)
        problems, held = store.check(), store.leased(time.time() + LEASE)
        store.close()
    found = {
        "items_over_k": sum(count > K for count in answers.values()),
        "items_under_k": n - sum(count >= K for count in answers.values()),
        "offered_again_to_the_same": repeats, "still_on_lease": len(held), "problems": problems,
        "server_errors": sum(count for name, count in counts.items() if name.split()[-1].startswith("5")),
    }  # fmt: skip
    return {
        "ok": not any(found.values()), "people": people, "seconds": round(taken, 1), "items": n, "k": K, **found,
        "statuses": dict(counts), "next_at_server": quantiles(times["GET /api/next"]),
        "answer_at_server": quantiles(times["POST /api/answers"]),
    }  # fmt: skip


async def _many(told: dict[str, Any], seconds: float) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    end = asyncio.get_running_loop().time() + seconds

    async def live(place: int) -> int:
        person, rng = Person(told["port"], told["tokens"][place]), random.Random(place)
        done: set[int] = set()
        repeats = acts = 0
        while True:
            now = asyncio.get_running_loop().time()
            if place < LEAVE and now > end - seconds / 2:
                return repeats  # for good, with items on lease
            status, found = await person.ask("GET", f"/api/next?count={rng.randint(1, 8)}")
            counts[f"next {status}"] += 1
            if status != 200 or not found["left"] or now > end + 60:
                return repeats
            if not found["items"]:
                await asyncio.sleep(0.5)
                continue
            if rng.random() < 0.05:
                counts["vanished for a while"] += 1
                person.hang_up()
                await asyncio.sleep(2 * LEASE)
                continue
            for item in found["items"]:
                await asyncio.sleep(rng.uniform(0.5, 1.5) / RATE if now < end else 0)
                repeats += item["item"] in done
                acts += 1
                body = {"client": f"c{acts}", "item": item["item"], "version": item["version"]}
                body |= {"skip": "unclear"} if rng.random() < 0.05 else {"label": rng.randrange(3)}
                for _ in range(1 + (rng.random() < 0.02)):
                    status, _ = await person.ask("POST", "/api/answers", body)
                    counts[f"answer {status}"] += 1
                if status == 200:
                    done.add(item["item"])
            if rng.random() < 0.05 and done:
                acts += 1
                status, undone = await person.ask("POST", "/api/undo", {"client": f"c{acts}"})
                counts[f"undo {status}"] += 1
                if undone.get("item"):
                    done.discard(undone["item"]["item"])

    found = await asyncio.gather(*(live(place) for place in range(len(told["tokens"]))))
    return counts, sum(found)


if __name__ == "__main__":
    run_server(sys.argv[1], int(sys.argv[2]), bool(sys.argv[3]))
