"""A pretrained encoder: found, verified, loaded once, frozen, its sites named. Never written to.

Knows nothing about labels, training or strategies.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import BackboneError, SpecError
from modicum.base.spec import digest
from modicum.engine.attention import IMPLEMENTATION, Masks
from modicum.engine.linear import Maps
from modicum.engine.loading import first_position, load_model, position_table
from modicum.engine.memory import keep_pages
from modicum.engine.noise import Noise
from modicum.engine.passes import Changed, Pass, Upper
from modicum.engine.precision import Precision, best_device, resolve
from modicum.engine.probes import Watch, three_texts
from modicum.engine.rows import rows_of
from modicum.engine.sites import find_attention, find_sites, layer_of
from modicum.engine.steps import Steps
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
    folder: where its files lie, None where it was made from parts.
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
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
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
        made = {"fingerprint": found.fingerprint, "pooling": pooling, "max_length": max_length, "folder": found.folder}
        return cls(model, tokenizer, name=name, **made)

    def _set_up(self) -> None:
        attention = find_attention(self.model, int(self.config.num_attention_heads))
        self.sites = [*find_sites(self.model), *attention]
        self._steps = Steps(self.model, self.sites)
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
                together = self._walk(replace(self._pass_over(batch, 1, None, None), packed=True))
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
        if not 0 < layer < len(self._steps.layers):
            return False
        batch = pack(three_texts(self.config), np.arange(3), np.zeros(3, np.int64), first_position=self.first_position)
        with torch.inference_mode():
            whole, upper = self.encode(batch), self.encode(batch, lower=self.walk_to(layer, batch), layer=layer)
        return torch.equal(whole, upper)

    def change(self, method: Method, adapter: Mapping[str, Tensor]) -> Changed | None:
        """The encoder with one run's change written into its weights; None where it cannot be."""
        state = self._in_full_precision()
        before = dict(state)
        if not self.packed or not method.merge(method.within(self.sites), adapter, state):
            return None
        new = {n: t.to(self.device, self.dtype) for n, t in state.items() if t is not before.get(n)}
        return Changed(new, Maps(self._steps.modules, new))

    def merged(self, method: Method, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights in fp32, by name, with one run's change written into them.

        Raises:
            SpecError: the method's change cannot be written as weights.
        """
        state = self._in_full_precision()
        if not method.merge(method.within(self.sites), adapter, state):
            name = type(method).__name__
            raise SpecError(f"what {name} learned cannot be written as weights: choose a method that changes weights")
        return state

    def _in_full_precision(self) -> dict[str, Tensor]:
        return {name: p.detach().float() for name, p in self.model.named_parameters()}

    def plain_copy(self) -> nn.Module:
        """A copy of the encoder that shares the frozen weights; of Modicum's steps it keeps dropout alone."""
        with self._steps.absent():
            shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
            twin = copy.deepcopy(self.model, memo=dict(shared))
        self.drop_in(twin)
        return twin

    def drop_in(self, model: nn.Module) -> None:
        """Let the dropouts of a copy, and of what was built around it, draw from the present pass's streams."""
        self._steps.drop_in(model)

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
        now = self._pass_over(batch, runs, adapter, noise, changed)
        now.lower, now.layer = lower, layer
        with self._lock:
            return self._pool(self._walk(now), now)

    def states(
        self, batch: Batch, *, runs: int = 1, adapter: Adapter | None = None, noise: Noise | None = None
    ) -> Tensor:
        """What the last layer makes of each token, (tokens, width), texts in the row's order."""
        now = self._pass_over(batch, runs, adapter, noise)
        with self._lock:
            hidden = self._walk(now)
        if now.packed:
            return hidden[0, torch.from_numpy(batch.places).to(self.device)]
        return hidden[torch.from_numpy(batch.mask).to(self.device)]

    def by_layer(self, batch: Batch, *, adapter: Adapter | None = None, changed: Changed | None = None) -> Tensor:
        """What the embeddings and each layer make of a batch's texts, (layers + 1, texts, width) fp32, pooled as the
        last layer's output is; where that goes through the model's own pooler, by the first token."""
        now = self._pass_over(batch, 1, adapter, None, changed)
        with self._lock:
            every = self._call(now, self._inputs(now) | {"output_hidden_states": True}).hidden_states
        return torch.stack([self._pool(self._without_prompts(hidden, now), now, through=False) for hidden in every])

    def walk_to(self, layer: int, batch: Batch) -> Tensor:
        """What the layers below this one make of a batch, (1, places, width), in the backbone's precision."""
        now = self._pass_over(batch, 1, None, None)
        now.layer = layer
        with self._lock:
            self._walk(now)
        assert now.reached is not None
        return now.reached

    def _pass_over(
        self,
        batch: Batch,
        runs: int,
        adapter: Adapter | None,
        noise: Noise | None,
        changed: Changed | None = None,
    ) -> Pass:
        packed = self.packed and (adapter is None or adapter.takes_packed)
        rows = rows_of(batch, runs, packed, self.device, self.dtype)
        maps = changed.maps if changed else self._steps.maps
        return Pass(batch, rows, adapter, noise, Masks(batch, self.device, self.dtype), packed, maps, changed)

    def _walk(self, now: Pass) -> Tensor:
        """(1, places, width), or padded (texts, longest, width)."""
        return self._without_prompts(self._call(now, self._inputs(now)).last_hidden_state, now)

    def _inputs(self, now: Pass) -> dict[str, Any]:
        batch, shift = now.batch, now.adapter.position_shift if now.adapter else 0
        if not now.packed:
            ids, mask, types = padded(batch, self.config.pad_token_id or 0)
            inputs = {"input_ids": ids, "attention_mask": mask}
        else:
            room = (self.positions or 2**31) - self.first_position - shift
            if batch.lengths.max() > room:
                raise SpecError(
                    f"{shift} learned positions and a text of {batch.lengths.max()} tokens must fit into the "
                    f"{self.positions} positions of {self.name!r}: load it with max_length {room} or less"
                )
            inputs, types = {"input_ids": batch.ids, "position_ids": batch.positions + shift}, batch.types
        if types is not None and self.segmented:
            inputs["token_type_ids"] = types
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @staticmethod
    def _without_prompts(hidden: Tensor, now: Pass) -> Tensor:
        """Prompts stand before the texts of padded batches."""
        return hidden if now.packed else hidden[:, hidden.shape[1] - now.batch.mask.shape[1] :]

    @property
    def segmented(self) -> bool:
        """Whether the model tells the two texts of a pair apart by segment embeddings."""
        return getattr(self.config, "type_vocab_size", 0) > 1

    def _call(self, now: Pass, inputs: dict[str, Any]) -> Any:
        model, weights = self.model, dict[str, Tensor]()
        if now.changed is not None:
            weights = dict(now.changed.weights)
        elif now.adapter is not None:
            model = now.adapter.encoder() or self.model
            weights = dict(now.adapter.weights(self.dtype))
            if weights or model is not self.model:
                now.maps = None  # the laid-out maps are not those of this pass
        with self._steps.during(now):
            return torch.func.functional_call(model, weights, kwargs=inputs) if weights else model(**inputs)

    def _pool(self, hidden: Tensor, now: Pass, through: bool = True) -> Tensor:
        """(1, places, width), or padded (texts, longest, width) -> (texts, width) fp32. through: the pooler, if any."""
        if self.pooling == "mean":
            return now.rows.mean_over_text(hidden)
        first = hidden[0, torch.from_numpy(now.batch.starts).to(self.device)] if now.packed else hidden[:, 0]
        return (self._through_pooler(first, now) if through and self.pooling == "pooler" else first).float()

    def _through_pooler(self, first: Tensor, now: Pass) -> Tensor:
        """(texts, width) through the model's own pooler, its adapter or learned weights included."""
        pooler: nn.Module = self.model.pooler  # type: ignore[assignment]
        learned = now.adapter.weights(self.dtype) if now.adapter else {}
        weights = {n.removeprefix("pooler."): p.to(self.dtype) for n, p in learned.items() if n.startswith("pooler.")}
        one_hot, runs = now.rows.one_hot, now.rows.runs
        if one_hot is not None:
            one_hot = nn.functional.one_hot(now.rows.run_of_text, runs).to(self.dtype)
        with self._steps.during(replace(now, rows=replace(now.rows, one_hot=one_hot))):
            if isinstance(pooler, nn.Linear):  # ALBERT keeps the activation beside it
                return self.model.pooler_activation(torch.func.functional_call(pooler, weights, first))  # type: ignore[operator]
            return torch.func.functional_call(pooler, weights, first[:, None])
