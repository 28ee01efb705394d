"""What callers pick by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed


def select(chosen: Any, known: Sequence[Any], where: str, kind: str) -> list[Any]:
    """A list of names, each known and none twice."""
    if isinstance(chosen, str) or not hasattr(chosen, "__iter__"):
        raise InputError(Problem(where, f"is a {type(chosen).__name__}", "pass a list of names"))
    names = list(chosen)
    if not all(isinstance(name, Hashable) for name in names):
        raise InputError(Problem(where, "holds things that are not names", "pass a list of names"))
    problems = Problems()
    available = set(known)
    unknown = [name for name in names if name not in available]
    if unknown:
        problems.add(where, f"not among the {kind}: {listed(unknown, 50)}", f"there are {listed(known)}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        problems.add(where, f"given more than once: {listed(repeated, 50)}", "name each once")
    problems.raise_if_any()
    return names


def select_genes(names: list[str], chosen: Any, where: str) -> tuple[list[str], NDArray[np.int64]]:
    """Chosen gene names (None: all) and their columns.

    Raises
    ------
    InputError
        A name is unknown, given twice, or that of several genes.
    """
    if chosen is None:
        return names, np.arange(len(names))
    picked = [str(name) for name in select(chosen, names, where, "genes")]
    counts = Counter(names)
    ambiguous = [name for name in picked if counts[name] > 1]
    if ambiguous:
        raise InputError(Problem(where, f"several genes have the name: {listed(ambiguous, 50)}", "make them unique"))
    place = {name: column for column, name in enumerate(names)}
    return picked, np.array([place[name] for name in picked], dtype=np.int64)
