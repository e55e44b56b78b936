"""What trials share, made once and kept on disk by content: tokens, and what the frozen backbone makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import normalize
from torch import Tensor

from modicum.base.files import atomic_write
from modicum.base.spec import digest
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.score import encode_all, walk_all
from modicum.engine.tiles import Batch
from modicum.engine.tokens import Tokens, tokenize

ROOM = 2**29
"""Numbers that are kept in memory for a data set: 1 GB in bf16."""


class Plan(NamedTuple):
    """An array to be made: its shape and type, and what fills it, which may exceed memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    write: Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Lower:
    """What the layers below one make of every token. states: (tokens, width), bf16 as its bits (uint16) or fp32."""

    states: np.ndarray
    device: torch.device

    def of(self, batch: Batch) -> Tensor:
        """(1, places, width), zeros at spare places."""
        row = np.zeros((batch.ids.shape[1], self.states.shape[1]), self.states.dtype)
        row[batch.places] = self.states[batch.source]
        found = torch.from_numpy(row)[None].to(self.device)
        return found.view(torch.bfloat16) if row.dtype == np.uint16 else found


@dataclass(frozen=True)
class Walk:
    """As ``Lower``, made anew for each batch, where keeping it would take too much memory."""

    backbone: Backbone
    layer: int

    def of(self, batch: Batch) -> Tensor:
        """(1, places, width), anything at spare places."""
        with torch.no_grad():
            return self.backbone.walk_to(self.layer, batch)


class Corpus:
    """A data set as one backbone sees it. folder: where arrays are kept between processes, None for memory only."""

    def __init__(self, backbone: Backbone, dataset: Dataset, folder: Path | None = None) -> None:
        self.backbone, self.dataset, self.folder = backbone, dataset, folder
        self._tokens: Tokens | None = None
        self._known: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def tokens(self) -> Tokens:
        """Token ids, made at first use."""
        if self._tokens is None:
            made: list[Tokens] = []

            def part(name: str) -> Plan:
                if not made:
                    made.append(tokenize(self.dataset, self.backbone.tokenizer, self.backbone.max_length))
                array = getattr(made[0], name)
                array = np.zeros(0, np.int8) if array is None else array  # types of single texts
                return Plan(array.shape, array.dtype, lambda out: np.copyto(out, array))

            ids, types, starts = (self._kept(f"tokens-{n}", lambda n=n: part(n)) for n in ("ids", "types", "starts"))
            self._tokens = Tokens(ids, types if len(types) else None, starts)
        return self._tokens

    def features(self, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
        """(n, width) fp32 pooled representations of the untouched backbone, computed once per content."""

        def plan() -> Plan:
            shape = len(self), self.backbone.width
            return Plan(shape, np.dtype(np.float32), lambda out: encode_all(self.backbone, self.tokens, on_batch, out))

        return self._kept("features", plan, self.backbone.pooling)

    def name_similarity(self, positions: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(n, names) cosines of the untouched backbone's representations of the texts at these rows and of names."""
        words = Dataset.from_lists(list(names), name="class names", for_training=False)
        of_names = normalize(Corpus(self.backbone, words).features())
        return np.asarray(normalize(self.features()[positions]) @ of_names.T)

    def lower(self, layer: int, on_batch: Callable[[int], None] | None = None) -> Lower | Walk:
        """What the layers below this one of the untouched backbone make of every token: computed once per content, or
        batch by batch where it can be kept neither on disk nor, being too much, in memory."""
        if self.folder is None and len(self.tokens.ids) * self.backbone.width > ROOM:
            return Walk(self.backbone, layer)

        def plan() -> Plan:
            kind = np.dtype(np.uint16 if self.backbone.dtype == torch.bfloat16 else np.float32)
            shape = len(self.tokens.ids), self.backbone.width
            return Plan(shape, kind, lambda out: walk_all(self.backbone, self.tokens, layer, on_batch, out))

        return Lower(self._kept(f"layer-{layer}", plan), self.backbone.device)

    def _kept(self, name: str, plan: Callable[[], Plan], *more: str) -> np.ndarray:
        """An array by its name and the content that decides it: memory-mapped from the folder, or made."""
        if name not in self._known:
            path = self.path(name, "npy", *more)
            found = None
            if path is not None and path.is_file():
                with suppress(ValueError, OSError, EOFError):  # a damaged cache is made again
                    found = np.load(path, mmap_mode="r", allow_pickle=False)
            self._known[name] = _made(plan(), path) if found is None else found
        return self._known[name]

    def path(self, name: str, suffix: str, *more: str) -> Path | None:
        """Where the folder keeps what this name, the content and ``more`` decide; None without a folder."""
        return self.folder / f"{name}-{self._key(*more)}.{suffix}" if self.folder else None

    def _key(self, *more: str) -> str:
        b = self.backbone
        return digest(
            self.dataset.fingerprint, b.fingerprint, b.tokenizer_fingerprint, b.max_length, str(b.dtype), *more
        )


def _made(plan: Plan, path: Path | None) -> np.ndarray:
    """The array in memory, or written through a memory map to a file that appears when complete."""
    if path is None:
        array = np.empty(plan.shape, plan.dtype)
        plan.write(array)
        return array
    with atomic_write(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(plan.dtype), "fortran_order": False, "shape": plan.shape}
        np.lib.format.write_array_header_2_0(file, header)
        file.flush()
        if size := int(np.prod(plan.shape)):
            start = file.tell()
            file.truncate(start + size * plan.dtype.itemsize)
            mapped = np.memmap(file.name, plan.dtype, "r+", start, plan.shape)
            plan.write(mapped)
            mapped.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)
