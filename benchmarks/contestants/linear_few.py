"""scikit-learn's logistic regression on few labels: on the frozen encoder's embeddings, or on TF-IDF.

Timed: features of the labelled texts, and the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import model_folder, quality, report, settings, stopwatch
from few import work
from sentence_transformers import SentenceTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


def main() -> None:
    told, runs, seconds = settings(), dict[str, dict[str, float]](), []
    encoder = SentenceTransformer(model_folder())
    for seed in told["seeds"]:
        given, result = work(told, seed), dict[str, Any]()
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        with stopwatch(result):
            if told["features"] == "tf-idf":
                vectorizer.fit(given.texts)
            features: Callable[[list[str]], Any] = (
                vectorizer.transform if told["features"] == "tf-idf" else encoder.encode  # type: ignore[assignment]
            )
            model = LogisticRegression(max_iter=1000).fit(features(given.texts), given.labels)
        predicted = np.asarray(model.predict(features(given.tested)))
        runs[str(seed)] = quality(given.truth, predicted)
        seconds.append(result["seconds"])
    report(seconds=float(np.sum(seconds)), runs=runs)


if __name__ == "__main__":
    main()
