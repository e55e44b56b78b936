"""Fixtures of several files; what needs torch or the web extra is imported by those that use it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy_label_store import project

from modicum.annotate.store.project import ProjectStore
from modicum.cli import main

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.testclient import TestClient
    from toy_label import FakeTrainer


@pytest.fixture
def modicum(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modicum", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ProjectStore]]:
    """Labelling projects over ninety toy texts; settings as wanted."""
    with ExitStack() as made:

        def one(name: str = "project", **settings: Any) -> ProjectStore:
            settings = {"method": "head", "strategy": "entropy", "warm_strategy": "typiclust", **settings}
            return made.enter_context(project(tmp_path / name, 90, **settings))

        yield one


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    with project(tmp_path, suggest="shown") as made:
        yield made


@pytest.fixture
def trainer() -> FakeTrainer:
    from toy_label import FakeTrainer

    return FakeTrainer()


@pytest.fixture
def app(store: ProjectStore, trainer: FakeTrainer) -> FastAPI:
    from toy_label import app_of

    return app_of(store, trainer)


@pytest.fixture
def lead(app: FastAPI) -> TestClient:
    """The lead's browser, signed in."""
    from toy_label import browser, sign_in

    return sign_in(browser(app))
