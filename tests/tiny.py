"""Random encoders of two layers, saved as their users save them, and texts for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from modicum.base.rng import stream
from modicum.base.training import FitJob
from modicum.data.dataset import Dataset

WORDS = 90
VOCABULARY = WORDS + 5
SIZE: dict[str, Any] = dict(
    vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
ROOM: dict[str, Any] = dict(SIZE, max_position_embeddings=72)
RELATIVE: dict[str, Any] = dict(
    ROOM, relative_attention=True, max_relative_positions=16, position_biased_input=False, type_vocab_size=0
)
CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**ROOM),
    "roberta": lambda: RobertaConfig(**ROOM, pad_token_id=1, type_vocab_size=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**ROOM, pad_token_id=1, type_vocab_size=1),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=72
    ),
    "electra": lambda: ElectraConfig(**ROOM, embedding_size=8),
    "modernbert": lambda: ModernBertConfig(
        **ROOM, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0, attention_dropout=0.1,
        embedding_dropout=0.1, mlp_dropout=0.1, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    ),
    "albert": lambda: AlbertConfig(**ROOM, embedding_size=8, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1),
    "mpnet": lambda: MPNetConfig(**ROOM, pad_token_id=1),
    "deberta": lambda: DebertaConfig(**RELATIVE, pos_att_type=["c2p", "p2c"]),
    "deberta-v2": lambda: DebertaV2Config(
        **RELATIVE, pos_att_type=["p2c", "c2p"], conv_kernel_size=3, conv_act="gelu"
    ),
    "deberta-v3": lambda: DebertaV2Config(
        **RELATIVE, pos_att_type=["p2c", "c2p"], share_att_key=True, position_buckets=8, norm_rel_ebd="layer_norm"
    ),
}  # fmt: skip


def save_tiny(architecture: str, folder: Path) -> Path:
    """A random model of this architecture with its tokenizer, as ``save_pretrained`` leaves them."""
    config = CONFIGS[architecture]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
    rng = stream(0, "tiny", architecture)
    with torch.no_grad():  # spread out, so that a difference anywhere shows
        for name, p in model.named_parameters():
            base = 1.0 if p.dim() == 1 and "norm" in name.lower() and name.endswith("weight") else 0.0
            p.copy_(base + torch.from_numpy(rng.normal(scale=0.3, size=p.shape).astype(np.float32)))
    model.save_pretrained(folder)
    tokenizer(pad=config.pad_token_id, pairs=getattr(config, "type_vocab_size", 0) > 1).save_pretrained(folder)
    return folder


def tokenizer(pad: int = 0, *, pairs: bool = True) -> PreTrainedTokenizerFast:
    """``w0 w1 …`` to ids from 5, between [CLS] (2) and [SEP] (3); pads have id ``pad``, 0 or 1."""
    specials = ["[PAD]", "[UNK]"] if pad == 0 else ["[UNK]", "[PAD]"]
    names = [*specials, "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(WORDS))]
    core = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    second = 1 if pairs else 0
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
    )  # fmt: skip


def sentences(lengths: Sequence[int], seed: int = 0) -> list[str]:
    """Random texts of so many words each."""
    rng = stream(seed, "sentences")
    return [" ".join(f"w{i}" for i in rng.integers(0, WORDS, n)) for n in lengths]


def toy_dataset(n: int = 40, *, classes: int = 3, longest: int = 14, pairs: bool = False, seed: int = 0) -> Dataset:
    """Texts of 1 to ``longest`` words whose class can be told from their words: class c likes the words of c."""
    rng = stream(seed, "toy", n, classes)
    labels = np.arange(n) % classes
    block = WORDS // classes
    texts = []
    for label in labels:
        own, any_ = rng.integers(label * block, (label + 1) * block, longest), rng.integers(0, WORDS, longest)
        words = np.where(rng.random(longest) < 0.7, own, any_)[: rng.integers(1, longest + 1)]
        texts.append(" ".join(f"w{i}" for i in words))
    return Dataset.from_lists(texts, labels.tolist(), pairs=texts[::-1] if pairs else None)


def job(dataset: Dataset, n: int, *, seed: int = 0, round_: int = 0, first: int = 0) -> FitJob:
    """Train on the n examples from ``first`` on, with their own labels."""
    where = np.arange(first, first + n)
    ids = tuple(dataset.ids.id_of(int(i)) for i in where)
    return FitJob(ids, dataset.labels[where], seed, round_)
