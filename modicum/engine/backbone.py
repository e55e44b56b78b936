"""A pretrained encoder: found, verified, loaded once, frozen, its sites named. Never written to.

Knows nothing about labels, training or strategies.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import BackboneError, SpecError
from modicum.base.spec import digest
from modicum.engine.attention import IMPLEMENTATION, Masks, attend, current
from modicum.engine.linear import Maps
from modicum.engine.loading import first_position, load_model, position_table
from modicum.engine.memory import keep_pages
from modicum.engine.noise import Noise
from modicum.engine.passes import Changed, Pass, Upper
from modicum.engine.precision import Precision, best_device, resolve
from modicum.engine.probes import Watch, three_texts
from modicum.engine.rows import rows_of
from modicum.engine.sites import find_attention, find_layers, find_sites, layer_of, siblings
from modicum.engine.tiles import Batch, pack, padded
from modicum.engine.weights import find_weights
from modicum.methods.base import Adapter, Method, Site

Pooling = Literal["auto", "mean", "first", "pooler"]


class Backbone:
    """A frozen encoder with its tokenizer.

    pooling: how a text's tokens become one vector: the mean, the first token, or the model's own pooler.
    packed: whether batches are flat rows; False where the architecture cannot take them.
    stackable: whether several runs can share a pass; False where sites see what belongs to no text, and so to no run.
    positions: how many positions the model has embeddings for; None where it needs none.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        pooling: Pooling = "first",
        max_length: int = 256,
    ) -> None:
        self.model, self.tokenizer, self.name, self.fingerprint = (
            model.eval().requires_grad_(False),
            tokenizer,
            name,
            fingerprint,
        )
        self.config: Any = model.config
        self.width = int(self.config.hidden_size)
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        self.pooling = pooling
        positions = getattr(self.config, "max_position_embeddings", 0) or max_length
        self.max_length = min(max_length, positions - 2)
        self.first_position, self.positions = first_position(model), position_table(model)
        self.sites: list[Site] = []
        self._lock = threading.RLock()
        self._pass: Pass | None = None
        self._wrapped: list[nn.Module] = []
        self._siblings: dict[str, list[Site]] = {}
        self.packed = self.stackable = False
        self._set_up()

    # ---- loading -------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        name: str,
        *,
        pooling: Pooling = "auto",
        max_length: int = 256,
        precision: Precision = "auto",
        device: str | torch.device | None = None,
    ) -> Backbone:
        """Load ``minilm``, a folder, or the name of an encoder on the Hugging Face hub.

        Raises:
            BackboneError: it cannot be found, has no safetensors, fails its checksum, or is no encoder.
        """
        from transformers import AutoTokenizer  # a second of start-up that a Backbone made from parts does not pay

        keep_pages()
        found = find_weights(name)
        pooling = found.pooling if pooling == "auto" else pooling
        where = torch.device(device) if device else best_device()
        if where.type not in ("cpu", "cuda"):
            raise BackboneError(f"a backbone runs on cpu or cuda, got device {str(device)!r}")
        model = load_model(found, resolve(precision, where), keep_pooler=pooling == "pooler").to(where)
        try:
            tokenizer = AutoTokenizer.from_pretrained(found.folder, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise BackboneError(f"backbone {name!r} has no tokenizer that can be loaded: {error}") from error
        files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
        if not any((found.folder / file).is_file() for file in files):  # transformers would make an empty one
            names = ", ".join(sorted(files))
            raise BackboneError(f"backbone {name!r} has no tokenizer: {found.folder} needs one of {names}")
        return cls(model, tokenizer, name=name, fingerprint=found.fingerprint, pooling=pooling, max_length=max_length)

    def _set_up(self) -> None:
        attention = find_attention(self.model, int(self.config.num_attention_heads))
        self.sites = [*find_sites(self.model), *attention]
        self._instrument()
        self.packed = self._takes_packed_rows()
        if not self.packed:
            self.sites = [site for site in self.sites if site.role != "attention"]
            self.model.set_attn_implementation("eager")
        self.stackable = self.packed or self._maps_texts_alone()

    def _takes_packed_rows(self) -> bool:
        """Three texts in one row must give what each gives alone through transformers' own attention."""
        tokens = three_texts(self.config)
        batch = pack(tokens, np.arange(3), np.zeros(3, np.int64), first_position=self.first_position)
        try:
            with torch.inference_mode():
                self.model.set_attn_implementation("eager")
                alone = [
                    self.model(input_ids=row.long()[None].to(self.device)).last_hidden_state[0]
                    for row in torch.from_numpy(tokens.ids).split(tokens.lengths.tolist())
                ]
                self.model.set_attn_implementation(IMPLEMENTATION)
                together = self._encode_packed(self._pass_over(batch, 1, None, None, True))
        except Exception:  # an architecture may refuse packed rows in any way it likes; all of them mean "padded"
            return False
        tolerance = 0.15 if self.dtype == torch.bfloat16 else 1e-3
        expected = torch.cat([alone[text] for text in batch.order])
        together = together[0, torch.from_numpy(batch.places).to(self.device)]
        # some models have a few dimensions that are far larger than the others
        return bool((expected - together).abs().max() < tolerance * expected.abs().max().clamp(min=1))

    def _maps_texts_alone(self) -> bool:
        """Whether sites see texts alone; DeBERTa also sends embeddings of relative positions through its own maps."""
        watch = Watch(self.sites, texts=3)
        with torch.inference_mode():
            self.encode(pack(three_texts(self.config), np.arange(3), np.zeros(3, np.int64)), adapter=watch)
        return watch.texts_alone

    # ---- instrumentation: adapters and dropout without a change to the model's code ------------------------------

    def _instrument(self) -> None:
        """Let the present pass step in at every site and dropout; without a pass the model is its own self."""
        modules = self._modules = dict(self.model.named_modules())
        self._maps = Maps(modules)
        self._siblings = siblings(self.sites)
        for site in self.sites:
            if site.role == "attention":
                modules[site.name].modicum_site = site  # type: ignore[assignment]
            else:
                self._wrap(modules[site.name], functools.partial(self._at_site, site))
        self._layers = find_layers(self.sites)
        for number, name in enumerate(self._layers):
            self._wrap(modules[name], functools.partial(self._at_layer, number))
        if "embeddings" in modules:
            self._wrap(modules["embeddings"], self._at_embeddings)
        for module in modules.values():
            if isinstance(module, nn.Dropout) and module.p > 0:
                self._wrap(module, functools.partial(self._at_dropout, module.p))

    def _wrap(self, module: nn.Module, step: Callable[..., Tensor]) -> None:
        module.forward = functools.partial(step, module.forward)
        self._wrapped.append(module)

    def _at_site(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        now = self._pass
        if now is None:
            return frozen(*inputs)
        adapter = None if now.changed is not None else now.adapter
        linear = now.maps is not None and isinstance(self._modules[site.name], nn.Linear)
        if linear and site.name in self._siblings:
            return self._one_of(self._siblings[site.name], site, inputs[0], now, adapter)
        frozen = now.maps.of(site.name) if linear else frozen  # type: ignore[union-attr]
        if adapter is None or site.name not in adapter.sites:
            return frozen(*inputs)
        return adapter.around(site, frozen, *inputs, rows=now.rows)

    def _at_embeddings(self, frozen: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        now = self._pass
        return frozen(*args, **kwargs) if now is None or now.lower is None else now.lower

    def _at_layer(
        self, number: int, frozen: Callable[..., Tensor], hidden: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        now = self._pass
        if now is None or now.layer == 0:
            return frozen(hidden, *args, **kwargs)
        if now.lower is not None:
            return hidden if number < now.layer else frozen(hidden, *args, **kwargs)
        if number == now.layer:
            now.reached = hidden
        return frozen(hidden, *args, **kwargs) if number < now.layer else hidden

    def _one_of(self, sites: list[Site], site: Site, x: Tensor, now: Pass, adapter: Adapter | None) -> Tensor:
        """A site's output, computed together with its siblings' when the first of them is asked for this input."""
        known, outputs = now.together.get(sites[0].name, (None, {}))
        if known is not x or site.name not in outputs:
            frozen = now.maps.of(*(s.name for s in sites))  # type: ignore[union-attr]
            parts = (
                frozen(x).split([s.outputs for s in sites], -1)
                if adapter is None
                else adapter.around_all(sites, frozen, x, now.rows)
            )
            outputs = dict(zip((s.name for s in sites), parts, strict=True))
            now.together[sites[0].name] = x, outputs
        return outputs.pop(site.name)

    def _at_dropout(self, p: float, frozen: Callable[..., Tensor], x: Tensor) -> Tensor:
        now = self._pass
        return x if now is None or now.noise is None else now.noise.tokens(x, p, packed=now.packed)

    def _attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        now = self._pass
        assert now is not None
        drop_rate = _attention_dropout(module)

        def frozen(
            q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None = None, gate: Tensor | None = None
        ) -> Tensor:
            q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))
            length = 0 if prefix is None else prefix[0].shape[2]
            noisy = now.noise is not None and drop_rate > 0
            kept = now.noise.attention(q.shape[1], length, drop_rate) if noisy else None  # type: ignore[union-attr]
            return attend(q, k, v, prefix, None if gate is None else gate[0], now.masks, scale, window, kept)

        site: Site = module.modicum_site  # type: ignore[assignment]
        if now.adapter is not None and site.name in now.adapter.sites:
            return now.adapter.around(site, frozen, q, k, v, rows=now.rows)
        return frozen(q, k, v)

    @functools.cached_property
    def tokenizer_fingerprint(self) -> str:
        """A hash of all that decides how texts become tokens."""
        inner = getattr(self.tokenizer, "backend_tokenizer", None)
        return digest(inner.to_str() if inner is not None else repr(self.tokenizer))

    @property
    def weights(self) -> list[str]:
        """The names of all weights."""
        return [name for name, _ in self.model.named_parameters()]

    def above(self, method: Method) -> tuple[Upper, int]:
        """The layers that a method stands in, and the lowest of them from which a pass can begin, else 0.

        Raises:
            SpecError: the backbone has fewer layers.
        """
        lowest = method.lowest(1 + max(site.layer for site in self.sites))
        names = [name for name in self.weights if not lowest or layer_of(name) >= lowest]
        host = Upper(self, method.within(self.sites), names)
        return host, lowest if self.packed and self._walks_from(lowest) else 0

    def _walks_from(self, layer: int) -> bool:
        """Whether a pass that begins at a layer, with what lies below given, ends as the whole pass does."""
        if not 0 < layer < len(self._layers):
            return False
        batch = pack(three_texts(self.config), np.arange(3), np.zeros(3, np.int64), first_position=self.first_position)
        with torch.inference_mode():
            whole, upper = self.encode(batch), self.encode(batch, lower=self.walk_to(layer, batch), layer=layer)
        return torch.equal(whole, upper)

    def change(self, method: Method, adapter: Mapping[str, Tensor]) -> Changed | None:
        """The encoder with one run's change written into its weights; None where it cannot be."""
        state = {n: p.detach().float() for n, p in self.model.named_parameters()}
        before = dict(state)
        if not self.packed or not method.merge(method.within(self.sites), adapter, state):
            return None
        new = {n: t.to(self.device, self.dtype) for n, t in state.items() if t is not before.get(n)}
        return Changed(new, Maps(self._modules, new))

    def plain_copy(self) -> nn.Module:
        """A copy of the encoder that shares the frozen weights; of Modicum's steps it keeps dropout alone."""
        steps = [module.__dict__.pop("forward") for module in self._wrapped]
        try:
            shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
            twin = copy.deepcopy(self.model, memo=dict(shared))
        finally:
            for module, step in zip(self._wrapped, steps, strict=True):
                module.forward = step
        self.drop_in(twin)
        return twin

    def drop_in(self, model: nn.Module) -> None:
        """Let the dropouts of a copy, and of what was built around it, draw from the present pass's streams."""
        for module in model.modules():
            if isinstance(module, nn.Dropout) and module.p > 0 and "forward" not in module.__dict__:
                module.forward = functools.partial(self._at_dropout, module.p, module.forward)

    # ---- passes --------------------------------------------------------------------------------------------------

    def encode(
        self,
        batch: Batch,
        *,
        runs: int = 1,
        adapter: Adapter | None = None,
        noise: Noise | None = None,
        changed: Changed | None = None,
        lower: Tensor | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Pooled representations of a batch's texts, (texts, width) fp32, in the row's order.

        changed: weights that hold the adapter's change already, so that it stands nowhere itself. lower: (1, places,
        width), what the layers below ``layer`` make of the batch (see ``walk_to``), so that they are not computed.
        """
        packed = self.packed and (adapter is None or adapter.takes_packed)
        now = self._pass_over(batch, runs, adapter, noise, packed, changed)
        now.lower, now.layer = lower, layer
        with self._lock:
            return self._pool((self._encode_packed if packed else self._encode_padded)(now), now)

    def walk_to(self, layer: int, batch: Batch) -> Tensor:
        """What the layers below this one make of a batch, (1, places, width), in the backbone's precision."""
        now = self._pass_over(batch, 1, None, None, True)
        now.layer = layer
        with self._lock:
            self._encode_packed(now)
        assert now.reached is not None
        return now.reached

    def _pass_over(
        self,
        batch: Batch,
        runs: int,
        adapter: Adapter | None,
        noise: Noise | None,
        packed: bool,
        changed: Changed | None = None,
    ) -> Pass:
        rows = rows_of(batch, runs, packed, self.device, self.dtype)
        maps = changed.maps if changed else self._maps
        return Pass(batch, rows, adapter, noise, Masks(batch, self.device, self.dtype), packed, maps, changed)

    def _encode_packed(self, now: Pass) -> Tensor:
        batch, adapter = now.batch, now.adapter
        shift = adapter.position_shift if adapter else 0
        room = (self.positions or 2**31) - self.first_position - shift
        if batch.lengths.max() > room:
            raise SpecError(
                f"{shift} learned positions and a text of {batch.lengths.max()} tokens must fit into the "
                f"{self.positions} positions of {self.name!r}: load it with max_length {room} or less"
            )
        inputs = {"input_ids": batch.ids.to(self.device), "position_ids": (batch.positions + shift).to(self.device)}
        if batch.types is not None and self.segmented:
            inputs["token_type_ids"] = batch.types.to(self.device)
        return self._call(now, inputs).last_hidden_state

    def _encode_padded(self, now: Pass) -> Tensor:
        ids, mask, types = padded(now.batch, self.config.pad_token_id or 0)
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if types is not None and self.segmented:
            inputs["token_type_ids"] = types.to(self.device)
        hidden = self._call(now, inputs).last_hidden_state
        return hidden[:, hidden.shape[1] - mask.shape[1] :]  # prompts stand before the text

    @property
    def segmented(self) -> bool:
        """Whether the model tells the two texts of a pair apart by segment embeddings."""
        return getattr(self.config, "type_vocab_size", 0) > 1

    def _call(self, now: Pass, inputs: dict[str, Tensor]) -> Any:
        model, weights = self.model, dict[str, Tensor]()
        if now.changed is not None:
            weights = dict(now.changed.weights)
        elif now.adapter is not None:
            model = now.adapter.encoder() or self.model
            weights = dict(now.adapter.weights(self.dtype))
            if weights or model is not self.model:
                now.maps = None  # the laid-out maps are not those of this pass
        with self._during(now):
            return torch.func.functional_call(model, weights, kwargs=inputs) if weights else model(**inputs)

    @contextmanager
    def _during(self, now: Pass) -> Iterator[None]:
        self._pass = now
        token = current.set(self._attend)
        try:
            yield
        finally:
            self._pass = None
            current.reset(token)

    def _pool(self, hidden: Tensor, now: Pass) -> Tensor:
        """(1, places, width), or padded (texts, longest, width) -> (texts, width) fp32."""
        if self.pooling == "mean":
            return now.rows.mean_over_text(hidden)
        first = hidden[0, torch.from_numpy(now.batch.starts).to(self.device)] if now.packed else hidden[:, 0]
        return (self._through_pooler(first, now) if self.pooling == "pooler" else first).float()

    def _through_pooler(self, first: Tensor, now: Pass) -> Tensor:
        """(texts, width) through the model's own pooler, its adapter or learned weights included."""
        pooler: nn.Module = self.model.pooler  # type: ignore[assignment]
        learned = now.adapter.weights(self.dtype) if now.adapter else {}
        weights = {n.removeprefix("pooler."): p.to(self.dtype) for n, p in learned.items() if n.startswith("pooler.")}
        one_hot, runs = now.rows.one_hot, now.rows.runs
        if one_hot is not None:
            one_hot = nn.functional.one_hot(now.rows.run_of_text, runs).to(self.dtype)
        with self._during(replace(now, rows=replace(now.rows, one_hot=one_hot))):
            if isinstance(pooler, nn.Linear):  # ALBERT keeps the activation beside it
                return self.model.pooler_activation(torch.func.functional_call(pooler, weights, first))  # type: ignore[operator]
            return torch.func.functional_call(pooler, weights, first[:, None])


def _attention_dropout(module: nn.Module) -> float:
    rate = getattr(module, "dropout", getattr(module, "attention_dropout", 0.0))
    return float(rate.p if isinstance(rate, nn.Dropout) else rate)
