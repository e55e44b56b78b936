"""Checkpoints that load without Modicum: PEFT's own format, and plain merged models.

A class logit is a linear map of the pooled tokens. Mean and first-token pooling commute with that map, so the
checkpoint is a token classifier whose logits are averaged over (or taken at the first of) a text's tokens; with the
model's own pooler it is a sequence classifier. PEFT and transformers load both without any code of ours.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from modicum.base.errors import SpecError
from modicum.base.files import atomic_write
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Weights
from modicum.engine.weights import MINILM_HUB

HEAD = ("classifier.weight", "classifier.bias")
SNIPPET = {
    "mean": (
        "logits = (out.logits * batch['attention_mask'][..., None]).sum(1)"
        " / batch['attention_mask'].sum(1, keepdim=True)"
    ),
    "first": "logits = out.logits[:, 0]",
    "pooler": "logits = out.logits",
}
"""How a text's class logits come from the loaded model's output ``out`` on a tokenised ``batch``."""


def task_type(backbone: Backbone) -> str:
    """PEFT's name of the task that a checkpoint on this backbone is."""
    return "SEQ_CLS" if backbone.pooling == "pooler" else "TOKEN_CLS"


def write_peft(folder: Path, backbone: Backbone, weights: Weights, classes: tuple[str, ...]) -> bool:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a checkpoint's folder.

    False, and nothing written, where PEFT has no such method or transformers no such classifier.
    """
    parts = weights.method.to_peft(weights.method.within(backbone.sites), weights.adapter)
    if parts is None or weights.prototypes > 1 or beyond_linear(backbone):
        return False
    from peft import get_peft_config

    config = get_peft_config({**parts.config, "task_type": task_type(backbone), "inference_mode": True})
    prompt = config.is_prompt_learning
    if prompt and "past_key_values" not in inspect.signature(type(backbone.model).forward).parameters:
        return False  # the architecture takes no keys and values from PEFT
    config.base_model_name_or_path = public_name(backbone)
    config.save_pretrained(str(folder))
    encoder = "" if prompt else f"base_model.model.{backbone.model.base_model_prefix}."
    tensors = {f"{encoder}{name}": t for name, t in parts.tensors.items()}
    head = "base_model.classifier" if prompt else "base_model.model.classifier"
    tensors |= {f"{head}.weight": weights.head["weight"], f"{head}.bias": weights.head["bias"]}
    with atomic_write(folder / "adapter_model.safetensors", "wb") as file:
        file.write(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))
    return True


def public_name(backbone: Backbone) -> str:
    """The backbone's name as others know it."""
    return MINILM_HUB if backbone.name == "minilm" else backbone.name


def write_merged(folder: Path, backbone: Backbone, weights: Weights, classes: tuple[str, ...]) -> str:
    """Write a plain transformers model with the run's change merged into its weights; returns how to read its logits.

    Raises:
        SpecError: the method's change cannot be written as weights.
    """
    if weights.prototypes > 1:
        raise SpecError(
            "a head with several prototypes a class is no linear map, so this model cannot be exported as a plain one: "
            "use the checkpoint itself"
        )
    twin = backbone.plain_copy()
    state = {name: t.detach().float().cpu().clone() for name, t in twin.state_dict().items()}
    if not weights.method.merge(
        weights.method.within(backbone.sites), {n: t.cpu() for n, t in weights.adapter.items()}, state
    ):
        name = type(weights.method).__name__
        raise SpecError(
            f"what {name} learned cannot be merged into the weights: use the checkpoint itself, or train a method "
            "that changes weights or biases"
        )
    if extra := beyond_linear(backbone):
        raise SpecError(
            f"transformers puts more than a linear map on a {backbone.config.model_type} encoder "
            f"({', '.join(extra[:3])}), so this model cannot be exported as a plain one: use the checkpoint itself"
        )
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    config.num_labels = weights.outputs
    if classes:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: i for i, name in enumerate(classes)}
    config.dtype = torch.float32
    model = _auto(backbone).from_config(config, attn_implementation="eager")
    named = {f"{backbone.model.base_model_prefix}.{name}": t for name, t in state.items()}
    named |= {f"classifier.{part}": weights.head[part].cpu() for part in ("weight", "bias")}
    model.load_state_dict(named)
    model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return SNIPPET[backbone.pooling]


def beyond_linear(backbone: Backbone) -> list[str]:
    """What transformers' classifier for this architecture has besides encoder and one linear map; empty is right."""
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    with torch.device("meta"):
        model = _auto(backbone).from_config(config, attn_implementation="eager")
    encoder = f"{backbone.model.base_model_prefix}."
    return [n for n, _ in model.named_parameters() if not n.startswith(encoder) and n not in HEAD]


def _auto(backbone: Backbone) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    return AutoModelForSequenceClassification if backbone.pooling == "pooler" else AutoModelForTokenClassification
