"""A real backbone of a few thousand random weights, and toy data that it can learn: no download, no GPU."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "zo")
WORDS = tuple(first + second for first, second in product(SYLLABLES, repeat=2))
"""All 196 words that the fake tokenizer knows: ``baba``, ``bade``, ... ``zozo``."""
OWN = 8
"""Words that are a class's own in toy data; those of class c begin at ``WORDS[c * OWN]``."""
MOST_CLASSES = 8


def fake_backbone(
    *, layers: int = 2, width: int = 16, heads: int = 2, pooling: Literal["mean", "first"] = "mean", seed: int = 0
) -> Backbone:
    """A BERT with random fp32 weights and a tokenizer of ``WORDS``, ready for an engine or a study.

    The same arguments give the same weights and fingerprint; the global random state stays as it is. Embeddings are
    spread out, so that texts of different words have different representations.
    """
    config = BertConfig(
        vocab_size=len(SPECIALS) + len(WORDS),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=66,
    )
    with torch.random.fork_rng(devices=[]):
        model = BertModel(config, add_pooling_layer=False)
    _draw(model, torch.Generator().manual_seed(seed))
    return Backbone(
        model,
        fake_tokenizer(),
        name="fake",
        fingerprint=_fingerprint(model),
        pooling=pooling,
        max_length=config.max_position_embeddings - 2,
    )


def fake_tokenizer() -> PreTrainedTokenizerFast:
    """Words between spaces to ids, framed as BERT's: ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``."""
    names = {name: i for i, name in enumerate((*SPECIALS, *WORDS))}
    tokenizer = Tokenizer(WordLevel(names, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, names[name]) for name in ("[CLS]", "[SEP]")],
    )
    roles = {f"{name.strip('[]').lower()}_token": name for name in SPECIALS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def toy_dataset(n: int = 120, classes: int = 3, seed: int = 0, length: int = 8) -> Dataset:
    """n texts of about ``length`` words, two thirds of which tell the label; classes come in turn.

    classes: from 2 to 8; or 0 for regression, where the value is the share of class 0's words.

    Raises:
        SpecError: another number of classes.
    """
    if classes not in (0, *range(2, MOST_CLASSES + 1)):
        raise SpecError(f"toy data has 2 to {MOST_CLASSES} classes, or 0 for regression, got {classes}")
    rng = stream(seed, "toy-dataset", n, classes)
    texts, labels = [], list[str | float]()
    for i in range(n):
        size = int(rng.integers(length // 2, length * 3 // 2 + 1))
        telling = rng.random(size) < (rng.random() if classes == 0 else 2 / 3)
        telling[0] |= classes > 0
        owner = i % max(1, classes)
        own = rng.integers(owner * OWN, (owner + 1) * OWN, size)
        other = rng.integers(MOST_CLASSES * OWN, len(WORDS), size)
        texts.append(" ".join(WORDS[w] for w in np.where(telling, own, other)))
        labels.append(f"class-{owner}" if classes else float(telling.mean()))
    task: Literal["classification", "regression"] = "classification" if classes else "regression"
    return Dataset.from_lists(texts, labels, task=task, name="toy")


def _draw(model: nn.Module, generator: torch.Generator) -> None:
    """Maps keep the size of what passes through them; norms and biases are a little off 1 and 0, so that they show."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(0.1 * noise + float(name.endswith("LayerNorm.weight")))
            elif "embeddings" in name:
                p.copy_(noise if "word" in name else 0.1 * noise)
            else:
                p.copy_(noise / p.shape[1] ** 0.5)


def _fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
