"""Loading from the Hugging Face hub, by a stand-in for ``datasets``."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from modicum.base.errors import DataError
from modicum.data.sources import load


class HubTable:
    """The few calls of ``datasets.Dataset`` that are used."""

    def __init__(self, table: pa.Table, names: list[str]) -> None:
        label = SimpleNamespace(names=names)
        self.table = table
        self.features = type("Features", (dict,), {"arrow_schema": table.schema})(text=SimpleNamespace(), label=label)

    def select_columns(self, names: list[str]) -> HubTable:
        return HubTable(self.table.select(names), self.features["label"].names)

    def with_format(self, kind: str) -> HubTable:
        assert kind == "arrow"
        return self

    def iter(self, size: int) -> Any:
        yield from (self.table.slice(start, size) for start in range(0, len(self.table), size))


def test_hub_data_sets_come_with_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(path: str, name: str | None, split: str) -> HubTable:
        calls.append((path, name, split))
        return HubTable(pa.table({"text": list("abcde"), "label": [0, 1, 0, 1, -1]}), ["pos", "neg"])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    data = load("hub:nyu-mll/glue/sst2:validation")
    assert (data.classes, data.labels.tolist()) == (("neg", "pos"), [1, 0, 1, 0, -1])
    assert (data.name, data.report.source) == ("nyu-mll/glue/sst2:validation", "hub:nyu-mll/glue/sst2:validation")
    load("hub:imdb")
    assert calls == [("nyu-mll/glue", "sst2", "validation"), ("imdb", None, "train")]


def test_hub_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("Dataset 'imbd' doesn't exist on the Hub")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match="hub:imbd cannot be loaded from the hub: Dataset 'imbd' doesn't exist"):
        load("hub:imbd")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=re.escape("get it with pip install 'modicum[hub]'")):
        load("hub:imdb")
