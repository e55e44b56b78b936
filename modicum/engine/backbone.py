"""A pretrained encoder: found, verified, loaded once, frozen, its sites named. Never written to.

Knows nothing about labels, training or strategies.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import BackboneError, SpecError
from modicum.engine.attention import IMPLEMENTATION, PackedAttention, current
from modicum.engine.loading import first_position, load_model, position_table
from modicum.engine.noise import Noise
from modicum.engine.precision import Precision, best_device, resolve
from modicum.engine.rows import rows_of
from modicum.engine.sites import find_attention, find_sites
from modicum.engine.tokens import Batch, Lift, Tokens, pack, padded
from modicum.engine.weights import find_weights
from modicum.methods.base import Adapter, Rows, Site

Pooling = Literal["auto", "mean", "first", "pooler"]


@dataclass
class Pass:
    """One walk through the encoder: the batch, who stands around its sites, and what is dropped."""

    batch: Batch
    rows: Rows
    adapter: Adapter | None
    noise: Noise | None
    lift: Lift | None


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
        tokens = self._three_texts()
        batch = pack(tokens, np.arange(3), np.zeros(3, np.int64), first_position=self.first_position)
        try:
            with torch.inference_mode():
                self.model.set_attn_implementation("eager")
                alone = [
                    self.model(input_ids=row.long()[None].to(self.device)).last_hidden_state[0]
                    for row in self._rows(tokens.ids, tokens.lengths)
                ]
                self.model.set_attn_implementation(IMPLEMENTATION)
                together = self._encode_packed(self._pass_over(batch, 1, None, None, True))
        except Exception:  # an architecture may refuse packed rows in any way it likes; all of them mean "padded"
            return False
        tolerance = 0.15 if self.dtype == torch.bfloat16 else 1e-3
        expected = torch.cat(alone)  # some models have a few dimensions that are far larger than the others
        return bool((expected - together).abs().max() < tolerance * expected.abs().max().clamp(min=1))

    def _maps_texts_alone(self) -> bool:
        """Whether sites see texts alone; DeBERTa also sends embeddings of relative positions through its own maps."""
        watch = _Watch(self.sites, texts=3)
        with torch.inference_mode():
            self.encode(pack(self._three_texts(), np.arange(3), np.zeros(3, np.int64)), adapter=watch)
        return watch.texts_alone

    def _three_texts(self) -> Tokens:
        usable = [i for i in range(5, min(200, self.config.vocab_size)) if i != self.config.pad_token_id][:40]
        lengths = np.array([3, 5, 8])
        ids = np.resize(np.array(usable, dtype=np.int32), lengths.sum())
        return Tokens(ids, None, np.concatenate([[0], np.cumsum(lengths)]))

    @staticmethod
    def _rows(ids: np.ndarray, lengths: np.ndarray) -> Iterator[Tensor]:
        for end, length in zip(np.cumsum(lengths), lengths, strict=True):
            yield torch.from_numpy(ids[end - length : end].copy())

    # ---- instrumentation: adapters and dropout without a change to the model's code ------------------------------

    def _instrument(self) -> None:
        """Let the present pass step in at every site and dropout; without a pass the model is its own self."""
        modules = dict(self.model.named_modules())
        for site in self.sites:
            if site.role == "attention":
                modules[site.name].modicum_site = site  # type: ignore[assignment]
            else:
                self._wrap(modules[site.name], functools.partial(self._at_site, site))
        for module in modules.values():
            if isinstance(module, nn.Dropout) and module.p > 0:
                self._wrap(module, functools.partial(self._at_dropout, module.p))

    def _wrap(self, module: nn.Module, step: Callable[..., Tensor]) -> None:
        module.forward = functools.partial(step, module.forward)
        self._wrapped.append(module)

    def _at_site(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        now = self._pass
        if now is None or now.adapter is None or site.name not in now.adapter.sites:
            return frozen(*inputs)
        return now.adapter.around(site, frozen, *inputs, rows=now.rows)

    def _at_dropout(self, p: float, frozen: Callable[..., Tensor], x: Tensor) -> Tensor:
        now = self._pass
        return x if now is None or now.noise is None else now.noise.tokens(x, p)

    def _attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        now = self._pass
        assert now is not None
        drop_rate, lift = _attention_dropout(module), now.lift

        def frozen(*tensors: Tensor) -> Tensor:
            q, k, v = (t[0].transpose(0, 1) for t in tensors[:3])
            prefix_k, prefix_v = tensors[3:] if len(tensors) > 3 else (None, None)
            extra = 0 if prefix_k is None else prefix_k.shape[2]
            noisy = now.noise is not None and drop_rate > 0
            drop = now.noise.attention(q.shape[1], extra, drop_rate, q.dtype) if noisy else None  # type: ignore[union-attr]
            return PackedAttention.apply(
                q, k, v, prefix_k, prefix_v, now.batch.spans, lift, now.batch.spare, scale, window, drop
            )

        site: Site = module.modicum_site  # type: ignore[assignment]
        if now.adapter is not None and site.name in now.adapter.sites:
            return now.adapter.around(site, frozen, q, k, v, rows=now.rows)
        return frozen(q, k, v)

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
        self, batch: Batch, *, runs: int = 1, adapter: Adapter | None = None, noise: Noise | None = None
    ) -> Tensor:
        """Pooled representations of a batch's texts, (texts, width) fp32, in the row's order."""
        packed = self.packed and (adapter is None or adapter.takes_packed)
        now = self._pass_over(batch, runs, adapter, noise, packed)
        with self._lock:
            return self._pool((self._encode_packed if packed else self._encode_padded)(now), now)

    def _pass_over(self, batch: Batch, runs: int, adapter: Adapter | None, noise: Noise | None, packed: bool) -> Pass:
        lift = batch.lift
        if lift is not None:
            lift = Lift(lift.take.to(self.device), lift.back.to(self.device), lift.empty.to(self.device))
        return Pass(batch, rows_of(batch, runs, packed, self.device, self.dtype), adapter, noise, lift)

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
        return self._call(now, inputs).last_hidden_state[0, : int(batch.lengths.sum())]

    def _encode_padded(self, now: Pass) -> Tensor:
        ids, mask, types = padded(now.batch, self.config.pad_token_id or 0)
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if types is not None and self.segmented:
            inputs["token_type_ids"] = types.to(self.device)
        hidden = self._call(now, inputs).last_hidden_state
        return hidden[:, hidden.shape[1] - mask.shape[1] :][
            mask.bool().to(self.device)
        ]  # prompts stand before the text

    @property
    def segmented(self) -> bool:
        """Whether the model tells the two texts of a pair apart by segment embeddings."""
        return getattr(self.config, "type_vocab_size", 0) > 1

    def _call(self, now: Pass, inputs: dict[str, Tensor]) -> Any:
        model, weights = self.model, dict[str, Tensor]()
        if now.adapter is not None:
            model = now.adapter.encoder() or self.model
            weights = dict(now.adapter.weights(self.dtype))
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
        """(tokens, width) -> (texts, width) fp32."""
        batch = now.batch
        if self.pooling == "mean":
            text = torch.from_numpy(batch.text_of_token).to(self.device)
            total = torch.zeros(len(batch.lengths), hidden.shape[1], device=self.device).index_add(
                0, text, hidden.float()
            )
            return total / torch.from_numpy(batch.lengths).to(self.device)[:, None]
        first = hidden[torch.from_numpy(batch.starts).to(self.device)]
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


class _Watch(Adapter):
    """Looks on, and notes whether all that passes a site belongs to one of so many texts."""

    def __init__(self, sites: list[Site], texts: int) -> None:
        super().__init__(runs=1)
        self._sites, self.texts, self.texts_alone = frozenset(site.name for site in sites), texts, True

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        self.texts_alone &= len(inputs[0]) == self.texts
        return frozen(*inputs)


def _attention_dropout(module: nn.Module) -> float:
    rate = getattr(module, "dropout", getattr(module, "attention_dropout", 0.0))
    return float(rate.p if isinstance(rate, nn.Dropout) else rate)
