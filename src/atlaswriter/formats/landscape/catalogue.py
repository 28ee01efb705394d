"""Genes and other features: which are exported, what they are called, and their ids.

In the files a gene's id is its row in the table of genes, which is sorted by name. Features that only transcripts
know turn up while these are read; until then genes have provisional codes, in the order they were met.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.colors import wheel
from atlaswriter.sources.spatial import Counts

_ASKABLE = str.maketrans(dict.fromkeys(layout.UNASKABLE, "_"))
_GENE_TYPE = "gene expression"
# Beginnings of names of features that are no genes, of several instruments; in lower case.
_CONTROLS = (
    "negcontrol", "negprb", "negative", "unassigned", "deprecated", "blank", "antisense", "bgcontrol", "systemcontrol",
    "falsecode", "intergenic", "genomic_control", "genomiccontrol",
)  # fmt: skip
# Bytes of a file name, less ".parquet".
_LONGEST = 255 - len(".parquet")
_MOST_SHORT = 1 << 16
# Code of features that are not exported.
_LEFT_OUT = -1


class Catalogue:
    """The features that are exported.

    Parameters
    ----------
    wanted
        Names of the features to export; None for all.
    drop_controls
        Leave out what is no gene.

    Attributes
    ----------
    names
        Name of each code.
    short
        Whether all codes will fit in 16 bits.
    n_counted
        How many of these, the first ones, are of matrices.
    """

    def __init__(self, wanted: Sequence[str] | None, *, drop_controls: bool) -> None:
        self._wanted, self._drop_controls = None if wanted is None else set(wanted), drop_controls
        self._guard = threading.Lock()
        self._codes: dict[str, int] = {}
        self._original: list[str] = []
        self._hues: dict[int, float] = {}
        self._matrices: list[str] = []
        self._features: set[str] = set()
        self.names: list[str] = []
        self.short = False
        self.n_counted = 0

    def add_matrix(self, counts: Counts, problems: Problems) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take in the features of a matrix.

        Returns
        -------
        tuple of numpy.ndarray
            int64: the columns of the matrix that are exported, and the code of each.
        """
        features, types = counts.features, counts.types
        codes = []
        columns = [
            k
            for k, name in enumerate(features)
            if self._codes.get(name) != _LEFT_OUT and self._is_wanted(name, None if types is None else types[k])
        ]
        kept = [features[k] for k in columns]
        for k, name, unique in zip(columns, kept, _unique(kept), strict=True):
            code = self._codes.get(unique)
            if code is None:
                code = self._codes[unique] = self._add(name, unique)
                self._hues[code] = k / len(features)
            codes.append(code)
        # Else transcripts would bring them back as features that nobody knows.
        self._codes |= dict.fromkeys(set(features) - set(kept), _LEFT_OUT)
        self._matrices.append(counts.where)
        self._features |= set(features)
        self.short, self.n_counted = len(self.names) <= _MOST_SHORT // 2, len(self.names)
        self._check_names(problems)
        return np.array(columns, np.int64), np.array(codes, np.int64)

    def fork(self) -> Catalogue:
        """Another one that knows the same features."""
        other = copy.copy(self)
        own = {"_codes": dict(self._codes), "_original": list(self._original), "names": list(self.names)}
        vars(other).update(own, _guard=threading.Lock())
        return other

    @property
    def met(self) -> list[str]:
        """Features that no matrix has, in the order of their codes, which are the last ones."""
        return self._original[self.n_counted :]

    def check_wanted(self, problems: Problems) -> None:
        """Add wanted features that no matrix has to `problems`, once all of these are known."""
        if not self._matrices:
            return
        if unknown := sorted((self._wanted or set()) - self._features):
            where = " or ".join(self._matrices)
            problems.add("genes", f"{len(unknown)} are not in {where}: {listed(unknown)}", "check their names")
        if not self.names:
            problems.add("genes", f"none of {' or '.join(self._matrices)} is left to export", "choose others")

    def case_only(self) -> list[str]:
        """Names, of those that have a file, that differ from another only by case."""
        counted = [self.names[code] for code in self._hues]
        lower = Counter(name.lower() for name in counted)
        return sorted(name for name in counted if lower[name.lower()] > 1)

    def _check_names(self, problems: Problems) -> None:
        for name, count in Counter(self.names).items():
            if count > 1:
                old = [self._original[code] for code, known in enumerate(self.names) if known == name]
                problems.add("genes", f"{listed(old)} would all be called {name!r}", "rename them")
        if odd := [name for name in self.names if name.strip() in ("", ".", "..") or set(name) & set("\\\0\n\r")]:
            problems.add("genes", f"{listed(odd)} cannot be names of files", "rename them")
        if long := [name for name in self.names if len(name.encode()) > _LONGEST]:
            problems.add("genes", f"{len(long)} names are too long for a file: {listed(long, 3)}", "shorten them")

    def _is_wanted(self, name: str, kind: str | None) -> bool:
        if self._wanted is not None and name not in self._wanted:
            return False
        return not (self._drop_controls and is_control(name, kind))

    def _add(self, original: str, name: str) -> int:
        askable = name.translate(_ASKABLE)
        self._original.append(original)
        self.names.append(f"{askable}_" if askable in layout.CELL_COLUMNS else askable)
        return len(self.names) - 1

    def codes(self, features: Iterable[str]) -> NDArray[np.int32]:
        """Codes of some features, -1 for those that are not exported; unknown ones get a new one."""
        with self._guard:
            found = np.array([self._code(name) for name in features], np.int32)
        if self.short and len(self.names) > _MOST_SHORT:
            raise InputError(Problem("transcripts", "more than 32,768 features are not in the matrix", "check them"))
        return found

    def _code(self, name: str) -> int:
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = self._add(name, name) if self._is_wanted(name, None) else _LEFT_OUT
        return code

    def close(self) -> Genes:
        """Names and ids, once all features are known.

        Raises
        ------
        InputError
            Names cannot be used.
        """
        problems = Problems()
        self._check_names(problems)
        problems.raise_if_any()
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        ids = np.empty(len(order), np.int64)
        ids[order] = np.arange(len(order))
        unknown = [code for code in order if code not in self._hues]
        hues = self._hues | {code: k / len(unknown) for k, code in enumerate(unknown)}
        return Genes(
            [self.names[code] for code in order],
            ids,
            [wheel(hues[code], self.names[code]) for code in order],
            [(old, new) for old, new in sorted(zip(self._original, self.names, strict=True)) if old != new],
            sorted(self._original[code] for code in unknown),
        )


