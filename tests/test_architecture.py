"""The house plan, enforced: who may import whom, who may name a plug-in, and how long things may get.

Imports are read from the source with ``ast``; those in functions and under ``TYPE_CHECKING`` count as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import modicum
from modicum.methods import METHODS
from modicum.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "base": 0,
    "data": 1,
    "analysis": 1,
    "methods": 2,
    "strategies": 2,
    "engine": 3,
    "loop": 3,
    "auto": 4,
    "study": 5,
}
FLOORS |= {"testing": 5, "report": 6, "export": 6, "api": 7, "annotate": 8, "cli": 9, "__main__": 10}
WINGS = {"methods": "west", "engine": "west", "strategies": "east", "loop": "east"}
HEAVY = {"torch", "transformers", "peft"}
MAY_BE_HEAVY = {"methods", "engine", "auto", "study", "export", "api", "testing"}
CORE = ("base", "data", "engine", "loop", "auto", "study")
NAMED_DEFAULTS = {("study/spec.py", "random"): "the warm start, when there is no model for another strategy to ask"}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:home|root|Users|tmp|opt|mnt)/\w|work\b)")
MAX_FILE, MAX_FUNCTION = 420, 65


def listed(*patterns: str) -> list[Path]:
    """Files of the checkout that git tracks, or would if they were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git checkout: {error}")
    return [ROOT / name for name in sorted(found.split("\0")) if name and (ROOT / name).is_file()]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "modicum").rglob("*.py"))}


def imported_names(module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a module imports; what it takes from ``modicum`` itself goes by its real home."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(MODULES[module])):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{source}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "modicum":
            names = [f"modicum.{node.attr}"]
        elif (
            isinstance(node, ast.Call)
            and node.args
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
        ):
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        for name in names:
            yield node.lineno, modicum._HOMES.get(name.removeprefix("modicum."), name)


def own_imports(module: str) -> set[tuple[int, str]]:
    """(line, module) of the package's modules that a module imports, without the package's front door."""
    found = set()
    for line, name in imported_names(module):
        while name.startswith("modicum.") and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add((line, name))
    return {(line, name) for line, name in found if name.startswith("modicum.") and name != module}


def floor(module: str) -> str:
    return (module.split(".") + [""])[1]


def may_import(importer: str, imported: str) -> bool:
    """Down, never up, never sideways or across to the other wing; the cellar is for plug-in authors alone."""
    if importer == imported or not importer:
        return True
    apart = {WINGS.get(importer), WINGS.get(imported)} == {"west", "east"}
    return FLOORS[imported] < FLOORS[importer] and imported != "testing" and not apart


def test_every_module_stands_on_a_floor() -> None:
    assert {floor(module) for module in MODULES} <= FLOORS.keys() | {""}


def test_imports_go_down() -> None:
    wrong = [
        f"{module}:{line} imports {target}"
        for module in MODULES
        for line, target in own_imports(module)
        if not may_import(floor(module), floor(target))
    ]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_import_cycle() -> None:
    # The front door loads what it names on first use, so its own imports close no circle.
    graph = {module: {target for _, target in own_imports(module)} for module in MODULES if module != "modicum"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_torch_stays_where_it_belongs() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if floor(module) not in MAY_BE_HEAVY
        for line, name in imported_names(module)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ["modicum", "modicum.cli.main"])
def test_starting_loads_nothing_slow(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert HEAVY.union(["sklearn", "matplotlib", "pandas"]).intersection(done.stdout.split()) == set()


def core_modules() -> list[str]:
    return [module for module in MODULES if floor(module) in CORE]


def test_no_core_file_names_a_plugin() -> None:
    names = {*METHODS.names(), *STRATEGIES.names()}
    found = {
        (MODULES[module].relative_to(ROOT / "modicum").as_posix(), node.value)
        for module in core_modules()
        for node in ast.walk(tree_of(MODULES[module]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    assert found == NAMED_DEFAULTS.keys()


def test_no_core_file_imports_a_plugin() -> None:
    doors = {f"modicum.{kind}{end}" for kind in ("methods", "strategies") for end in ("", ".base")}
    wrong = [
        f"{module}:{line} imports {target}"
        for module in core_modules()
        for line, target in own_imports(module)
        if floor(target) in ("methods", "strategies") and target not in doors
    ]
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in listed("*.py"):
        name, lines = path.relative_to(ROOT).as_posix(), len(path.read_text(encoding="utf-8").splitlines())
        long += [f"{name}: {lines} lines"] if lines > MAX_FILE else []
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                long += [f"{name}:{node.lineno} {node.name}: {length} lines"] if length > MAX_FUNCTION else []
    assert not long, "\n".join(long)


def test_every_module_has_a_docstring() -> None:
    bare = [path.relative_to(ROOT).as_posix() for path in listed("*.py") if not ast.get_docstring(tree_of(path))]
    assert not bare, "\n".join(bare)


def test_no_file_knows_a_machine() -> None:
    found = []
    for path in listed():
        content = path.read_bytes()
        if b"\0" not in content:
            text = content.decode("utf-8")
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert not found, "\n".join(found)


def test_the_rules_themselves() -> None:
    allowed = [
        ("cli", "api"),
        ("annotate", "api"),
        ("api", "study"),
        ("study", "loop"),
        ("testing", "engine"),
        ("report", "analysis"),
    ]
    refused = [("base", "data"), ("api", "annotate"), ("export", "api"), ("engine", "loop"), ("engine", "strategies")]
    refused += [
        ("loop", "methods"),
        ("analysis", "data"),
        ("data", "analysis"),
        ("cli", "testing"),
        ("testing", "study"),
    ]
    assert [pair for pair in allowed if not may_import(*pair)] == []
    assert [pair for pair in refused if may_import(*pair)] == []
    paths = [f"'/{folder}/x'" for folder in ("work", "home", "tmp")]
    assert all(map(MACHINE_PATH.search, paths))
    assert not any(map(MACHINE_PATH.search, ["https://site.org/home/page", "./tmp/file", "a/workable/plan"]))
