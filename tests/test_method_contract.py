"""Every registered method keeps the contract; a new plug-in is covered as soon as it is registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.base.errors import SpecError
from modicum.engine.backbone import Backbone
from modicum.methods import METHODS
from modicum.methods.base import Adapter, Method, ParameterTree, Rows, Site, pick, zeros
from modicum.testing.backbone import fake_backbone
from modicum.testing.methods import MethodContract


def bottleneck(width: int, reduction: int = 16) -> int:
    middle = max(1, round(width / reduction))
    return 2 * width * middle + middle + width


def all_biases(width: int, layers: int, ffn: int) -> int:
    """Embedding norm; per layer query, key, value, output, two norms and the feed-forward pair."""
    return width + layers * (7 * width + ffn)


FORMULAS: dict[str, Callable[[int, int, int], int]] = {
    # adapter parameters of one run, from the width w, the number of layers n and the feed-forward size f
    "head": lambda w, n, f: 0,
    "bitfit": all_biases,
    "adapter": lambda w, n, f: n * 2 * bottleneck(w),
    "pfeiffer": lambda w, n, f: n * bottleneck(w),
    "lora": lambda w, n, f: n * 8 * (4 * (w + w) + 2 * (w + f)),
    "prefix": lambda w, n, f: n * 2 * 10 * w,
    "ia3": lambda w, n, f: n * (2 * w + f),
    "unipelt": lambda w, n, f: n * (2 * 10 * w + 8 * 2 * (w + w) + bottleneck(w) + 4 * w),
}


FAST = {"learning_rate": 1e-2, "head_learning_rate": 1e-2}
OPTIONS: dict[str, dict[str, Any]] = {"soup": {"of": [{"name": "bitfit", **FAST}, {"name": "full", **FAST}]}}


class TestEveryMethod(MethodContract):
    @pytest.fixture(autouse=True, params=[name for name in METHODS.names() if not name.endswith(":")])
    def _name(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def make(self) -> Method:
        method: Method = METHODS.create(self.name, **OPTIONS.get(self.name, {}))
        return method

    def formula(self, backbone: Backbone) -> int | None:
        if self.name in ("full", "soup"):
            return sum(p.numel() for p in backbone.model.parameters())
        config = backbone.config
        sizes = (config.hidden_size, config.num_hidden_layers, config.intermediate_size)
        return FORMULAS[self.name](*sizes) if self.name in FORMULAS else None


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("lora", {"targets": "query-value", "rank": 2}, 2 * 2 * 2 * (16 + 16)),
        ("lora", {"targets": "attention", "rank": 3}, 2 * 3 * 4 * (16 + 16)),
        ("prefix", {"hidden": 6, "length": 4}, 4 * 16 + (16 * 6 + 6) + (6 * 64 + 64)),
        ("adapter", {"reduction": 4}, 2 * 2 * bottleneck(16, 4)),
        ("adapter", {"reduction": 1000}, 2 * 2 * (2 * 16 + 1 + 16)),
    ],
)
def test_options_change_the_formula(name: str, options: dict[str, Any], expected: int) -> None:
    adapter = METHODS.create(name, **options).build(fake_backbone().sites, [np.random.default_rng(0)])
    assert sum(p.numel() for p in adapter.parameters()) == expected


class TestReparametrisedPrefix(MethodContract):
    def make(self) -> Method:
        method: Method = METHODS.create("prefix", hidden=8, length=3)
        return method


class TestLoRAOfQueryAndValue(MethodContract):
    def make(self) -> Method:
        method: Method = METHODS.create("lora", targets="query-value", rank=2, alpha=7.0)
        return method


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora", {"rank": 0}, "LoRA: setting 'rank': .*greater than or equal to 1"),
        ("lora", {"target": "all"}, r"unknown setting 'target' \(did you mean 'targets'\?\)"),
        ("lora", {"targets": "query"}, "'query-value', 'attention' or 'all'"),
        ("prefix", {"length": 0}, "Prefix: setting 'length'"),
        ("prefix", {"hidden": 0}, "Prefix: setting 'hidden'"),
        ("pfeiffer", {"reduction": 0}, "Pfeiffer: setting 'reduction': .*greater than 0"),
        ("adapter", {"activation": "tanh"}, "'swish', 'relu' or 'gelu'"),
        ("bitfit", {"learning_rate": 0}, "BitFit: setting 'learning_rate': .*greater than 0"),
        ("ia3", {"head_learning_rate": -1}, "IA3: setting 'head_learning_rate': .*greater than 0"),
    ],
)
def test_impossible_settings_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        METHODS.create(name, **options)


class BrokenAdapter(Adapter):
    """Adds an offset after every feed-forward map, and breaks one clause of the contract."""

    def __init__(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator], fault: str) -> None:
        super().__init__(1 if fault == "axis" else len(rngs))
        self.fault = fault
        offsets = {site.name: zeros(rngs, site.outputs) for site in sites}
        if fault == "axis":
            offsets = {name: offset[0] for name, offset in offsets.items()}
        if fault == "global":
            offsets = {name: torch.randn_like(offset) for name, offset in offsets.items()}
        if fault == "start":
            offsets = {name: offset + torch.linspace(0, 1, offset.shape[-1]) for name, offset in offsets.items()}
        if fault == "shared seed":
            draw = rngs[0].standard_normal(sites[0].outputs).astype(np.float32)
            offsets = {name: offset + torch.from_numpy(draw) for name, offset in offsets.items()}
        if fault == "unused":
            self.spare = torch.nn.Parameter(torch.zeros(len(rngs), 3))
        self.offset = ParameterTree(offsets)
        self.count = 0
        self._sites = frozenset(site.name for site in sites)

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        y = frozen(*inputs)
        if self.fault == "write":
            frozen.weight.data.add_(1e-3)  # type: ignore[attr-defined]
        if self.fault == "neighbours":
            return y + rows.own(self.offset[site.name] + 0.1 * y.detach().mean(-2), y)
        if self.fault == "state":
            self.count += 1
            return y + rows.own(self.offset[site.name], y) * (1 + self.count / 10)
        return y + rows.own(self.offset[site.name], y)


class Broken(Method):
    identity_at_init: ClassVar[bool] = True
    learning_rate: float = 1e-2
    fault: str

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        return BrokenAdapter(pick(sites, "ffn_out", method="broken"), rngs, self.fault)


@pytest.mark.parametrize(
    ("fault", "test", "message"),
    [
        ("axis", "test_every_parameter_has_a_runs_axis", "needs \\(3, ...\\)"),
        ("shared seed", "test_runs_start_from_their_own_seeds", "differ"),
        ("start", "test_identity_at_the_start", "not close"),
        ("write", "test_the_backbone_does_not_change", "training wrote to the frozen .*output.dense.weight"),
        ("neighbours", "test_stacked_runs_equal_single_runs", "not close"),
        ("neighbours", "test_runs_keep_apart_in_one_pass", "not close"),
        ("state", "test_saving_and_loading_gives_the_same_logits", "the logits changed"),
        ("unused", "test_gradients_reach_every_parameter", "no gradient reaches adapter.spare"),
        ("global", "test_leaves_global_random_state_alone", "torch's global generator moved"),
        ("global", "test_the_same_job_gives_the_same_bits", "differ"),
    ],
)
def test_the_contract_catches_faults(fault: str, test: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(contract_of(Broken(fault=fault)), test)()


def test_the_contract_passes_without_a_fault() -> None:
    contract = contract_of(Broken(fault=""))
    for name in ("stacked_runs_equal_single_runs", "identity_at_the_start", "gradients_reach_every_parameter"):
        getattr(contract, f"test_{name}")()


def contract_of(method: Method) -> MethodContract:
    class Contract(MethodContract):
        def make(self) -> Method:
            return method

    return Contract()
