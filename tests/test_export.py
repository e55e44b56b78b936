"""What Modicum saves loads in Hugging Face libraries, without Modicum, and gives the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2Model,
)

from modicum.api.classifier import Classifier
from modicum.base.errors import BackboneError, DataError, SpecError
from modicum.engine.backbone import Backbone
from modicum.export.peft import SNIPPET
from modicum.testing.backbone import toy_dataset

QUICK = {"steps": 6, "batch_size": 8}
POOLINGS = ("mean", "first", "pooler")
TEXTS = tiny.sentences([1, 3, 4, 9, 12], seed=9)


def trained(folder: Path, method: object, pooling: str = "mean", architecture: str = "bert") -> Classifier:
    base = tiny.save_tiny(architecture, folder / "base")
    model = Classifier(str(base), method, training=QUICK, pooling=pooling, precision="fp32")
    return model.fit_dataset(toy_dataset(24))


def foreign_logits(model: torch.nn.Module, base: Path, pooling: str) -> np.ndarray:
    batch = AutoTokenizer.from_pretrained(base)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    found: dict[str, torch.Tensor] = {}
    exec(SNIPPET[pooling], {"out": out, "batch": batch}, found)  # the very line that users are shown
    return torch.log_softmax(found["logits"], 1).numpy()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    "method", ["lora", "ia3", "prefix", {"name": "prefix", "hidden": 8}, {"name": "lora", "alpha": 3}]
)
def test_peft_loads_our_checkpoint(tmp_path: Path, method: object, pooling: str) -> None:
    model = trained(tmp_path, method, pooling)
    model.save(tmp_path / "model")
    auto = AutoModelForSequenceClassification if pooling == "pooler" else AutoModelForTokenClassification
    base = auto.from_pretrained(tmp_path / "base", num_labels=3, attn_implementation="eager")
    loaded = PeftModel.from_pretrained(base, tmp_path / "model")
    ours = np.log(model.predict_proba(TEXTS))
    np.testing.assert_allclose(foreign_logits(loaded, tmp_path / "base", pooling), ours, atol=2e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("method", ["bitfit", "lora", "ia3", "full", "head"])
def test_merged_models_are_plain_transformers_models(tmp_path: Path, method: str, pooling: str) -> None:
    model = trained(tmp_path, method, pooling)
    line = model.export(tmp_path / "plain")
    assert line == SNIPPET[pooling]
    auto = AutoModelForSequenceClassification if pooling == "pooler" else AutoModelForTokenClassification
    loaded, info = auto.from_pretrained(tmp_path / "plain", output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.id2label == {0: "class-0", 1: "class-1", 2: "class-2"}
    ours = np.log(model.predict_proba(TEXTS))
    np.testing.assert_allclose(foreign_logits(loaded, tmp_path / "plain", pooling), ours, atol=2e-4)


def test_roberta_counts_positions_its_own_way(tmp_path: Path) -> None:
    model = trained(tmp_path, "lora", "first", "roberta")
    model.save(tmp_path / "model")
    base = AutoModelForTokenClassification.from_pretrained(tmp_path / "base", num_labels=3, attn_implementation="eager")
    loaded = PeftModel.from_pretrained(base, tmp_path / "model")
    ours = np.log(model.predict_proba(TEXTS))
    np.testing.assert_allclose(foreign_logits(loaded, tmp_path / "base", "first"), ours, atol=2e-4)


def test_saving_again_leaves_nothing_of_the_earlier_model(tmp_path: Path) -> None:
    trained(tmp_path, "lora").save(tmp_path / "model")
    assert (tmp_path / "model" / "adapter_config.json").exists()
    trained(tmp_path, "bitfit").save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["modicum.json", "modicum.safetensors"]


def test_what_cannot_be_merged_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"what Houlsby learned cannot be merged .* use the checkpoint itself"):
        trained(tmp_path, "adapter").export(tmp_path / "plain")


@pytest.mark.parametrize(
    "method", ["full", "bitfit", "adapter", "pfeiffer", "unipelt", "head", "peft:loha", "peft:prompt_tuning"]
)
def test_every_method_loads_with_modicum_under_another_seed(tmp_path: Path, method: str) -> None:
    model = trained(tmp_path, method)
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "modicum.json"
    saved = json.loads(path.read_text())
    saved["settings"]["seed"] = 77
    path.write_text(json.dumps(saved))
    loaded = Classifier.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert loaded.n_parameters_ == model.n_parameters_


def test_a_checkpoint_refuses_another_backbone(tmp_path: Path) -> None:
    model = trained(tmp_path, "lora")
    model.save(tmp_path / "model")
    other = tiny.save_tiny("electra", tmp_path / "other")
    path = tmp_path / "model" / "modicum.json"
    path.write_text(path.read_text().replace(str(tmp_path / "base"), str(other)))
    with pytest.raises(SpecError, match="install the same version of the backbone"):
        Classifier.load(tmp_path / "model", precision="fp32")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "modicum.json").unlink(), r"no Modicum model: it must hold modicum\.json"),
        (lambda f: (f / "modicum.safetensors").write_bytes(b"junk"), "damaged Modicum model"),
        (lambda f: (f / "modicum.json").write_text("{"), "damaged Modicum model"),
        (lambda f: (f / "modicum.json").write_text('{"format": 99}'), "has format 99, this Modicum reads format 1"),
    ],
)
def test_damaged_checkpoints_are_told(tmp_path: Path, damage: object, message: str) -> None:
    trained(tmp_path, "head").save(tmp_path / "model")
    damage(tmp_path / "model")  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        Classifier.load(tmp_path / "model")


def test_architectures_with_a_deeper_classifier_keep_to_our_format(tmp_path: Path) -> None:
    model = trained(tmp_path, "lora", "mean", "modernbert")
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    with pytest.raises(SpecError, match="more than a linear map on a modernbert encoder"):
        model.export(tmp_path / "plain")


def test_prefixes_that_peft_cannot_hand_over_are_kept_in_our_format(tmp_path: Path) -> None:
    model = trained(tmp_path, "prefix", "mean", "distilbert")
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    loaded = Classifier.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_a_decoder_is_no_backbone(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=20)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="is a gpt2; an encoder such as BERT is needed"):
        Backbone.load(str(tmp_path), precision="fp32")
