"""How smooth are the labels over a representation? The Besov index, from the wavelets of a random forest.

A forest is fitted to the labels. Each of its nodes below a root is a wavelet: the step from the parent's mean to its
own, on its own region (Elisha & Dekel 2016). Few large wavelets describe labels that lie in clear regions; labels
scattered over the space need very many. The index is the rate alpha at which the error falls with the number M of
wavelets kept, error ~ M^-alpha (Elisha & Dekel 2017): high for a representation that has sorted the classes out.
Jukić & Šnajder (2023, "Smooth Sailing") stop training where its mean over the layers is highest.

For scale: a value that rises steadily along d directions has alpha 1/d in theory, and a Brownian path 1/2. Single trees
on 2,000 examples measure 1.0, 0.44 and 0.29 for d = 1, 2, 3, and 0.48 for the path; the mean of ten trees is smoother
(0.59 for d = 2). Labels that one cut tells apart have about 6, and noise nearly 0 over one feature. Among many features
a forest finds some order in any noise, the more so the fewer the examples (random labels over 384 Gaussian features:
0.1 for 1,000 examples, 0.45 for 50), so compare only indices of the same examples.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from modicum.base.errors import SpecError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

FLOOR = 0.01
"""An error that counts as none, in standard deviations of the targets; one wrong label in 1,000 is well above it."""

EXAMPLES_PER_REGION = 5
"""Fewest examples a region, on average (the node size of Breiman 2001): beyond, a forest learns examples by heart."""

STEPS_PER_DOUBLING = 4
"""Of the number of terms, on the grid that the line is fitted to."""


def besov_index(
    x: ArrayLike, targets: ArrayLike, *, trees: int = 10, depth: int = 9, rng: np.random.Generator
) -> float:
    """The Besov smoothness index alpha of targets over a representation; higher is smoother.

    Minus the slope, by least squares, of the log error against the log number of terms, both as in ``m_term_errors``.
    The last point is the first error of 1 % or less, taken as 1 %: by then the targets are described, and what comes
    after says nothing. So alpha is finite even where a few cuts leave no error at all. It rests on the error itself; a
    line through squared errors has twice the slope.

    Args:
        x, targets, trees, depth, rng: as for ``m_term_errors``.

    Returns:
        NaN for fewer than 10 examples, which leave no range to fit, and for targets that are all the same, such as a
        single class. 0 for a constant representation.

    Raises:
        SpecError: as for ``m_term_errors``.
    """
    terms, errors = m_term_errors(x, targets, trees=trees, depth=depth, rng=rng)
    if terms[-1] < 2 or np.isnan(errors[-1]):
        return float("nan")
    reached = np.flatnonzero(errors <= FLOOR)
    end = int(reached[0]) + 1 if len(reached) else len(errors)
    slope = np.polyfit(np.log(terms[:end]), np.log(np.maximum(errors[:end], FLOOR)), 1)[0]
    return float(-slope)


def m_term_errors(
    x: ArrayLike, targets: ArrayLike, *, trees: int = 10, depth: int = 9, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The error that the M largest wavelets of a forest leave, for growing M.

    Every tree sees all examples: after a bootstrap, the trees would describe different functions, and the norms of
    their wavelets could not be compared. The trees differ by the sqrt(d) features, drawn anew, that each cut may choose
    from, which also keeps wide representations cheap. A wavelet's squared norm is the number of examples in its region
    times the squared step; the volume of a box, which the paper offers too, means little in hundreds of dimensions. As
    a forest cuts along the axes, the index changes under rotations, but not with the scale of a feature.

    The number of terms is that of independent ones a tree, 1 + M / (2 trees): the root, and one for each pair of
    siblings, as the step of one follows from that of the other. It is also the number of regions that a tree cut so far
    would have. The grid is logarithmic, from the roots alone (M = 0) to as many regions as hold 5 examples on average,
    or as the depth allows. It does not depend on the representation, so that those of the same examples compare.

    Args:
        x: (n, d) the representation.
        targets: (n,) classes as integers, booleans or strings, taken as one-hot; or (n,) or (n, k) real values, such
            as one-hot rows.
        trees: of the forest.
        depth: the most cuts above a region.
        rng: decides which features each cut may choose from.

    Returns:
        (m,) numbers of terms, and (m,) errors: root mean squared, in standard deviations of the targets; NaN where all
        targets are the same.

    Raises:
        SpecError: the representation and the targets do not fit or are not finite, or a number is below 1.
    """
    if trees < 1 or depth < 1:
        raise SpecError(f"a forest needs one tree and one cut at least, got trees={trees} and depth={depth}")
    features, values = _checked(x, targets)
    kept = _grid(len(values), trees, depth)
    terms = 1 + kept / (2 * trees)
    if (values == values[0]).all():
        return terms, np.full(len(terms), np.nan)
    steps, regions = _wavelets(_forest(features, values, trees, depth, rng), features)
    residual = values - values.mean(axis=0)
    errors = [float(np.linalg.norm(residual))]
    for start, end in pairwise(kept):
        residual -= regions[:, start:end] @ steps[start:end] / trees
        errors.append(float(np.linalg.norm(residual)))
    return terms, np.array(errors) / errors[0]


