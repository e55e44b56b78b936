"""``modicum fit``, ``predict``, ``select`` and ``export``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modicum.api.classifier import Classifier
from modicum.auto.engine import AUTO
from modicum.base.errors import DataError, SpecError, UnknownName
from modicum.base.files import atomic_write
from modicum.base.rng import stream
from modicum.cli import console
from modicum.data.dataset import Dataset
from modicum.data.shipped import shipped
from modicum.data.sources import load
from modicum.engine.precision import Precision
from modicum.strategies import STRATEGIES, USUAL
from modicum.strategies.base import Strategy, View

ONE = "lora"
"""The method where someone says how to train, and not by which one."""
FORMATS = (".csv", ".jsonl", ".parquet")
Columns = Mapping[str, str | None]


def fit(
    data: str,
    out: Path,
    method: str | None,
    backbone: str,
    *,
    minutes: float | None,
    columns: Columns,
    labels_at: int | None,
    test: str | None,
    epochs: int | None,
    tapt: str | None,
    objective: str | None,
    sought: bool,
    seed: int,
    options: Sequence[str],
    precision: str,
    skip_bad_rows: bool,
    as_json: bool,
) -> None:
    """Train, report, save."""
    known = shipped(data)
    train_path, test_path = (str(known[0]), test or str(known[1])) if known else (data, test)
    dataset = read(train_path, columns, skip_bad_rows, quiet=as_json)
    if not len(dataset.labelled_positions()):
        raise DataError(f"{data} has no labels to train on: name its label column with --label")
    chosen = drawn(dataset, labels_at, seed)
    training = {name: value for name, value in (("epochs", epochs), ("objective", objective)) if value is not None}
    if method is None:
        method = ONE if (training or tapt or options) and minutes is None else AUTO
    choice = {"name": method, **_options(options), **_within(method, minutes, training)}
    model = Classifier(backbone, choice, seed=seed, training=training, tapt=tapt, precision=_precision(precision))
    held = None  # read before training: a wrong name should cost a second, not an afternoon
    if test_path is not None:
        held = read(test_path, columns, skip_bad_rows, quiet=True, for_training=False, task=dataset.task)
        if not len(held.labelled_positions()):
            raise DataError(f"{test_path} has no labels to test on: name its label column with --label")
        held = held.with_classes(dataset.classes) if dataset.task == "classification" else held
        if held.paired != dataset.paired:
            raise DataError(f"of {train_path} and {test_path}, one has pairs of texts and the other single ones")
    out.mkdir(parents=True, exist_ok=True)

    def told(epoch: int, loss: float) -> None:
        if as_json:
            console.emit("pretraining", epoch=epoch, loss=loss)
        else:
            console.say(f"Pretraining on {len(dataset):,} texts: epoch {epoch}, loss {loss:.3f}")

    model.fit_dataset(dataset.subset(chosen), texts=dataset, on_epoch=told, sought=sought)
    model.save(out)
    facts: dict[str, Any] = {
        "labels": len(chosen),
        "steps": model.n_steps_,
        "parameters": model.n_parameters_,
        "model": str(out),
    }
    if model.chosen_ is not None:
        facts |= {"recipe": model.recipe_, "reason": model.chosen_.reason}
    if held is not None:
        facts |= model.evaluate(held)
    if as_json:
        console.emit("fitted", **facts)
    else:
        _say_fitted(model, method, facts)


def _say_fitted(model: Classifier, method: str, facts: Mapping[str, Any]) -> None:
    for line in _told(model):
        console.say(line)
    name, steps = model.recipe_ or method, facts["steps"]
    console.say(f"Trained {name} on {facts['labels']} labels in {steps} steps ({facts['parameters']:,} parameters).")
    tested = [f"{k} {value:.3f}" for k, value in facts.items() if isinstance(value, float)]
    if tested:
        console.say("Test: " + ", ".join(tested))
    console.say(f"Model: {facts['model']}")


def predict(model: Path, data: str, out: Path, columns: Columns, precision: str, skip_bad_rows: bool) -> None:
    """Classify every text of a file."""
    _check_format(out)
    classifier = Classifier.load(model, precision=_precision(precision))
    dataset = read(data, {**columns, "label": ""}, skip_bad_rows, for_training=False)
    with console.progress("texts", len(dataset)) as advance:
        outputs = classifier.outputs(dataset, advance)
    if classifier.task_ == "regression":
        rows = {"id": list(dataset.ids), "prediction": outputs.tolist()}
    else:
        names = classifier.class_names_
        rows = {"id": list(dataset.ids), "prediction": [names[i] for i in outputs.argmax(1)]}
        rows |= {"confidence": outputs.max(1).tolist()}
        rows |= {f"p({name})": outputs[:, i].tolist() for i, name in enumerate(names)}
    _write(rows, out)
    console.say(f"Classified {len(dataset):,} texts: {out}")


def select(
    model: Path,
    data: str,
    out: Path,
    asked: str | None,
    k: int,
    columns: Columns,
    seed: int,
    options: Sequence[str],
    precision: str,
    skip_bad_rows: bool,
) -> None:
    """Write the texts to label next."""
    _check_format(out)
    if asked is not None:
        STRATEGIES.create(asked, **_options(options))  # a wrong one is told before the model is read
    classifier = Classifier.load(model, precision=_precision(precision))
    classifier.seed = seed
    strategy = asked or USUAL[classifier.task_]
    chooser: Strategy = STRATEGIES.create(strategy, **_options(options))
    if classifier.task_ not in chooser.tasks:
        raise SpecError(
            f"strategy {strategy!r} works for {' and '.join(sorted(chooser.tasks))}, not for {classifier.task_}"
        )
    dataset = read(data, columns, skip_bad_rows, for_training=False)
    free, labelled = dataset.unlabelled_positions(), dataset.labelled_positions()
    if not len(free):
        raise SpecError(f"{data} has no row without a label: there is nothing left to select")
    if not 1 <= k <= len(free):
        raise SpecError(f"-k must be 1 to {len(free):,} (the rows of {data} without a label), got {k}")
    kept = chooser.narrow(len(free), len(labelled), k, rng=stream(seed, "narrow", 0))
    candidates = free if kept is None else free[kept]
    view = View(
        len(candidates),
        classifier.signals(dataset, candidates, chooser.needs, chooser.mc_passes),
        classifier.signals(dataset, labelled, chooser.needs_labelled, chooser.mc_passes),
        len(labelled),
    )
    picked = chooser.select(view, k, rng=stream(seed, "select", 0))
    positions = candidates[picked.positions]
    scores = [None if np.isnan(s) else float(s) for s in picked.scores]
    _write({"id": [dataset.ids[int(i)] for i in positions], "text": dataset.texts(positions), "score": scores}, out)
    console.say(f"Selected {k} of {len(free):,} unlabelled texts with {strategy}: {out}")


def export(model: Path, out: Path) -> None:
    """Write a plain transformers model, and say how to read its logits."""
    line = Classifier.load(model, precision="fp32").export(out)
    console.say(f"Plain transformers model: {out}\nIts class logits, from out = model(**batch): {line}")


def read(path: str, columns: Columns, skip: bool, quiet: bool = False, **settings: Any) -> Dataset:
    """The data set of a file; says what was guessed and left out, unless quiet."""
    dataset = load(path, skip_bad_rows=skip, **columns, **settings)
    if not quiet:
        for line in dataset.report.lines():
            console.say(line)
    return dataset


def _within(method: str, minutes: float | None, training: Mapping[str, Any]) -> dict[str, Any]:
    """What ``auto`` is told on the command line."""
    if method != AUTO:
        if minutes is not None:
            raise SpecError(f"--minutes is for --method auto; {method} takes --epochs")
        return {}
    if training:
        raise SpecError(f"auto chooses {' and '.join(training)} itself: leave --{' and --'.join(training)} out")
    return {} if minutes is None else {"minutes": minutes}


def _told(model: Classifier) -> list[str]:
    """What ``auto`` tried, and why it chose what it chose."""
    if model.chosen_ is None:
        return []
    lines = [
        f"  {tried.recipe.name:<22} macro-F1 {np.mean(tried.scores):.3f} by cross-validation, {tried.seconds:.0f} s"
        for tried in model.chosen_.tried
        if tried.scores
    ]
    tried = ["Tried:", *lines] if lines else []
    return [*tried, f"Chose {model.recipe_}: {model.chosen_.reason}."]


def drawn(dataset: Dataset, labels_at: int | None, seed: int) -> np.ndarray:
    """Rows with a label: all, or so many at random."""
    known = dataset.labelled_positions()
    if labels_at is None:
        return known
    if not 2 <= labels_at <= len(known):
        raise SpecError(f"--labels-at must be 2 to {len(known)} (the labelled rows), got {labels_at}")
    return np.sort(stream(seed, "labels-at").choice(known, size=labels_at, replace=False))


def _precision(name: str) -> Precision:
    if name not in ("auto", "fp32", "bf16"):
        raise UnknownName("precision", name, ("auto", "fp32", "bf16"))
    return name  # type: ignore[return-value]


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """``rank=4`` -> ``{"rank": 4}``; values are JSON where they can be, else text."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SpecError(f"--set takes name=value, such as rank=4; got {pair!r}")
        if name == "name":
            raise SpecError("--set takes options alone: choose the method with --method, the strategy with --strategy")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _check_format(out: Path) -> None:
    if out.suffix not in FORMATS:
        raise SpecError(f"--out must end in {', '.join(FORMATS)}, got {str(out)!r}")


def _write(columns: Mapping[str, Sequence[Any]], out: Path) -> None:
    if out.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic_write(out, "wb") as file:
            pq.write_table(pa.table(dict(columns)), file)
        return
    names = list(columns)
    with atomic_write(out) as file:
        rows = zip(*columns.values(), strict=True)
        if out.suffix == ".csv":
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(rows)
        else:
            for row in rows:
                file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
