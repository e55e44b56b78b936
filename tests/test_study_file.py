"""Study files: what they may say, what it comes to, and what a user is told about every wrong setting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from modicum.base.errors import SpecError
from modicum.strategies import STRATEGIES, make_warm
from modicum.study.spec import Choice, Loop, Study, Trial, parse_study, read_study

LEAST: dict[str, Any] = {"data": {"train": "helpdesk"}, "methods": ["lora"], "strategies": ["random"], "seeds": 2}

FILE = """
title = "All there is"
methods = ["lora", { name = "lora", rank = 2 }, "head"]
strategies = ["random", { name = "subsample:entropy", size = 500 }]
seeds = [3, 1]
metric = "accuracy"
keep_dynamics = true

[[data]]
train = "texts/train.csv"
test = "texts/test.csv"
label = "topic"
classes = ["no", "yes"]

[[data]]
name = "mine"
train = "helpdesk"
test_share = 0.5

[backbone]
name = "models/tiny"
pooling = "mean"
max_length = 64
precision = "fp32"

[loop]
warm_start = 20
batch = 10
budget = 60
warm_strategy = "kmeans"
plateau = 0.99
patience = 3
noise = 0.1

[training]
epochs = 3
balanced = true
"""


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(FILE, encoding="utf-8")
    study = read_study(tmp_path / "study.toml")
    assert [m.label for m in study.methods] == ["lora", "lora(rank=2)", "head"]
    assert [s.label for s in study.strategies] == ["random", "subsample:entropy(size=500)"]
    assert study.seeds == (3, 1) and study.metric == "accuracy" and study.keep_dynamics
    assert [d.title for d in study.data] == ["train", "mine"]
    assert study.data[0].train == str(tmp_path / "texts/train.csv") and study.data[0].classes == ("no", "yes")
    assert study.data[0].test == str(tmp_path / "texts/test.csv")
    assert study.data[1].train == "helpdesk" and study.data[1].test is None
    assert (study.backbone.name, study.backbone.max_length) == ("models/tiny", 64)
    assert (study.loop.pace(99).warm_start, study.loop.pace(99).batch) == (20, 10)
    assert study.loop.stopping(99).model_dump() == {"budget": 60, "seconds": None, "plateau": 0.99, "patience": 3}
    assert (study.trainings[0].epochs, study.trainings[0].balanced, study.trainings[0].batch_size) == (3, True, 32)


def test_a_warm_strategy_may_have_options() -> None:
    loop = parse_study(LEAST | {"loop": {"warm_strategy": {"name": "subsample:typiclust", "size": 30}}}).loop
    assert Loop.model_validate_json(loop.model_dump_json()) == loop
    assert make_warm(loop.warm_strategy) == STRATEGIES.create("subsample:typiclust", size=30)
    # a bare name stays one, so that trials keep the keys that they have had
    assert parse_study(LEAST | {"loop": {"warm_strategy": "kmeans"}}).loop.model_dump()["warm_strategy"] == "kmeans"
    with pytest.raises(SpecError, match="warm_strategy is a name such as"):
        parse_study(LEAST | {"loop": {"warm_strategy": 3}})


def test_the_least_file() -> None:
    study = parse_study(LEAST)
    assert study.seeds == (0, 1) and study.loop == Loop() and study.data[0].title == "helpdesk"
    assert parse_study({k: v for k, v in LEAST.items() if k != "seeds"}).seeds == (0, 1, 2, 3, 4)
    assert parse_study({**LEAST, "methods": "lora", "strategies": "random"}) == study


def test_a_study_survives_json() -> None:
    study = parse_study({**LEAST, "methods": [{"name": "lora", "rank": 2}], "loop": {"plateau": 0.9}})
    assert Study.model_validate_json(study.canonical()) == study


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train.csv", "there/train.csv"),
        ("deep/train.parquet", "there/deep/train.parquet"),
        ("/data/train.csv", "/data/train.csv"),
        ("helpdesk", "helpdesk"),
        ("hub:SetFit/trec.v2", "hub:SetFit/trec.v2"),
    ],
)
def test_data_lie_beside_the_study_file(name: str, found: str) -> None:
    study = parse_study({**LEAST, "data": [{"name": "d", "train": name, "test": name}]}, Path("there"))
    assert (study.data[0].train, study.data[0].test) == (found, found)


# ---- wrong settings --------------------------------------------------------------------------------------------------

DATA = {"train": "a.csv"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"titel": "x"}, r"Study: unknown setting 'titel' \(did you mean 'title'\?\); valid settings: title, data"),
    ({"method": "lora"}, r"unknown setting 'method' \(did you mean 'methods'\?\)"),
    ({"trainings": [{"epochs": 3}]}, r"unknown setting 'trainings' \(did you mean 'training'\?\)"),
    ({"metric": 3}, r"Study: setting 'metric': Input should be a valid string \(got 3\)"),
    ({"title": 3}, "Study: setting 'title': Input should be a valid string"),
    ({"keep_dynamics": "perhaps"}, "Study: setting 'keep_dynamics': Input should be a valid boolean"),
    # data
    ({"data": None}, r'a study needs at least one \[\[data\]\] section with train = "FILE" .or train = "helpdesk"'),
    ({"data": []}, "a study needs at least one"),
    ({"data": "helpdesk"}, "a study needs at least one"),
    ({"data": ["a.csv"]}, "a study needs at least one"),
    ({"data": {}}, "Data: setting 'train' is missing"),
    ({"data": {"train": 3}}, "Data: setting 'train': Input should be a valid string"),
    ({"data": {**DATA, "labels": "y"}}, r"Data: unknown setting 'labels' \(did you mean 'label'\?\)"),
    ({"data": {**DATA, "test_share": 1.0}}, "Data: setting 'test_share': Input should be less than 1"),
    ({"data": {**DATA, "test_share": 0}}, "Data: setting 'test_share': Input should be greater than 0"),
    ({"data": {**DATA, "test_share": math.nan}}, "Data: setting 'test_share': Input should be a finite number"),
    ({"data": {**DATA, "task": "ranking"}}, "Data: setting 'task': Input should be 'classification' or 'regression'"),
    ({"data": {**DATA, "classes": "ab"}}, "Data: setting 'classes': Input should be a valid tuple"),
    ({"data": {**DATA, "skip_bad_rows": "some"}}, "Data: setting 'skip_bad_rows': Input should be a valid boolean"),
    ({"data": [DATA, DATA]}, r'data sets need different names, got a, a: give each a name = "..."'),
    ({"data": [DATA, {"train": "b/a.jsonl"}]}, "data sets need different names"),
    # methods and strategies
    ({"methods": []}, "Study: setting 'methods': Tuple should have at least 1 item"),
    ({"strategies": []}, "Study: setting 'strategies': Tuple should have at least 1 item"),
    ({"methods": [3]}, r'an entry of methods is a name such as "lora" or a table such as \{name = .*, got 3'),
    ({"methods": [{"rank": 4}]}, r"an entry of methods .* got \{'rank': 4\}"),
    ({"strategies": [{"name": 4}]}, r"an entry of strategies .* got \{'name': 4\}"),
    ({"methods": ["lora", "head", "lora"]}, "methods must differ from each other; lora stands there twice"),
    (
        {"strategies": [{"name": "bald", "passes": 4}, {"passes": 4, "name": "bald"}]},
        r"strategies must differ from each other; bald\(passes=4\) stands there twice",
    ),
    # seeds
    ({"seeds": 0}, r"seeds must be a count \(at least 1\) or a list of whole numbers, got 0"),
    ({"seeds": True}, "seeds must be a count .* got True"),
    ({"seeds": 2.5}, "seeds must be a count .* got 2.5"),
    ({"seeds": "many"}, "seeds must be a count .* got 'many'"),
    ({"seeds": []}, "Study: setting 'seeds': Tuple should have at least 1 item"),
    ({"seeds": [1, 2, 1]}, "seeds must differ from each other; 1 stands there twice"),
    ({"seeds": [1.5]}, r"Study: setting 'seeds.0': Input should be a valid integer.*\(got 1.5\)$"),
    ({"seeds": [0, -1]}, r"Study: setting 'seeds.1': Input should be greater than or equal to 0 \(got -1\)$"),
    ({"seeds": [math.nan]}, r"Study: setting 'seeds.0': Input should be a finite number \(got nan\)$"),
    # backbone
    ({"backbone": "minilm"}, "Study: setting 'backbone': Input should be a valid dictionary .*got 'minilm'"),
    ({"backbone": {"pooling": "max"}}, "BackboneSettings: setting 'pooling': Input should be 'auto', 'mean', 'first'"),
    ({"backbone": {"max_length": 7}}, "BackboneSettings: setting 'max_length': .* greater than or equal to 8"),
    ({"backbone": {"precision": "fp16"}}, "setting 'precision': Input should be 'auto', 'fp32' or 'bf16'"),
    ({"backbone": {"nam": "x"}}, r"unknown setting 'nam' \(did you mean 'name'\?\)"),
    # loop
    ({"loop": 3}, "Study: setting 'loop': Input should be a valid dictionary"),
    ({"loop": {"warmstart": 5}}, r"Loop: unknown setting 'warmstart' \(did you mean 'warm_start'\?\)"),
    ({"loop": {"warm_start": 1}}, "Loop: setting 'warm_start': Input should be greater than or equal to 2"),
    ({"loop": {"batch": 0}}, "Loop: setting 'batch': Input should be greater than or equal to 1"),
    ({"loop": {"batch": 2.5}}, "Loop: setting 'batch': Input should be a valid integer"),
    ({"loop": {"budget": 1}}, "Loop: setting 'budget': Input should be greater than or equal to 2"),
    ({"loop": {"seconds": 0}}, "Loop: setting 'seconds': Input should be greater than 0"),
    ({"loop": {"seconds": math.inf}}, "Loop: setting 'seconds': Input should be a finite number"),
    ({"loop": {"plateau": 1.1}}, "Loop: setting 'plateau': Input should be less than or equal to 1"),
    ({"loop": {"patience": 0}}, "Loop: setting 'patience': Input should be greater than or equal to 1"),
    ({"loop": {"noise": 2}}, "Loop: setting 'noise': Input should be less than or equal to 1"),
    (
        {"loop": {"batch": 0, "noise": -1}},
        r"Loop: setting 'batch': .* \(got 0\); setting 'noise': Input should be greater than or equal to 0 \(got -1\)",
    ),
    # training
    ({"training": {"epoch": 1}}, r"Training: unknown setting 'epoch' \(did you mean 'epochs'\?\)"),
    ({"training": {"epochs": 0}}, "Training: setting 'epochs': Input should be greater than or equal to 1"),
    ({"training": {"warmup": 1}}, "Training: setting 'warmup': Input should be less than 1"),
    ({"training": {"clip": 0}}, "Training: setting 'clip': Input should be greater than 0"),
    ({"training": {"seconds": 0}}, "Training: setting 'seconds': Input should be greater than 0"),
    ({"training": {"head_dropout": 1.0}}, "Training: setting 'head_dropout': Input should be less than 1"),
    ({"training": {"learning_rate": 1e-3}}, "Training: unknown setting 'learning_rate'; valid settings: epochs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[str(settings) for settings, _ in WRONG])
def test_every_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_study({**LEAST, **settings})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"study file '.*study.toml' does not exist"):
        read_study(tmp_path / "study.toml")


def test_a_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a study is a TOML file, and '.*' is a folder"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seeds = ", "is not valid TOML: Invalid value .at end of document"),
        (b"seeds = 1\nseeds = 2", "is not valid TOML: Cannot overwrite a value"),
        (b'title = "\xff"', "is not valid TOML: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_what_is_no_toml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "study.toml").write_bytes(content)
    with pytest.raises(SpecError, match=f"study.toml' {message}"):
        read_study(tmp_path / "study.toml")


# ---- identity --------------------------------------------------------------------------------------------------------

TRIAL = Trial(
    dataset="toy", fingerprint="f", test_fingerprint="t", backbone="fake", backbone_fingerprint="b", pooling="mean",
    max_length=64, precision="float32", method=Choice(name="lora", options={"rank": 2, "alpha": 4.0}),
    method_settings="{}", strategy=Choice(name="random"), strategy_settings="{}", loop=Loop(), training={}, seed=0,
)  # fmt: skip
SAME = {
    "dataset": "other name",
    "backbone": "other/place",
    "part": "long",
    "method": {"name": "lora", "options": {"alpha": 4.0, "rank": 2}},
}
OTHER = {
    "fingerprint": "g", "test_fingerprint": "u", "backbone_fingerprint": "c", "pooling": "first", "max_length": 32,
    "precision": "bfloat16", "method": {"name": "head"}, "method_settings": '{"rank":8}', "strategy": {"name": "badge"},
    "strategy_settings": '{"passes":4}', "loop": {"batch": 51}, "training": {"epochs": 16},
    "tapt": {"objective": "mlm"}, "seed": 1,
}  # fmt: skip


def changed(**fields: Any) -> Trial:
    return Trial(**{**TRIAL.model_dump(), **fields})


def test_a_key_names_contents_not_names() -> None:
    assert changed(**SAME).key() == TRIAL.key()
    assert Trial.model_validate_json(TRIAL.canonical()).key() == TRIAL.key()
    assert len(TRIAL.key()) == 20 and set(TRIAL.key()) <= set("0123456789abcdef")


def test_everything_that_decides_a_result_is_in_the_key() -> None:
    assert OTHER.keys() | SAME.keys() == Trial.model_fields.keys()
    keys = {changed(**{name: value}).key() for name, value in OTHER.items()}
    assert len(keys) == len(OTHER) and TRIAL.key() not in keys


def test_keys_do_not_change_with_the_version_of_the_code() -> None:
    # Written down once. If it changes (a new setting with a default does that), existing stores are not found again:
    # say so in the change log, and write the new one down.
    assert TRIAL.key() == "be3f8a6ae0b89adca65d"