def _grid(n: int, trees: int, depth: int) -> np.ndarray:
    """Increasing numbers of wavelets, from 0, evenly spaced in the logarithm of their number of terms."""
    most = max(1.0, min(n / EXAMPLES_PER_REGION, 2.0**depth))
    terms = 2.0 ** (np.arange(int(np.log2(most) * STEPS_PER_DOUBLING) + 1) / STEPS_PER_DOUBLING)
    return np.unique(np.rint(2 * trees * (terms - 1)).astype(np.int64))


def _forest(
    features: np.ndarray, values: np.ndarray, trees: int, depth: int, rng: np.random.Generator
) -> RandomForestRegressor:
    # Imported here because it takes longer than all else that this module loads.
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        n_estimators=trees,
        max_depth=depth,
        max_features="sqrt",
        bootstrap=False,
        random_state=int(rng.integers(2**31)),
    )
    return forest.fit(features, values if values.shape[1] > 1 else values[:, 0])


def _wavelets(forest: RandomForestRegressor, features: np.ndarray) -> tuple[np.ndarray, sparse.csc_matrix]:
    """(m, k) steps of all wavelets, the largest norm first, and (n, m) ones where an example lies in their regions."""
    paths, starts = forest.decision_path(features)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    steps = np.concatenate([_steps(tree.value[:, :, 0], tree.children_left, tree.children_right) for tree in trees])
    norms = np.concatenate([tree.n_node_samples for tree in trees]) * np.square(steps).sum(axis=1)
    nodes = np.setdiff1d(np.arange(len(norms)), starts)  # a root is no step
    order = nodes[np.argsort(-norms[nodes], kind="stable")]
    return steps[order], sparse.csc_matrix(paths)[:, order].astype(np.float64)


def _steps(means: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(nodes, k) what each node's mean adds to its parent's; 0 at the root."""
    steps = np.zeros_like(means)
    parents = np.flatnonzero(left >= 0)
    for children in (left[parents], right[parents]):
        steps[children] = means[children] - means[parents]
    return steps


def _checked(x: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32, as forests take it, and (n, k) float64 values."""
    with np.errstate(over="ignore"):  # refused below
        features = np.asarray(x).astype(np.float32)
    values = np.asarray(targets)
    if values.ndim == 1 and values.dtype.kind in "iubU":
        classes, place = np.unique(values, return_inverse=True)
        values = np.eye(len(classes))[place]
    elif values.ndim == 1:
        values = values[:, None]
    if features.ndim != 2 or values.ndim != 2 or not features.size or len(features) != len(values):
        raise SpecError(
            "the Besov index needs a matrix (examples, features), not empty, and a target for each example; got shapes "
            f"{features.shape} and {np.shape(targets)}"
        )
    values = values.astype(np.float64)
    for name, z in (("representation", features), ("target", values)):
        if not np.isfinite(z).all():
            bad = int((~np.isfinite(z).all(axis=1)).sum())
            raise SpecError(f"the Besov index needs finite numbers, got {bad} examples whose {name} is not")
    return features, values
