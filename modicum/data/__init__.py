"""Floor 1: texts, labels and ids, read from files; knows nothing of models."""
