"""Environments: Modicum's own, and one for each peer, made at first use from ``benchmarks/peers/NAME.txt``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
OWN = "modicum"
LISTING = """
import importlib.metadata as m, json, platform
found = {d.metadata["Name"]: d.version for d in m.distributions()}
print(json.dumps({"python": platform.python_version()} | dict(sorted(found.items(), key=lambda item: item[0].lower()))))
"""


class EnvironmentFailed(Exception):
    """A peer's environment cannot be made here."""


def python_of(name: str) -> Path:
    """The interpreter of an environment that is ready to use.

    Raises:
        EnvironmentFailed: it is not there and cannot be made.
    """
    if name == OWN:
        return Path(sys.executable)
    python = PEERS / name / "bin" / "python"
    wanted = requirements(name)
    PEERS.mkdir(exist_ok=True)
    with FileLock(PEERS / f"{name}.lock"):
        if not python.is_file() or missing(wanted, versions(python)):
            make(name, python, wanted)
    return python


def requirements(name: str) -> dict[str, str]:
    """Exact versions by package, in the file's order."""
    lines = (ROOT / "benchmarks" / "peers" / f"{name}.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


def versions(python: Path) -> dict[str, str]:
    """Versions of Python and of all packages in an environment."""
    done = subprocess.run([python, "-c", LISTING], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def missing(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """The requirements that an environment does not meet; a build's own suffix (``+cpu``) does not count."""
    plain = {name.lower().replace("_", "-"): version.partition("+")[0] for name, version in found.items()}
    return [f"{name}=={version}" for name, version in wanted.items() if plain.get(name) != version]


def make(name: str, python: Path, wanted: dict[str, str]) -> None:
    """Make a peer's environment; torch goes first and alone, so that nothing else chooses its build."""
    print(f"Making the environment of {name} in .peers/{name}: a few minutes, once.", file=sys.stderr, flush=True)
    pins = [f"{package}=={version}" for package, version in wanted.items()]
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", PEERS / name], [*pip, pins[0]], [*pip, *pins]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise EnvironmentFailed(f"the environment of {name} could not be made: {said}")
    if wrong := missing(wanted, versions(python)):
        raise EnvironmentFailed(
            f"the environment of {name} lacks {', '.join(wrong)}: remove .peers/{name} and try again"
        )
