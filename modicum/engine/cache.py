"""What trials share, made once: tokens, and features of the frozen backbone, remembered on disk by content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from modicum.base.files import atomic_write
from modicum.base.spec import digest
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.score import encode_all
from modicum.engine.tokens import Tokens, tokenize


class Corpus:
    """A data set as one backbone sees it. folder: where features are kept between processes, None for memory only."""

    def __init__(self, backbone: Backbone, dataset: Dataset, folder: Path | None = None) -> None:
        self.backbone, self.dataset, self.folder = backbone, dataset, folder
        self._tokens: Tokens | None = None
        self._features: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def tokens(self) -> Tokens:
        """Token ids, made at first use."""
        if self._tokens is None:
            self._tokens = tokenize(self.dataset, self.backbone.tokenizer, self.backbone.max_length)
        return self._tokens

    def features(self, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
        """(n, width) fp32 pooled representations of the untouched backbone, computed once per content."""
        if self._features is None:
            path = self.folder / f"features-{self._key()}.npy" if self.folder else None
            if path is not None and path.is_file():
                with suppress(ValueError, OSError, EOFError):  # a damaged cache is computed again
                    self._features = np.load(path, mmap_mode="r", allow_pickle=False)
            if self._features is None:
                self._features = encode_all(self.backbone, self.tokens, on_batch)
                if path is not None:
                    with atomic_write(path, "wb") as file:
                        np.save(file, self._features)
        return self._features

    def _key(self) -> str:
        b = self.backbone
        return digest(self.dataset.fingerprint, b.fingerprint, b.pooling, b.max_length, str(b.dtype))
