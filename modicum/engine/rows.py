"""Which run, and which text, each token of a batch belongs to, as adapters see it."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from modicum.engine.tokens import Batch
from modicum.methods.base import Rows


def rows_of(batch: Batch, runs: int, packed: bool, device: torch.device, dtype: torch.dtype) -> Rows:
    """The rows of a batch in the shape that packed or padded batches have."""
    run_of_text = torch.from_numpy(batch.run_of_text).to(device)
    one_hot = nn.functional.one_hot(run_of_text, runs).to(dtype) if runs > 1 else None
    if not packed:
        mask = torch.from_numpy(np.arange(batch.lengths.max())[None] < batch.lengths[:, None]).to(device)
        return Rows(
            runs,
            one_hot if one_hot is None else one_hot[:, None],
            run_of_text,
            functools.partial(_mean_padded, mask),
            lambda gate: gate[:, None],
        )
    text = torch.from_numpy(batch.text_of_token).to(device)
    counts = torch.from_numpy(batch.lengths).to(device)
    return Rows(
        runs,
        one_hot if one_hot is None else _with_spare(one_hot[text], batch.spare),
        run_of_text,
        functools.partial(_mean_packed, text, counts),
        lambda gate: _with_spare(gate[text], batch.spare),
    )


def _with_spare(rows: Tensor, spare: int) -> Tensor:
    """(tokens, width) -> (1, tokens + spare, width), zeros at the spare tokens."""
    return torch.cat([rows, rows.new_zeros(spare, rows.shape[1])])[None]


def _mean_packed(text: Tensor, counts: Tensor, x: Tensor) -> Tensor:
    total = torch.zeros(len(counts), x.shape[-1], device=x.device).index_add(0, text, x[0, : len(text)].float())
    return total / counts[:, None]


def _mean_padded(mask: Tensor, x: Tensor) -> Tensor:
    return (x.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
