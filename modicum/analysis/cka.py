"""How alike are two representations of the same examples? Centred kernel alignment (Kornblith et al. 2019).

CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)). It does not change under rotations, reflections, translations and
isotropic scaling of either side, but does under other linear maps. The biased estimator of HSIC is far from 0 for
unrelated representations as wide as the sample is long; the unbiased one (Song et al. 2012, equation 5) is not, so it
is the default. All is computed in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import distance

from modicum.base.errors import SpecError


def linear_cka(x: ArrayLike, y: ArrayLike, *, unbiased: bool = True) -> float:
    """CKA of the linear kernel; costs the smaller of the products of features and of examples.

    Args:
        x, y: (n, d1) and (n, d2) two representations of the same n examples.
        unbiased: by the estimator of Song et al. (2012), which needs 4 examples and may fall just below 0 for unrelated
            representations; otherwise the biased one, which needs 2.

    Returns:
        At most 1; NaN where a representation is constant.

    Raises:
        SpecError: no such pair of matrices, numbers that are not finite, or too few examples.
    """
    return _alignment(_linear_hsic(*_checked(x, y, unbiased), unbiased))


def rbf_cka(x: ArrayLike, y: ArrayLike, *, unbiased: bool = True, fraction: float = 1.0) -> float:
    """CKA of the Gaussian kernel exp(-d² / 2σ²), with memory for a few (n, n) matrices.

    Each side has its own σ: the fraction times the square root of the median squared distance, over pairs of
    different examples.

    Args:
        x, y: (n, d1) and (n, d2) two representations of the same n examples.
        unbiased: as for ``linear_cka``.
        fraction: of the median distance, above 0; a small one compares near neighbours alone.

    Returns:
        At most 1; NaN where a representation is constant, or half of the pairs coincide so that σ is 0.

    Raises:
        SpecError: as for ``linear_cka``, or the fraction is not above 0.
    """
    if not fraction > 0:
        raise SpecError(f"the bandwidth's fraction of the median distance must be above 0, got {fraction}; 1 is usual")
    first, second = _checked(x, y, unbiased)
    k, m = _gaussian(first, fraction), _gaussian(second, fraction)
    if k is None or m is None:
        return float("nan")
    return _alignment(_kernel_hsic(_doubly_centred(k), _doubly_centred(m), unbiased))


class MinibatchCKA:
    """Linear CKA from minibatches, for more examples than fit into memory (Nguyen et al. 2021, equation 2).

    The three HSICs are averaged over the batches, weighted by their sizes, before the one division. As each is
    unbiased, so are the averages, whatever the size; equal sizes give the paper's formula, and one batch the value
    of ``linear_cka``. A batch's examples should be drawn at random.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(3)

    def add(self, x: ArrayLike, y: ArrayLike) -> None:
        """Take in (m, d1) and (m, d2) representations of the same m examples, 4 or more.

        Raises:
            SpecError: as for ``linear_cka``; nothing is then taken in.
        """
        checked = _checked(x, y, unbiased=True)
        self._sums += len(checked[0]) * _linear_hsic(*checked, unbiased=True)

    @property
    def value(self) -> float:
        """CKA of what was added so far; NaN before the first batch, and where a side is constant within batches."""
        return _alignment(self._sums)


def _alignment(hsic: np.ndarray) -> float:
    """CKA from HSIC(X, Y), HSIC(X, X) and HSIC(Y, Y)."""
    both, x, y = hsic.tolist()
    return float(both / (np.sqrt(x) * np.sqrt(y))) if x > 0 and y > 0 else float("nan")


def _linear_hsic(x: np.ndarray, y: np.ndarray, unbiased: bool) -> np.ndarray:
    """(3,) HSIC of (X, Y), (X, X) and (Y, Y) for the linear kernel."""
    x, y = _centred(x), _centred(y)
    if len(x) < max(x.shape[1], y.shape[1]):
        return _kernel_hsic(x @ x.T, y @ y.T, unbiased)
    inner = [np.square(u.T @ v).sum() for u, v in ((x, y), (x, x), (y, y))]
    return _hsic(np.array(inner), np.square(x).sum(axis=1), np.square(y).sum(axis=1), unbiased)


def _kernel_hsic(k: np.ndarray, m: np.ndarray, unbiased: bool) -> np.ndarray:
    """(3,) the same for two centred (n, n) kernel matrices."""
    inner = [np.vdot(u, v) for u, v in ((k, m), (k, k), (m, m))]
    return _hsic(np.array(inner), k.diagonal(), m.diagonal(), unbiased)


def _hsic(inner: np.ndarray, a: np.ndarray, b: np.ndarray, unbiased: bool) -> np.ndarray:
    """(3,) HSIC from the sums of K_ij M_ij, K_ij² and M_ij² and the (n,) diagonals a, b of centred kernels K, M.

    The unbiased estimator is made of K and M with their diagonals set to 0, and does not change when numbers
    u_i + u_j are added to what is off the diagonal; so it may be taken from centred kernels. Their rows add up to 0,
    and without the diagonal to -a_i and -b_i, so that equation 5 of Song et al. needs nothing but the arguments:

        tr K0 M0 = sum K_ij M_ij - a·b        1' K0 1 = -sum a        1' K0 M0 1 = a·b
    """
    n = len(a)
    if not unbiased:
        return np.asarray(inner / (n - 1) ** 2)
    products = np.array([a @ b, a @ a, b @ b])
    sums = np.array([a.sum() * b.sum(), a.sum() ** 2, b.sum() ** 2])
    terms = np.stack([inner, -n / (n - 2) * products, sums / ((n - 1) * (n - 2))])
    total = terms.sum(axis=0)
    # Orthonormal rows, say, are all alike to this kernel; what is left of such a sum is rounding, and its sign chance.
    left = np.abs(total) > 1e-12 * np.abs(terms).sum(axis=0)
    return np.asarray(np.where(left, total, 0.0) / (n * (n - 3)))


def _centred(x: np.ndarray) -> np.ndarray:
    """Without the columns' means; exactly 0 where a column is constant, so that a constant side is known as such."""
    x = x - x[0]
    return np.asarray(x - x.mean(axis=0))


def _doubly_centred(k: np.ndarray) -> np.ndarray:
    """A symmetric kernel matrix whose rows and columns add up to 0."""
    means = k.mean(axis=0)
    return np.asarray(k - means - means[:, None] + means.mean())


def _gaussian(x: np.ndarray, fraction: float) -> np.ndarray | None:
    """(n, n) Gaussian kernel, or None where its bandwidth is 0."""
    squared = distance.pdist(x, "sqeuclidean")
    median = float(np.median(squared))
    if median == 0:
        return None
    return np.exp(distance.squareform(squared) / (-2 * fraction**2 * median))


def _checked(x: ArrayLike, y: ArrayLike, unbiased: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, checked against one another."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise SpecError(
            "CKA compares two matrices (examples, features) of the same examples, got shapes "
            f"{first.shape} and {second.shape}"
        )
    least = 4 if unbiased else 2
    if len(first) < least:
        kind = "unbiased" if unbiased else "biased"
        raise SpecError(f"the {kind} estimator of CKA needs {least} examples at least, got {len(first)}; give more")
    for name, z in (("first", first), ("second", second)):
        if not np.isfinite(z).all():
            bad = int((~np.isfinite(z).all(axis=1)).sum())
            raise SpecError(f"CKA needs finite numbers, got {bad} examples of the {name} side with NaN or infinity")
    return first, second
