"""Modicum from Python: ``Classifier`` and ``ActiveLearner``."""
