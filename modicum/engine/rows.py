"""Which run, and which text, each token of a batch belongs to, as adapters see it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from modicum.engine.tiles import Batch
from modicum.methods.base import Rows


def rows_of(batch: Batch, runs: int, packed: bool, device: torch.device, dtype: torch.dtype) -> Rows:
    """The rows of a batch in the shape that rows of tiles or padded batches have."""
    run_of_text = torch.from_numpy(batch.run_of_text).to(device)
    if not packed:
        one_hot = nn.functional.one_hot(run_of_text, runs).to(dtype)[:, None] if runs > 1 else None
        mask = torch.from_numpy(batch.mask).to(device)
        return Rows(runs, one_hot, run_of_text, functools.partial(_mean_padded, mask), lambda gate: gate[:, None])
    run_of_place = torch.from_numpy(batch.run_of_place).to(device)
    return Rows(
        runs,
        nn.functional.one_hot(run_of_place, runs).to(dtype)[None] if runs > 1 else None,
        run_of_text,
        functools.partial(mean_of_texts, batch),
        functools.partial(_spread, torch.from_numpy(batch.text_of_place).to(device).clamp(min=0)),
    )


def mean_of_texts(batch: Batch, x: Tensor) -> Tensor:
    """(1, places, width) -> (texts, width) fp32."""
    places, text = (torch.from_numpy(index).to(x.device) for index in (batch.places, batch.text_of_token))
    total = x.new_zeros(len(batch.lengths), x.shape[-1], dtype=torch.float32).index_add(0, text, x[0, places].float())
    return total / torch.from_numpy(batch.lengths).to(x.device)[:, None]


def _spread(text: Tensor, gate: Tensor) -> Tensor:
    """(texts, width) -> (1, places, width); spare places have the first text's."""
    return gate[text][None]


def _mean_padded(mask: Tensor, x: Tensor) -> Tensor:
    return (x.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
