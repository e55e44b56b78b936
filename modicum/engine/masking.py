"""Which tokens masked language modelling hides, and what stands in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.base.errors import BackboneError

MASKED, RANDOM = 0.8, 0.1
"""Of the chosen tokens, the share that becomes the mask and the share that becomes a random token; the rest stay."""


@dataclass(frozen=True)
class Masking:
    """A tokenizer as masking sees it.

    special: (vocabulary,) bool, tokens that are never chosen. continues: (vocabulary,) bool, tokens that go on with the
    word before them. mask: the mask's id. rate: the share of tokens, or of words, that is chosen.
    """

    special: np.ndarray
    continues: np.ndarray
    mask: int
    rate: float
    whole_words: bool

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int, *, rate: float, whole_words: bool) -> Masking:
        """For a tokenizer with so many embeddings.

        Raises:
            BackboneError: the tokenizer has no mask, or does not mark where words begin and whole words are asked for.
        """
        if tokenizer.mask_token_id is None:
            raise BackboneError("hiding tokens needs a tokenizer with a mask token: use simcse with cutoff = 0 instead")
        special, continues = np.zeros(vocabulary, bool), np.zeros(vocabulary, bool)
        special[[i for i in tokenizer.all_special_ids if i < vocabulary]] = True
        tokens = {token: i for token, i in tokenizer.get_vocab().items() if i < vocabulary}
        inside = [i for token, i in tokens.items() if token.startswith("##")]
        begins = {i for token, i in tokens.items() if token.startswith(("Ġ", "▁"))}
        if len(inside) > len(begins):  # a byte-level vocabulary may hold ## as a token of its own
            continues[inside] = True
        elif begins:
            continues[[i for i in tokens.values() if i not in begins]] = True
        elif whole_words:
            raise BackboneError("this tokenizer does not mark where words begin: leave whole_words out")
        return cls(special, continues & ~special, int(tokenizer.mask_token_id), rate, whole_words)

    def hide(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(n,) ids of texts one after the other -> what stands in their place, and which are to be told, both (n,)."""
        chosen = self.choose(ids, rng)
        fate, drawn = rng.random(len(ids)), rng.choice(np.flatnonzero(~self.special), len(ids))
        hidden = np.where(chosen & (fate < MASKED), self.mask, ids)
        return np.where(chosen & (fate >= MASKED) & (fate < MASKED + RANDOM), drawn, hidden), chosen

    def choose(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) bool, the tokens that the rate hits."""
        special = self.special[ids]
        if self.whole_words:
            fresh = ~self.continues[ids] | special | np.concatenate([[True], special[:-1]])
            word = np.cumsum(fresh) - 1
            return np.asarray((rng.random(int(fresh.sum())) < self.rate)[word] & ~special)
        return np.asarray((rng.random(len(ids)) < self.rate) & ~special)
