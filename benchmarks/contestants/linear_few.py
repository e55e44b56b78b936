"""scikit-learn's logistic regression on few labels: on the frozen encoder's embeddings, or on TF-IDF.

Its penalty is chosen by cross-validation within the labels, with as many folds as the rarest class has labels, at most
five; where that is one, or with ``penalty = "default"``, it is scikit-learn's own. (The embeddings have length one, for
which that is too strong.) Timed: features of the labelled texts, and the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import judged, model_folder, report, settings, stopwatch
from few import work
from sentence_transformers import SentenceTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

PENALTIES = [0.1, 1.0, 10.0, 100.0]
"""Inverse strengths, C."""


def main() -> None:
    told, result = settings(), dict[str, Any]()
    encoder = SentenceTransformer(model_folder())
    encoder.max_seq_length = told["max_length"]  # as all others read
    given, vectorizer = work(told, told["seed"]), TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    with stopwatch(result):
        if told["features"] == "tf-idf":
            vectorizer.fit(given.texts)
        features: Callable[[list[str]], Any] = (
            vectorizer.transform if told["features"] == "tf-idf" else encoder.encode  # type: ignore[assignment]
        )
        model = regression(told["penalty"], given.labels, told["seed"]).fit(features(given.texts), given.labels)
    proba = np.zeros((len(given.truth), given.classes))
    proba[:, model.classes_] = model.predict_proba(features(given.tested))
    report(**result, runs={str(told["seed"]): judged(given.truth, proba)})


def regression(penalty: str, labels: np.ndarray, seed: int) -> Any:
    model, folds = LogisticRegression(max_iter=1000), min(5, int(np.unique(labels, return_counts=True)[1].min()))
    if penalty == "default" or folds < 2:
        return model
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return GridSearchCV(model, {"C": PENALTIES}, cv=parts, scoring="f1_macro")


if __name__ == "__main__":
    main()
