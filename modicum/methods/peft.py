"""The bridge to every tuner of Hugging Face PEFT that works inside an encoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import SpecError, UnknownName
from modicum.methods.base import Adapter, Host, Method, ParameterTree, Site

ROLES = ("query", "key", "value", "qkv", "attention_output", "ffn_in", "ffn_out")
UNSUITED = {
    "adaption_prompt": "it is made for decoders",
    "cpt": "it is made for decoders",
    "multitask_prompt_tuning": "it needs task ids",
    "poly": "it needs task ids",
    "shadow": "it runs a second encoder of its own",
    "trainable_tokens": "it trains word embeddings alone",
    "xlora": "it mixes LoRA adapters that were trained before",
}


class PEFTAdapter(Adapter):
    """A PEFT model around a copy of the encoder (frozen weights shared); its trained tensors are held here."""

    def __init__(self, model: nn.Module, takes_packed: bool) -> None:
        super().__init__(runs=1)
        self.takes_packed = takes_packed
        self.__dict__["model"] = model  # not registered: its frozen weights are not this adapter's to train
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        own = dict(model.named_parameters())
        self._dtypes = {name: own[name].dtype for name in self._names}
        self.tuner = ParameterTree({name: own[name].detach().float()[None].clone() for name in self._names})
        model.requires_grad_(False)

    @property
    def sites(self) -> frozenset[str]:
        return frozenset()

    def weights(self, dtype: torch.dtype) -> Mapping[str, Tensor]:
        return {name: self.tuner[name].squeeze(0).to(self._dtypes[name]) for name in self._names}

    def encoder(self) -> nn.Module:
        return self.__dict__["model"]


class PEFT(Method):
    """Trains any tuner of Hugging Face PEFT, ``peft:loha`` say, and the head; runs cannot be stacked.

    Fields of the tuner's own configuration are settings too (``{name = "peft:loha", r = 4}``); by default it stands on
    all linear maps of the blocks.
    """

    stackable: ClassVar[bool] = False
    identity_at_init: ClassVar[bool] = False
    learning_rate: float = 1e-3
    tuner: str
    options: dict[str, Any] = {}

    @classmethod
    def family_member(cls, member: str, **options: Any) -> Self:
        """``peft:<member>``: options that are not Modicum's own go to the tuner's configuration."""
        from peft import PeftType

        valid = [t.value.lower() for t in PeftType]
        if member.lower() not in valid:
            raise UnknownName("PEFT tuner", member, (name for name in valid if name not in UNSUITED))
        if member.lower() in UNSUITED:
            raise SpecError(f"peft:{member.lower()} does not work on a text classifier: {UNSUITED[member.lower()]}")
        own = {key: options.pop(key) for key in ("learning_rate", "head_learning_rate") if key in options}
        return cls(tuner=member.lower(), options=options, **own)

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        raise SpecError("a PEFT tuner needs the backbone's modules: call build_on, not build")

    def build_on(self, host: Host, rngs: Sequence[np.random.Generator]) -> Adapter:
        from peft import PeftModel, get_peft_model

        if len(rngs) != 1:
            raise SpecError(f"PEFT tuners cannot stack runs: they need exactly 1 run, got {len(rngs)}")
        config = self.config(host.sites)
        twin = host.plain_copy()
        if config.is_prompt_learning:
            twin.set_attn_implementation("eager")
        frozen = {name: (p, p.data) for name, p in host.model.named_parameters()}
        devices = [twin.device] if twin.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # PEFT draws from the global generator: give it a stream, then restore
            torch.manual_seed(int(rngs[0].integers(2**62)))
            try:
                model: PeftModel = get_peft_model(twin, config)
                _try_out(model.eval())
            except Exception as error:  # tuners refuse encoders in many ways; each means the same to the user
                raise SpecError(f"peft:{self.tuner} cannot be built on this encoder: {error}") from error
        moved = [name for name, (p, data) in frozen.items() if p.data_ptr() != data.data_ptr()]
        for name in moved:
            frozen[name][0].data = frozen[name][1]
        if moved:
            raise SpecError(
                f"peft:{self.tuner} with these settings rewrites the frozen {moved[0]}: choose another start"
            )
        host.drop_in(model)
        return PEFTAdapter(model, takes_packed=not config.is_prompt_learning)

    def config(self, sites: Sequence[Site]) -> Any:
        """The tuner's configuration with these options.

        Raises:
            SpecError: an option does not exist or does not fit.
        """
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        cls = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType(self.tuner.upper()))
        if cls is None:
            raise SpecError(f"peft:{self.tuner} is not a tuner that the installed PEFT can configure")
        valid = {field.name for field in dataclasses.fields(cls)}
        for name in self.options:
            if name not in valid:
                raise UnknownName(f"setting of peft:{self.tuner}", name, valid)
        linear = [site for site in sites if site.role in ROLES]
        targets = [site for site in sites if site.role == "norm"] if self.tuner == "ln_tuning" else linear
        piece = math.gcd(*(width for site in linear for width in (site.inputs, site.outputs)))
        given = {
            "task_type": "FEATURE_EXTRACTION",
            "target_modules": [site.name for site in targets],
            "feedforward_modules": [site.name for site in linear if site.role == "ffn_out"],
            "num_virtual_tokens": 10,
            "total_step": 10_000,  # AdaLoRA insists on a schedule, which is not driven here: rank stays at its start
            "vector_length": math.gcd(piece, 64),
            "block_size": math.gcd(piece, 64),
        }
        try:
            return cls(**{**{k: v for k, v in given.items() if k in valid}, **self.options})
        except (TypeError, ValueError) as error:
            raise SpecError(f"peft:{self.tuner} does not take these settings: {error}") from error


def _try_out(model: nn.Module) -> None:
    """One small forward pass, so that what cannot work says so before training."""
    implementation = model.config._attn_implementation
    model.base_model.set_attn_implementation("eager")
    with torch.inference_mode():
        ids = torch.tensor([[5, 6, 7]], device=next(model.parameters()).device)
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    model.base_model.set_attn_implementation(implementation)
