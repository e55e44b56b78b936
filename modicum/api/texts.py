"""Texts as callers hand them in: a list of strings, or of pairs of strings."""

from __future__ import annotations

from collections.abc import Sequence

from modicum.base.errors import SpecError

Texts = Sequence[str] | Sequence[tuple[str, str]]


def split_pairs(texts: Texts) -> tuple[list[str], list[str] | None]:
    """First texts, and second texts where they are pairs.

    Raises:
        SpecError: one string instead of a list, or pairs and single texts mixed.
    """
    if isinstance(texts, str):
        raise SpecError("texts must be a list of texts, got one string: put it in a list")
    rows = list(texts)
    paired = [isinstance(row, tuple | list) for row in rows]
    if not any(paired):
        return rows, None  # type: ignore[return-value]
    if not all(paired) or any(len(row) != 2 for row in rows):
        raise SpecError("texts must all be strings, or all be pairs of two strings; these are mixed")
    return [row[0] for row in rows], [row[1] for row in rows]
