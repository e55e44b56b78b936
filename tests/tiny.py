"""Random encoders of two layers, saved as their users save them, texts for them, and what others make of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PrefixTuningConfig, get_peft_model
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
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Output, Weights
from modicum.engine.tiles import pack
from modicum.engine.tokens import tokenize
from modicum.methods.base import Method
from modicum.methods.ia3 import IA3
from modicum.methods.lora import LoRA
from modicum.methods.prefix import Prefix
from modicum.testing.backbone import SPECIALS, WORDS

VOCABULARY = len(SPECIALS) + len(WORDS)
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
    """Toy words between [CLS] and [SEP]; pads have id ``pad``, 0 or 1."""
    specials = list(SPECIALS)
    specials.insert(pad, specials.pop(0))
    names = (*specials, *WORDS)
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
        mask_token="[MASK]",
    )  # fmt: skip


def sentences(lengths: Sequence[int], seed: int = 0) -> list[str]:
    """Random texts of so many words each."""
    rng = stream(seed, "sentences")
    return [" ".join(rng.choice(WORDS, n)) for n in lengths]


def peft_twin(folder: str | Path, backbone: Backbone, weights: Weights) -> torch.nn.Module:
    """A run as Hugging Face PEFT has it, around the plain fp32 encoder, with its tensors copied in by their names."""
    with torch.random.fork_rng(devices=[]):
        plain = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        method, learned = weights.method, weights.adapter
        if isinstance(method, LoRA):
            names = [name.removeprefix("down.").replace("/", ".") for name in learned if name.startswith("down.")]
            config: PeftConfig = LoraConfig(r=method.rank, lora_alpha=method.alpha, target_modules=names)
        elif isinstance(method, IA3):
            names = [name.removeprefix("scale.").replace("/", ".") for name in learned]
            second = [site.name for site in backbone.sites if site.role == "ffn_out"]
            config = IA3Config(target_modules=names, feedforward_modules=second)
        else:
            config = PrefixTuningConfig(num_virtual_tokens=method.length, task_type="FEATURE_EXTRACTION")
        model = get_peft_model(plain, config).eval()
    found = dict(model.named_parameters())
    with torch.no_grad():
        if isinstance(method, Prefix):
            found["prompt_encoder.default.embedding.weight"].copy_(learned["prefix"])
            return model
        for name, tensor in learned.items():
            part, _, site = name.partition(".")
            end = {"down": "lora_A.default.weight", "up": "lora_B.default.weight", "scale": "ia3_l.default"}[part]
            into = found[f"base_model.model.{site.replace('/', '.')}.{end}"]
            into.copy_(tensor.view_as(into))
    return model


def random_weights(backbone: Backbone, method: Method, outputs: int = 3, scale: float = 0.3) -> Weights:
    """A run whose every tensor is random and large, so that each of them moves the outputs."""
    bank = Bank.fresh(backbone, method, outputs, [(0, 0)])
    rng = stream(0, "random-weights")
    with torch.no_grad():
        for p in bank.parameters():
            p.copy_(p + torch.from_numpy(rng.normal(scale=scale, size=p.shape).astype(np.float32)))
    return bank.unstack()[0]


def reference(
    model: torch.nn.Module, backbone: Backbone, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> dict[str, torch.Tensor]:
    """What a plain model makes of padded texts: (texts, width) by pooling, as far as it has a pooler."""
    inputs = backbone.tokenizer(
        list(texts), pairs and list(pairs), padding=True, truncation=True, max_length=backbone.max_length,
        return_tensors="pt", return_token_type_ids=backbone.segmented,
    )  # fmt: skip
    with torch.no_grad():
        out = model(**inputs)
    hidden, mask = out.last_hidden_state, inputs["attention_mask"][..., None]
    pooled = {"first": hidden[:, 0], "mean": (hidden * mask).sum(1) / mask.sum(1)}
    return pooled | ({"pooler": out.pooler_output} if "pooler_output" in out else {})


def pooled_by(bank: Bank, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Output:
    """Modicum's pooled representations and logits, in the order of the texts."""
    backbone = bank.backbone
    data = Dataset.from_lists(list(texts), pairs=pairs and list(pairs), for_training=False)
    tokens = tokenize(data, backbone.tokenizer, backbone.max_length)
    everything = np.arange(len(texts))
    batch = pack(tokens, everything, np.zeros(len(texts), np.int64), first_position=backbone.first_position)
    back = torch.from_numpy(np.argsort(batch.order))
    with torch.inference_mode():
        out = bank(batch)
    return Output(out.pooled[back], out.logits[back])
