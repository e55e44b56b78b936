"""Floor 2, west: what is trained. One file a method."""

from modicum.base.registry import Registry

METHODS = Registry(
    "method",
    "modicum.methods",
    {
        "full": "modicum.methods.full:Full",
        "head": "modicum.methods.head:Head",
        "bitfit": "modicum.methods.bitfit:BitFit",
        "adapter": "modicum.methods.bottleneck:Houlsby",
        "pfeiffer": "modicum.methods.bottleneck:Pfeiffer",
        "lora": "modicum.methods.lora:LoRA",
        "prefix": "modicum.methods.prefix:Prefix",
        "ia3": "modicum.methods.ia3:IA3",
        "unipelt": "modicum.methods.unipelt:UniPELT",
        "soup": "modicum.methods.soup:Soup",
        "peft:": "modicum.methods.peft:PEFT",
    },
)