class Genes:
    """The features by id.

    Attributes
    ----------
    names, colors
        Of each id.
    ids
        int64: id of each code.
    renamed
        ``(old, new)``.
    unknown
        Features that only transcripts know.
    """

    def __init__(
        self, names: list[str], ids: NDArray[np.int64], colors: list[str], renamed: list[tuple[str, str]],
        unknown: list[str],
    ) -> None:  # fmt: skip
        self.names, self.ids, self.colors, self.renamed, self.unknown = names, ids, colors, renamed, unknown

    def facts(self) -> dict[str, Any]:
        """What a report says of them: plain values."""
        unknown = {"count": len(self.unknown), "names": listed(self.unknown)}
        return {"genes": len(self.names), "unknown": unknown, "renamed": self.renamed}


def is_control(name: str, kind: str | None = None) -> bool:
    """Whether a feature is no gene: by its type, or by its name where there is none."""
    if kind is not None:
        return kind.lower() != _GENE_TYPE
    return name.lower().startswith(_CONTROLS)


def _unique(names: Sequence[str]) -> list[str]:
    """Names with ``_1``, ``_2`` ... behind those that come again; none of these is taken by another."""
    used, seen, counters, found = set(names), set[str](), Counter[str](), []
    for name in names:
        new = name
        while new in seen:
            counters[name] += 1
            new = f"{name}_{counters[name]}"
            if new in used:
                new = name
        seen.add(new)
        found.append(new)
    return found
