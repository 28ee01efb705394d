"""Columns of text as categories, a block at a time."""

from __future__ import annotations

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array, Categorical, as_text
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.tree import Node

# Texts read at once; as Python objects they take some 2 to 4 MB. Larger chunks are read whole, up to the second.
_BLOCK, _LARGEST_BLOCK = 1 << 15, 1 << 20

# Different texts after which a column is refused: no viewer can offer more, and each costs 150 bytes here.
_MOST_TEXTS = 1 << 20


def text_column(node: Node, missing: AnyArray | None, where: str) -> Categorical:
    """A stored column of text as a categorical one, categories sorted.

    Parameters
    ----------
    node
        A vector of text.
    missing
        True where there is no text.
    where
        Its name in messages.

    Returns
    -------
    Categorical
        Codes are in memory, in the smallest dtype that holds them, int32 at most.

    Raises
    ------
    InputError
        Damaged, or with more than a million different texts.
    """
    (n,) = node.sizes() or (0,)
    step = min(max(1, _BLOCK // node.grain) * node.grain, _LARGEST_BLOCK)
    known: dict[object, int] = {}
    codes = np.empty(n, np.int8)
    for start in range(0, n, step):
        texts = node.rows(start, min(start + step, n))
        mask = None if missing is None else missing[start : start + step]
        with translated_damage(node.path, node.location):
            block = _coded(texts, mask, known)
        if len(known) > _MOST_TEXTS:
            found = f"has more than {_MOST_TEXTS:,} different texts, which are too many for categories"
            raise InputError(Problem(where, found, "leave it out"))
        codes = codes.astype(_smallest(len(known)), copy=False)
        codes[start : start + step] = block
    with translated_damage(node.path, node.location):
        # UTF-8 bytes sort like the characters they stand for.
        order = sorted(known)  # type: ignore[type-var]
    rank = np.full(len(known) + 1, -1, codes.dtype)
    rank[[known[text] for text in order]] = np.arange(len(order))
    for start in range(0, n, _BLOCK):
        part = codes[start : start + _BLOCK]
        part[...] = rank[part]
    return Categorical(codes, as_text(np.array(order, object)))


def _coded(texts: Array, missing: Array | None, known: dict[object, int]) -> Array:
    """Codes of texts, by their place in `known`, which grows; -1 where missing."""
    present = slice(None) if missing is None else ~missing
    codes = np.full(texts.shape[0], -1, np.int32)
    found = texts[present].tolist()
    codes[present] = np.fromiter((known.setdefault(text, len(known)) for text in found), np.int32, len(found))
    return codes


def _smallest(size: int) -> np.dtype[np.signedinteger]:
    """The smallest signed dtype for the codes of so many categories."""
    return np.dtype(np.int8 if size <= 128 else np.int16 if size <= 32768 else np.int32)
