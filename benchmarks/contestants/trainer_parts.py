"""Hugging Face's Trainer and PEFT, put together as the contestants need them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from common import model_folder
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

logging.disable_progress_bar()
CPU = not torch.cuda.is_available()
TOKENIZER = AutoTokenizer.from_pretrained(model_folder())


def encoded(texts: list[str], max_length: int, labels: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Tokens of all texts, not padded. A plain list: reading it costs less than reading a ``datasets.Dataset``."""
    found = TOKENIZER(texts, truncation=True, max_length=max_length)
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in found["input_ids"]]
    return rows if labels is None else [row | {"labels": int(y)} for row, y in zip(rows, labels, strict=True)]


def lengths_of(rows: list[dict[str, Any]]) -> np.ndarray:
    """(n,) tokens."""
    return np.array([len(row["input_ids"]) for row in rows])


def base(classes: int, attention: str, dtype: torch.dtype) -> Any:
    """The encoder with a classification head, frozen weights in ``dtype``."""
    return AutoModelForSequenceClassification.from_pretrained(
        model_folder(), num_labels=classes, attn_implementation=attention, dtype=dtype
    )


def with_lora(model: Any, *, seed: int, random: bool = False) -> Any:
    """A copy of a model with LoRA (r = 8, alpha = 8) on all linear maps; what is trained is fp32.

    random: B is not zero, as if it were trained.
    """
    set_seed(seed)
    model = copy.deepcopy(model)
    torch.nn.init.normal_(model.classifier.weight, std=0.02)
    config = LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=not random
    )
    made = get_peft_model(model, config)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return made


def trainer(model: Any, train: list[dict[str, Any]] | None = None, **options: Any) -> Trainer:
    """A Trainer with dynamic padding that writes, logs and reports nothing."""
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    arguments = TrainingArguments("trainer", use_cpu=CPU, dataloader_pin_memory=not CPU, **quiet, **options)
    collator = DataCollatorWithPadding(TOKENIZER)
    made = Trainer(model, arguments, train_dataset=train, processing_class=TOKENIZER, data_collator=collator)
    made.pop_callback(PrinterCallback)
    return made


def training(epochs: int, batch: int, learning_rate: float, seed: int) -> dict[str, Any]:
    """Options of a training in bf16 with batches of like lengths, on Modicum's schedule."""
    schedule = {"warmup_steps": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0, "seed": seed}
    return schedule | {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch,
        "learning_rate": learning_rate,
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
    }


def merged(model: Any) -> Any:
    """The model with its adapters merged, and the attention that is faster in scoring."""
    plain = model.merge_and_unload()
    plain.set_attn_implementation("sdpa")
    return plain


def probabilities(model: Any, rows: list[dict[str, Any]], batch: int = 64) -> np.ndarray:
    """(n, classes) in the order of the rows, by ``Trainer.predict`` in bf16, shortest texts first."""
    order = np.argsort(lengths_of(rows), kind="stable")
    predictor = trainer(model, per_device_eval_batch_size=batch, bf16_full_eval=True)
    logits = predictor.predict([{k: v for k, v in rows[i].items() if k != "labels"} for i in order]).predictions
    found = np.empty(logits.shape, dtype=np.float32)
    found[order] = torch.from_numpy(logits).float().softmax(1).numpy()
    return found
