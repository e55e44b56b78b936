"""Turns verified files into an encoder, and reads off its architecture what packed rows need to know."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from torch import nn

from modicum.base.errors import BackboneError
from modicum.engine.weights import Resolved


def load_model(found: Resolved, dtype: torch.dtype, *, keep_pooler: bool) -> nn.Module:
    """The encoder in these files, without its pooler unless that is to be kept.

    Raises:
        BackboneError: it is no encoder, its file is incomplete, or there is no pretrained pooler to keep.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a small file is read in a blink, and the bar lands in the middle of ours
    try:
        model, info = AutoModel.from_pretrained(
            found.folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"backbone {found.name!r} cannot be loaded as an encoder: {error}") from error
    config = model.config
    encodes = type(config) in MODEL_FOR_MASKED_LM_MAPPING and hasattr(config, "num_attention_heads")
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False) or not encodes:
        raise BackboneError(
            f"backbone {found.name!r} is a {model.config.model_type}; an encoder such as BERT is needed"
        )
    pooler = getattr(model, "pooler", None)
    random = [key for key in info["missing_keys"] if "pooler" in key]
    if keep_pooler and (pooler is None or random):
        raise BackboneError(f"backbone {found.name!r} has no pretrained pooler: use pooling 'mean' or 'first'")
    lost = [key for key in info["missing_keys"] if "pooler" not in key]
    if lost:
        raise BackboneError(
            f"backbone {found.name!r} lacks the weights of {', '.join(lost[:5])}: its file is incomplete"
        )
    if pooler is not None and not keep_pooler:
        model.pooler = None
    return model


def first_position(model: nn.Module) -> int:
    """RoBERTa and its kin count positions from the padding index + 1, the others from 0."""
    embeddings = getattr(model, "embeddings", None)
    kin = hasattr(embeddings, "create_position_ids_from_input_ids")
    return int(embeddings.padding_idx) + 1 if kin else 0  # type: ignore[union-attr, arg-type]


def position_table(model: nn.Module) -> int | None:
    """How many positions a model can tell apart by a table; None where it computes them."""
    tables = [m for n, m in model.named_modules() if n.endswith("position_embeddings") and isinstance(m, nn.Embedding)]
    return tables[0].num_embeddings if tables else None
