"""One round of active learning by hand: train on 40 labels, let badge choose 20 more, train again."""

import numpy as np

from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.strategies import STRATEGIES
from modicum.strategies.base import View
from modicum.study.prepare import load_data
from modicum.study.spec import Data

train, test = load_data(Data(train="helpdesk"))  # 900 labelled messages, 348 to test on
backbone = Backbone.load("minilm")  # frozen, loaded once
pool, held_out = Corpus(backbone, train), Corpus(backbone, test)
training = Training(epochs=3, min_steps=30)
engine = Engine(backbone, pool, METHODS.create("lora", rank=4), training, train.task, len(train.classes))
strategy = STRATEGIES.create("badge")


def fit(positions: np.ndarray):
    """Train a new model on these examples, and say how good it is."""
    job = FitJob(tuple(train.ids[int(i)] for i in positions), train.labels[positions], seed=0, round=0)
    fitted = engine.fit([job])[0]
    predicted = engine.scorer(fitted.weights, held_out).outputs(np.arange(len(test))).argmax(1)
    print(f"{len(positions)} labels: accuracy {np.mean(predicted == test.labels):.3f}")
    return fitted


labelled = stream(0, "first").choice(len(train), size=40, replace=False)
model = fit(labelled)
candidates = np.setdiff1d(np.arange(len(train)), labelled)
view = View(len(candidates), engine.signals(model.weights, candidates, strategy.needs), n_labelled=len(labelled))
chosen = strategy.select(view, 20, rng=stream(0, "choose")).positions  # positions in the view, not ids
fit(np.concatenate([labelled, candidates[chosen]]))
