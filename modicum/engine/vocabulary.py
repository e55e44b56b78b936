"""The head that tells hidden tokens: the encoder's own where its files have one, otherwise a new one of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import BackboneError
from modicum.engine.backbone import Backbone
from modicum.methods.base import ParameterTree


class _Given(nn.Module):
    """Stands where the encoder was, and gives what it is told to."""

    states: Tensor

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.states)  # type: ignore[arg-type]


class VocabularyHead(nn.Module):
    """States of tokens to scores of the vocabulary. Its parameters have a runs axis of one, as an adapter's do; its
    output map is the encoder's table of embeddings, with what the adapter changed there.

    known: whether the encoder's files hold the head.
    """

    def __init__(self, backbone: Backbone, rng: np.random.Generator) -> None:
        super().__init__()
        model, missing = _language_model(backbone, int(rng.integers(2**62)))
        model.eval()
        setattr(model, model.base_model_prefix, _Given())
        output = model.get_output_embeddings()
        table = backbone.model.get_input_embeddings().weight  # type: ignore[operator]
        if output is None or output.weight.shape != table.shape:
            raise BackboneError(f"{backbone.name!r} has no masked-language head that can be tied: use simcse instead")
        self._table = next(name for name, p in backbone.model.named_parameters() if p is table)
        self._output = next(name for name, p in model.named_parameters() if p is output.weight)
        self.weight = ParameterTree(
            {name: p.detach().float()[None].clone() for name, p in model.named_parameters() if p is not output.weight}
        )
        self._names = [name for name, p in model.named_parameters() if p is not output.weight]
        self.known = not missing.intersection(self._names)
        self._apart = model.to(backbone.device), backbone  # in a tuple: neither is a part of this module

    def forward(self, states: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """(tokens, width) -> (tokens, vocabulary). learned: weights in place of the encoder's own, by name."""
        model, backbone = self._apart
        weights = {name: self.weight[name][0].to(states.dtype) for name in self._names}
        weights[self._output] = learned.get(self._table, backbone.model.get_input_embeddings().weight)  # type: ignore[operator]
        getattr(model, model.base_model_prefix).states = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        return torch.func.functional_call(model, weights, kwargs={"input_ids": ids}).logits[0]


def _language_model(backbone: Backbone, seed: int) -> tuple[Any, set[str]]:
    """The encoder's architecture with a masked-language head, and what its files do not hold, drawn from ``seed``."""
    from transformers import AutoModelForMaskedLM
    from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

    told = get_verbosity()
    set_verbosity_error()  # that the head is new is no news
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if backbone.folder is None:
                model = AutoModelForMaskedLM.from_config(backbone.config, dtype=torch.float32)
                return model, {name for name, _ in model.named_parameters()}
            model, found = AutoModelForMaskedLM.from_pretrained(
                backbone.folder,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            return model, set(found["missing_keys"])
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(
                f"{backbone.name!r} has no masked-language model in transformers: use simcse instead ({error})"
            ) from error
        finally:
            set_verbosity(told)
