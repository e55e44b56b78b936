"""``peft:<TYPE>``: tuners of Hugging Face PEFT inside Modicum's training loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftType

from modicum.base.errors import SpecError, UnknownName
from modicum.base.training import Training
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.methods.peft import UNSUITED
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import jobs_of

BACKBONE = fake_backbone()
SMALL: dict[str, dict[str, object]] = {  # defaults that are too large for maps of 16 x 16
    "boft": {"boft_block_size": 4},
    "fourierft": {"n_frequency": 32},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 4},
    "psoft": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "waveft": {"n_frequency": 32},
}
WORKING = sorted(t.value.lower() for t in PeftType if t.value.lower() not in UNSUITED)


def fitted(name: str, steps: int = 3) -> tuple[Engine, object]:
    data = toy_dataset(24)
    method = METHODS.create(f"peft:{name}", **SMALL.get(name, {}))
    engine = Engine(BACKBONE, Corpus(BACKBONE, data), method, Training(steps=steps, batch_size=8), data.task, 3)
    return engine, engine.fit(jobs_of(data, [24]))[0]


@pytest.mark.parametrize("name", WORKING)
def test_every_suited_tuner_trains_and_reloads(name: str) -> None:
    before = {key: t.clone() for key, t in BACKBONE.model.state_dict().items()}
    state = torch.get_rng_state()
    engine, model = fitted(name)
    assert torch.equal(torch.get_rng_state(), state), "PEFT's draws must not touch the global generator"
    assert all(torch.equal(before[key], t) for key, t in BACKBONE.model.state_dict().items())
    assert model.parameters > 51, "more than the head must be trained"
    where = np.arange(6)
    first = engine.scorer(model.weights).outputs(where)
    np.testing.assert_array_equal(first, engine.scorer(model.weights).outputs(where))
    assert np.isfinite(first).all()


def test_lora_through_peft_learns() -> None:
    _, start = fitted("lora", steps=3)
    _, model = fitted("lora", steps=60)
    assert model.loss < 0.8 * start.loss


@pytest.mark.parametrize("name", sorted(UNSUITED))
def test_unsuited_tuners_say_why(name: str) -> None:
    with pytest.raises(SpecError, match=f"peft:{name} does not work on a text classifier: it "):
        METHODS.create(f"peft:{name}")


def test_a_start_that_rewrites_the_backbone_is_refused() -> None:
    before = {key: t.clone() for key, t in BACKBONE.model.state_dict().items()}
    with pytest.raises(SpecError, match="rewrites the frozen .*choose another start"):
        METHODS.create("peft:lora", init_lora_weights="pissa").build_on(BACKBONE, [np.random.default_rng(0)])
    assert all(torch.equal(before[key], t) for key, t in BACKBONE.model.state_dict().items())


def test_the_tuners_own_dropout_counts() -> None:
    data = toy_dataset(24)
    found = []
    for rate in (0.0, 0.5):
        method = METHODS.create("peft:lora", lora_dropout=rate)
        engine = Engine(BACKBONE, Corpus(BACKBONE, data), method, Training(steps=6, batch_size=8), data.task, 3)
        found.append(engine.fit(jobs_of(data, [24]))[0].loss)
    assert found[0] != found[1]


def test_unknown_tuners_and_settings_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown PEFT tuner 'lohaa' .*did you mean 'loha'"):
        METHODS.create("peft:lohaa")
    with pytest.raises(UnknownName, match="unknown setting of peft:lora 'rr'"):
        METHODS.create("peft:lora", rr=3).build_on(BACKBONE, [np.random.default_rng(0)])
