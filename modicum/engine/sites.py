"""Names the places in an unmodified Hugging Face encoder where adapters may stand."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from modicum.methods.base import Role, Site

ROLES: tuple[tuple[str, Role], ...] = (
    # end of the module's name, its role: BERT, RoBERTa, ELECTRA, ALBERT / DistilBERT / MPNet / DeBERTa / ModernBERT
    (r"self\.(query|query_proj)|attention\.(query|q_lin)|attn\.q", "query"),
    (r"self\.(key|key_proj)|attention\.(key|k_lin)|attn\.k", "key"),
    (r"self\.(value|value_proj)|attention\.(value|v_lin)|attn\.v", "value"),
    (r"self\.in_proj|attn\.Wqkv", "qkv"),
    (r"attention\.(output\.dense|dense|out_lin)|attn\.o|attn\.Wo", "attention_output"),
    (r"intermediate\.dense|ffn\.lin1|mlp\.Wi|\.ffn", "ffn_in"),
    (r"output\.dense|ffn\.lin2|mlp\.Wo|ffn_output", "ffn_out"),
)
_ROLES = tuple((re.compile(rf"(?:{pattern})$"), role) for pattern, role in ROLES)
_LAYER = re.compile(r"\.(\d+)\.")


def find_sites(model: nn.Module) -> list[Site]:
    """All linear maps and layer norms of an encoder, in the order of its modules."""
    return [site for name, module in model.named_modules() if (site := _site(name, module)) is not None]


def find_attention(model: nn.Module, heads: int) -> list[Site]:
    """The modules that call the attention interface: those that hold the query (or fused) map."""
    found = []
    for site in find_sites(model):
        if site.role in ("query", "qkv"):
            width = site.outputs // 3 if site.role == "qkv" else site.outputs
            name = site.name.rpartition(".")[0]
            found.append(Site(name, "attention", site.layer, width, width, bias=False, heads=heads))
    return found


def layer_of(name: str) -> int:
    """The layer that a module or weight of this name belongs to, -1 where it belongs to none."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else -1


def find_layers(sites: Sequence[Site]) -> list[str]:
    """The names of the modules that are the encoder's layers, from below; fewer where layers share their weights."""
    names = [site.name[: match.end(1)] for site in sites if (match := _LAYER.search(site.name))]
    return list(dict.fromkeys(names))


def siblings(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """For each query, key and value map: all of its attention module, which usually read the same input."""
    families: dict[str, list[Site]] = {}
    for site in sites:
        if site.role in ("query", "key", "value"):
            families.setdefault(site.name.rpartition(".")[0], []).append(site)
    return {site.name: family for family in families.values() for site in family if len(family) > 1}


def _site(name: str, module: nn.Module) -> Site | None:
    layer = layer_of(name)
    if isinstance(module, nn.Linear):
        role: Role = next((role for pattern, role in _ROLES if pattern.search(name)), "other")
        return Site(name, role, layer, module.in_features, module.out_features, module.bias is not None)
    if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("LayerNorm"):  # DeBERTa has one of its own
        width = module.weight.shape[-1]  # type: ignore[union-attr]
        return Site(name, "norm", layer, width, width, module.bias is not None)
    return None
