"""A study as its TOML file says it, and the trials that it spans."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from modicum.analysis.claims import Claim
from modicum.base.errors import SpecError, UnknownName, did_you_mean
from modicum.base.spec import Choice, Record, digest
from modicum.base.training import Pretraining, Training
from modicum.base.types import Task
from modicum.loop.learner import Pace
from modicum.loop.stopping import Stopping


class Data(Record):
    """Where texts and labels come from.

    train: a file, or the name of a data set that comes with Modicum (``helpdesk``). test: a file; without one,
    ``test_share`` of train is held out (stratified, the same for every trial). text, pair, label, id: column names,
    guessed where absent. where: a column of ``train`` and the value that rows must have there, ``{split = "train"}``.
    metric: this set's own main one, where data sets are judged by different ones. class_shares: classes to be made
    rare, ``{spam = 0.05}``: rows of theirs are left out at random, in train and test, until they have these shares.
    train_rows, test_rows: of what there is then, so many random rows at most, the same ones always.
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
    where: dict[str, str] = Field(default={}, max_length=1)
    skip_bad_rows: bool = False
    test_share: float = Field(default=0.2, gt=0, lt=1)
    class_shares: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    train_rows: int | None = Field(default=None, ge=1)
    test_rows: int | None = Field(default=None, ge=1)
    metric: str | None = None

    @property
    def title(self) -> str:
        """The data set's name in reports."""
        return self.name or Path(self.train).stem

    @property
    def portable(self) -> Data:
        """The same with its files named as on any machine: by their last folder and their name."""
        return self.model_copy(update={"train": _short(self.train), "test": self.test and _short(self.test)})


