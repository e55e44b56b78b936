"""Names the places in an unmodified Hugging Face encoder where adapters may stand."""

from __future__ import annotations

import re

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


def _site(name: str, module: nn.Module) -> Site | None:
    match = _LAYER.search(name)
    layer = int(match.group(1)) if match else -1
    if isinstance(module, nn.Linear):
        role: Role = next((role for pattern, role in _ROLES if pattern.search(name)), "other")
        return Site(name, role, layer, module.in_features, module.out_features, module.bias is not None)
    if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("LayerNorm"):  # DeBERTa has one of its own
        width = module.weight.shape[-1]  # type: ignore[union-attr]
        return Site(name, "norm", layer, width, width, module.bias is not None)
    return None
