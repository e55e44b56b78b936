"""A study as its TOML file says it, and the trials that it spans."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from modicum.base.errors import SpecError
from modicum.base.spec import Record, digest
from modicum.base.training import Training
from modicum.base.types import Task
from modicum.loop.learner import Pace
from modicum.loop.stopping import Stopping


class Data(Record):
    """Where texts and labels come from.

    train: a file, or the name of a data set that comes with Modicum (``helpdesk``). test: a file; without one,
    ``test_share`` of train is held out (stratified, the same for every trial). text, pair, label, id: column names,
    guessed where absent.
    """

    name: str = ""
    train: str
    test: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    id: str | None = None
    task: Task | None = None
    classes: tuple[str, ...] | None = None
    skip_bad_rows: bool = False
    test_share: float = Field(default=0.2, gt=0, lt=1)

    @property
    def title(self) -> str:
        """The data set's name in reports."""
        return self.name or Path(self.train).stem


class BackboneSettings(Record):
    """name: ``minilm``, a folder or a hub name. Texts are cut to ``max_length`` tokens."""

    name: str = "minilm"
    pooling: Literal["auto", "mean", "first", "pooler"] = "auto"
    max_length: int = Field(default=256, ge=8)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Choice(Record):
    """A plug-in by name, with its options."""

    name: str
    options: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """``lora`` or ``lora(rank=4)``."""
        inner = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({inner})" if inner else self.name


class Loop(Record):
    """How labels are asked for, and by which strategy before there is a model. noise: share of wrong answers."""

    warm_start: int = Field(default=100, ge=2)
    batch: int = Field(default=50, ge=1)
    budget: int = Field(default=300, ge=2)
    warm_strategy: str = "random"
    seconds: float | None = Field(default=None, gt=0)
    plateau: float | None = Field(default=None, gt=0, le=1)
    patience: int = Field(default=2, ge=1)
    noise: float = Field(default=0.0, ge=0, le=1)

    @property
    def pace(self) -> Pace:
        return Pace(warm_start=self.warm_start, batch=self.batch)

    @property
    def stopping(self) -> Stopping:
        return Stopping(budget=self.budget, seconds=self.seconds, plateau=self.plateau, patience=self.patience)


class Study(Record):
    """The whole file: a grid of data × methods × strategies × seeds under one loop and training.

    metric: the main one in the report; macro_f1 for classes, pearson for values. keep_dynamics: store per-example
    training dynamics beside the database, as ``arrays/<trial>/<round>-correct.npy`` and ``-confidence.npy``: a row an
    epoch, and a column a label, in the order in which labels arrived.
    """

    title: str = "Study"
    data: tuple[Data, ...] = Field(min_length=1)
    methods: tuple[Choice, ...] = Field(min_length=1)
    strategies: tuple[Choice, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    backbone: BackboneSettings = BackboneSettings()
    loop: Loop = Loop()
    training: Training = Training()
    metric: str | None = None
    keep_dynamics: bool = False


class Trial(Record):
    """What decides one trial's result. Data and backbone are named by what they contain, not by where they lie."""

    dataset: str
    fingerprint: str
    test_fingerprint: str
    backbone: str
    backbone_fingerprint: str
    pooling: str
    max_length: int
    precision: str
    method: Choice
    method_settings: str
    strategy: Choice
    strategy_settings: str
    loop: Loop
    training: Training
    seed: int

    def key(self) -> str:
        """The trial's identity: the same settings give the same key, on any machine."""
        return digest(self.model_dump(mode="json", exclude={"dataset", "backbone"}))


def read_study(path: str | Path, data_dir: Path | None = None) -> Study:
    """Read a study file; relative data paths are taken from ``data_dir``, by default the file's own folder.

    Raises:
        SpecError: the file is missing, is no TOML, or has unknown, missing or wrong settings.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"study file {str(path)!r} does not exist") from None
    except IsADirectoryError:
        raise SpecError(f"a study is a TOML file, and {str(path)!r} is a folder") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"study file {str(path)!r} is not valid TOML: {error}") from None
    return parse_study(raw, path.parent if data_dir is None else data_dir)


def parse_study(raw: dict[str, Any], folder: Path = Path()) -> Study:
    """A study from the values of its file; relative data paths are taken from ``folder``."""
    fields = dict(raw)
    data = fields.get("data")
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list) or not data or not all(isinstance(d, dict) for d in data):
        raise SpecError('a study needs at least one [[data]] section with train = "FILE" (or train = "helpdesk")')
    fields["data"] = [_located(Data(**d), folder) for d in data]
    for name in ("methods", "strategies"):
        fields[name] = [as_choice(c, name) for c in _list(fields.get(name, []))]
    seeds = fields.get("seeds", 5)
    if isinstance(seeds, bool) or not isinstance(seeds, int | list) or (isinstance(seeds, int) and seeds < 1):
        raise SpecError(f"seeds must be a count (at least 1) or a list of whole numbers, got {seeds!r}")
    fields["seeds"] = list(range(seeds)) if isinstance(seeds, int) else seeds
    for name in ("methods", "strategies", "seeds"):
        twice = [value for i, value in enumerate(fields[name]) if value in fields[name][:i]]
        if twice:
            shown = twice[0].label if isinstance(twice[0], Choice) else twice[0]
            raise SpecError(f"{name} must differ from each other; {shown} stands there twice")
    for name, record in (("backbone", BackboneSettings), ("loop", Loop), ("training", Training)):
        if isinstance(fields.get(name), dict):
            fields[name] = record(**fields[name])
    study = Study(**fields)
    titles = [d.title for d in study.data]
    if len(set(titles)) != len(titles):
        raise SpecError(f'data sets need different names, got {", ".join(titles)}: give each a name = "..."')
    return study


def _located(data: Data, folder: Path) -> Data:
    def locate(name: str | None) -> str | None:
        if name is None or ":" in name or Path(name).is_absolute() or not Path(name).suffix:
            return name
        return str(folder / name)

    return data.model_copy(update={"train": locate(data.train), "test": locate(data.test)})


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def as_choice(value: Any, where: str) -> Choice:
    if isinstance(value, str):
        return Choice(name=value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return Choice(name=value["name"], options={k: v for k, v in value.items() if k != "name"})
    raise SpecError(
        f'an entry of {where} is a name such as "lora" or a table such as {{name = "lora", rank = 4}}, got {value!r}'
    )