class BackboneSettings(Record):
    """name: ``minilm``, a folder or a hub name. Texts are cut to ``max_length`` tokens."""

    name: str = "minilm"
    pooling: Literal["auto", "mean", "first", "pooler"] = "auto"
    max_length: int = Field(default=256, ge=8)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Loop(Record):
    """How labels are asked for, and by which strategy before there is a model. noise: share of wrong answers.

    shares: the shares of the training set that are to be labelled, round by round, in place of ``warm_start``,
    ``batch`` and ``budget``.
    """

    warm_start: int = Field(default=100, ge=2)
    batch: int = Field(default=50, ge=1)
    budget: int = Field(default=300, ge=2)
    warm_strategy: str | Choice = "random"
    seconds: float | None = Field(default=None, gt=0)
    plateau: float | None = Field(default=None, gt=0, le=1)
    patience: int = Field(default=2, ge=1)
    noise: float = Field(default=0.0, ge=0, le=1)
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()

    @field_validator("warm_strategy", mode="before")
    @classmethod
    def _named(cls, value: Any) -> str | Choice:
        # a bare name stays one: it is part of a trial's key
        return value if isinstance(value, str) else Choice.restored(value, "warm_strategy")

    @field_validator("shares")
    @classmethod
    def _rise(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(a >= b for a, b in pairwise(shares)):
            raise ValueError("shares must rise, such as [0.1, 0.3, 1.0]")
        return shares

    def schedule(self, n: int) -> tuple[int, ...]:
        """Labels after each round on a training set of n, at most: whatever the rules but the budget say."""
        if self.shares:
            return tuple(dict.fromkeys(max(2, round(share * n)) for share in self.shares))
        last = min(self.budget, n)
        return (*range(self.warm_start, last, self.batch), last)

    def pace(self, n: int) -> Pace:
        """The pace on a training set of n."""
        schedule = self.schedule(n) if self.shares else ()
        return Pace(warm_start=self.warm_start, batch=self.batch, schedule=schedule)

    def stopping(self, n: int) -> Stopping:
        """What ends the loop on a training set of n."""
        budget = self.schedule(n)[-1] if self.shares else self.budget
        return Stopping(budget=budget, seconds=self.seconds, plateau=self.plateau, patience=self.patience)


class Study(Record):
    """The whole file: a grid of data × methods × pretraining × strategies × seeds under one loop and training.

    tapt: task-adaptive pretraining before every run, of each kind once; None is without. trainings: one for each
    combination of the lists in ``[training]`` (seconds, objectives, …), each a trial of its own. parts: grids that
    make up the study in place of one, each with what it does not say taken from the whole; their ``name`` goes after
    the methods' in the report, where parts differ in what the report does not show otherwise. claims: statements that
    the report judges.

    metric: the main one in the report; macro_f1 for classes, pearson for values. Where data sets have different ones
    the report is about their ``score``, each set's own. keep_dynamics: store per-example
    training dynamics beside the database, as ``arrays/<trial>/<round>-correct.npy`` and ``-confidence.npy``: a row an
    epoch, and a column a label, in the order in which labels arrived. layer_similarity: compare every layer with the
    pretrained model's (linear CKA) on so many test texts, after every round.
    """

    title: str = "Study"
    data: tuple[Data, ...] = Field(min_length=1)
    methods: tuple[Choice, ...] = Field(min_length=1)
    strategies: tuple[Choice, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    backbone: BackboneSettings = BackboneSettings()
    loop: Loop = Loop()
    trainings: tuple[Training, ...] = Field(default=(Training(),), min_length=1)
    metric: str | None = None
    keep_dynamics: bool = False
    layer_similarity: int = Field(default=0, ge=0)
    tapt: tuple[Pretraining | None, ...] = Field(default=(None,), min_length=1)
    claims: tuple[Claim, ...] = ()
    name: str = ""
    parts: tuple[Study, ...] = ()

    @field_validator("layer_similarity")
    @classmethod
    def _enough(cls, texts: int) -> int:
        if 0 < texts < 4:
            raise ValueError("CKA needs 4 texts or more, and 0 leaves it out")
        return texts

    @property
    def portable(self) -> Study:
        """The same with its data named as on any machine: what a report and a store may tell."""
        named = {"data": tuple(d.portable for d in self.data), "parts": tuple(part.portable for part in self.parts)}
        return self.model_copy(update=named)

    @property
    def grids(self) -> tuple[Study, ...]:
        """The parts, or the whole where there are none."""
        return self.parts or (self,)


OF_THE_WHOLE = {"title", "backbone", "metric", "keep_dynamics", "layer_similarity", "claims"}
"""Settings that parts cannot have of their own."""


class Trial(Record):
    """What decides one trial's result. Data and backbone are named by what they contain, not by where they lie.

    part: the name of the part that it belongs to, which decides nothing.
    """

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
    tapt: Pretraining | None = None
    seed: int
    part: str = ""

    @property
    def label(self) -> str:
        """The method with its settings, its pretraining, its recipe and its part."""
        return self.titled(self.method.label)

    def titled(self, method: str) -> str:
        """As ``label``, with another name for the method."""
        more = [self.tapt.objective] if self.tapt else []
        more += [self.training.recipe] if self.training.recipe else []
        return " + ".join([method, *more]) + (f", {self.part}" if self.part else "")

    def key(self) -> str:
        """The trial's identity: the same settings give the same key, on any machine."""
        return digest(self.model_dump(mode="json", exclude={"dataset", "backbone", "part"}))


def read_study(path: str | Path, data_dir: Path | None = None, profile: str | None = None) -> Study:
    """Read a study file; relative data paths are taken from ``data_dir``, by default the file's own folder.

    profile: the name of a ``[profiles.NAME]`` section, whose settings go over those of the file.

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
    return parse_study(raw, path.parent if data_dir is None else data_dir, profile)


def parse_study(raw: dict[str, Any], folder: Path = Path(), profile: str | None = None) -> Study:
    """A study from the values of its file; relative data paths are taken from ``folder``."""
    fields = dict(raw)
    profiles = fields.pop("profiles", {})
    if profile is not None:
        if not isinstance(profiles, dict) or profile not in profiles:
            raise UnknownName("profile", profile, profiles if isinstance(profiles, dict) else ())
        if not isinstance(profiles[profile], dict):
            raise SpecError(f"a profile is a [profiles.{profile}] section of settings, got {profiles[profile]!r}")
        fields = _over(fields, _with_data(profiles[profile], fields))
    parts = fields.pop("parts", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise SpecError("parts of a study are [[parts]] sections")
    if not parts:
        return _grid(fields, folder)
    common = {name: value for name, value in fields.items() if name not in OF_THE_WHOLE or name == "backbone"}
    for name in OF_THE_WHOLE:
        if any(name in part for part in parts):
            raise SpecError(f"{name} is the same for all parts of a study: set it outside [[parts]]")
    grids = [_grid(_over(common, _with_data(part, common)), folder) for part in parts]
    joined = {name: _distinct(grids, name) for name in ("data", "seeds", "methods", "strategies")}
    kept = {name: fields[name] for name in OF_THE_WHOLE - {"backbone", "claims"} if name in fields}
    study = Study(**kept, **joined, backbone=grids[0].backbone, claims=_claims(fields), parts=grids)
    _check_titles(study)
    return study


def _grid(raw: dict[str, Any], folder: Path) -> Study:
    """One grid, all in one."""
    fields = dict(raw)
    valid = ["training" if name == "trainings" else name for name in Study.model_fields]
    for name in fields.keys() - set(valid):
        raise SpecError(
            f"Study: unknown setting {name!r}{did_you_mean(name, valid)}; valid settings: {', '.join(valid)}"
        )
    data = fields.get("data")
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list) or not data or not all(isinstance(d, dict) for d in data):
        raise SpecError('a study needs at least one [[data]] section with train = "FILE" (or train = "helpdesk")')
    fields["data"] = [_located(Data(**d), folder) for d in data]
    for name in ("methods", "strategies"):
        fields[name] = [Choice.of(c, f"an entry of {name}") for c in _list(fields.get(name, []))]
    seeds = fields.get("seeds", 5)
    if isinstance(seeds, bool) or not isinstance(seeds, int | list) or (isinstance(seeds, int) and seeds < 1):
        raise SpecError(f"seeds must be a count (at least 1) or a list of whole numbers, got {seeds!r}")
    fields["seeds"] = list(range(seeds)) if isinstance(seeds, int) else seeds
    fields["tapt"] = [Pretraining.of(value) for value in _list(fields.get("tapt", False))]
    fields["claims"] = _claims(fields)
    fields["trainings"] = _trainings(fields.pop("training", {}))
    for name in ("methods", "strategies", "seeds", "tapt"):
        _all_differ(name, fields.get(name, []))
    for name, record in (("backbone", BackboneSettings), ("loop", Loop)):
        if isinstance(fields.get(name), dict):
            fields[name] = record(**fields[name])
    study = Study(**fields)
    _check_titles(study)
    return study


def _trainings(raw: Any) -> list[Training]:
    """One for each combination of the settings that are lists."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"[training] is a section of settings, got {raw!r}")
    lists = {name: values for name, values in raw.items() if isinstance(values, list)}
    for name, values in lists.items():
        if not values:
            raise SpecError(f"{name} in [training] is an empty list: give values, or leave it out")
        _all_differ(name, values)
    return [Training(**raw | dict(zip(lists, values, strict=True))) for values in product(*lists.values())]


def _check_titles(study: Study) -> None:
    titles = [d.title for d in study.data]
    if len(set(titles)) != len(titles):
        raise SpecError(f'data sets need different names, got {", ".join(titles)}: give each a name = "..."')


def _distinct(grids: list[Study], name: str) -> list[Any]:
    every = [value for grid in grids for value in getattr(grid, name)]
    return [value for i, value in enumerate(every) if value not in every[:i]]


def _all_differ(name: str, values: Any) -> None:
    shown = [value.objective if isinstance(value, Pretraining) else value for value in _list(values)]
    twice = next((value for i, value in enumerate(shown) if value in shown[:i]), None)
    if twice is not None:
        said = twice.label if isinstance(twice, Choice) else twice
        raise SpecError(f"{name} must differ from each other; {said} stands there twice")


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings over others, section by section."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _over(merged[name], value) if both else value
    return merged


def _with_data(part: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """A part, or a profile, whose data are named gets those sections of the whole."""
    named = part.get("data")
    if named is None or not all(isinstance(name, str) for name in _list(named)):
        return part
    known = {Data(**d).title: d for d in _list(common.get("data", [])) if isinstance(d, dict)}
    for name in _list(named):
        if name not in known:
            raise UnknownName("data set", name, known)
    return part | {"data": [known[name] for name in _list(named)]}


def _claims(fields: dict[str, Any]) -> list[Claim]:
    return [Claim(**claim) if isinstance(claim, dict) else claim for claim in _list(fields.get("claims", []))]


def _located(data: Data, folder: Path) -> Data:
    def locate(name: str | None) -> str | None:
        if name is None or ":" in name or Path(name).is_absolute() or not Path(name).suffix:
            return name
        return str(folder / name)

    return data.model_copy(update={"train": locate(data.train), "test": locate(data.test)})


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:]) if Path(file).is_absolute() else file


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
