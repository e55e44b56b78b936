"""What the documentation shows is run, or is made from the code."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from modicum.cli.info import reference
from modicum.cli.main import app
from modicum.engine.objectives.base import Seen
from modicum.export.peft import SNIPPET
from modicum.study.spec import parse_study, read_study
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import MethodContract
from modicum.testing.strategies import StrategyContract

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS: Any = typer.main.get_command(app)


def blocks(language: str) -> list[Any]:
    """All fenced blocks of a language, as test parameters."""
    found = []
    for page in PAGES:
        for i, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            found.append(pytest.param(code, id=f"{page.name}-{i}"))
    return found


@pytest.mark.parametrize("code", blocks("console"))
def test_commands_are_what_the_command_line_takes(code: str) -> None:
    for line in re.findall(r"^\$ (.*)$", code, re.MULTILINE):
        words = shlex.split(line)
        if words[0] == "modicum":
            COMMANDS.commands[words[1]].make_context(words[1], words[2:])
        else:
            assert words[0] in ("git", "make"), line


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "AutoModelForTokenClassification" in code:  # needs the hub; tests/test_export.py runs the same on a tiny model
        assert SNIPPET["mean"].replace("'", '"') in code
        return
    monkeypatch.chdir(tmp_path)
    backbone = fake_backbone()
    monkeypatch.setattr("modicum.api.classifier.shared_backbone", lambda *settings: backbone)
    data = toy_dataset(80, classes=2)
    texts, labels = data.texts(), [("billing", "refund")[i] for i in data.labels]
    by_text = dict(zip(texts, labels, strict=True))
    names: dict[str, Any] = {"texts": texts, "labels": labels, "more_texts": texts[:5], "__name__": "documentation"}
    names["ask_someone"] = by_text.__getitem__
    names["label_of"] = lambda example: by_text[names["learner"].text(example)]
    names["SmallestMargin"] = shown_class("SmallestMargin")
    exec(compile(code, "documentation", "exec"), names)


def shown_class(name: str) -> Any:
    """A class that docs/plugins.md defines."""
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"class {name}(" in c)
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(code, "documentation", "exec"), names)
    return names[name]


class TestShownStrategy(StrategyContract):
    """The strategy of docs/plugins.md keeps the contract."""

    def make(self) -> Any:
        return shown_class("SmallestMargin")()


class TestShownMethod(MethodContract):
    """The method of docs/plugins.md keeps the contract."""

    def make(self) -> Any:
        return shown_class("ScaleAll")()


def test_the_shown_objective_is_one() -> None:
    seen = Seen(torch.zeros(2, 1), torch.tensor([[0.0, 0.0], [9.0, 0.0]]), *[torch.zeros(2, dtype=torch.int64)] * 3)
    found = shown_class("Focal")().losses(seen)
    assert found[0].item() == pytest.approx(math.log(2) / 4) and found[1].item() < 1e-6


@pytest.mark.parametrize("code", blocks("toml"))
def test_toml_is_a_study_or_entry_points(code: str) -> None:
    values = tomllib.loads(code)
    if "project" in values:
        assert set(values["project"]["entry-points"]) == {"modicum.strategies", "modicum.methods", "modicum.objectives"}
    else:
        assert parse_study(values).loop.budget > 0


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_example_studies_are_valid(file: Path) -> None:
    assert len(read_study(file).seeds) >= 3


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference()
