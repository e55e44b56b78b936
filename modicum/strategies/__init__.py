"""Floor 2, east: which examples to label next. No torch here."""

from modicum.base.registry import Registry

STRATEGIES = Registry(
    "strategy",
    "modicum.strategies",
    {
        "random": "modicum.strategies.random:Random",
        "entropy": "modicum.strategies.uncertainty:Entropy",
        "margin": "modicum.strategies.uncertainty:Margin",
        "least-confidence": "modicum.strategies.uncertainty:LeastConfidence",
        "mc-entropy": "modicum.strategies.uncertainty:MCEntropy",
        "bald": "modicum.strategies.uncertainty:BALD",
        "coreset": "modicum.strategies.coreset:CoreSet",
        "dal": "modicum.strategies.discriminative:Discriminative",
        "badge": "modicum.strategies.badge:BADGE",
        "class-balanced": "modicum.strategies.balanced:Balanced",
        "kmeans": "modicum.strategies.clustering:KMeans",
        "typiclust": "modicum.strategies.clustering:TypiClust",
        "zero-shot": "modicum.strategies.zero_shot:ZeroShot",
        "subsample:": "modicum.strategies.subsample:Subsample",
    },
)
