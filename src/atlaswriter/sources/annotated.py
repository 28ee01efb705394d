"""Cells, counts and clusters that an AnnData holds."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import Categorical, Column, Source, as_text
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.lazy import load
from atlaswriter.sources.open import open_source
from atlaswriter.sources.shapes import Floats
from atlaswriter.sources.spatial import Clusters, Counts
from atlaswriter.sources.tree import Node

if TYPE_CHECKING:
    from anndata import AnnData

# Where programs put positions: entries of obsm, and pairs of obs columns.
_OBSM = ("spatial", "X_spatial")
_PAIRS = (
    ("x_centroid", "y_centroid"),
    ("center_x", "center_y"),
    ("CenterX_global_px", "CenterY_global_px"),
    ("x", "y"),
)

# Names of cells that are Python objects at a time.
_NAMES = 1 << 16

_FEATURE_TYPES = "feature_types"


@dataclass(frozen=True)
class Annotated:
    """An AnnData with what `Source` does not tell.

    Attributes
    ----------
    source
        The AnnData.
    names
        Names of its cells.
    colors
        What ``uns`` says of each key that ends in ``_colors``.
    """

    source: Source
    names: pa.StringArray
    colors: Mapping[str, Sequence[str]]

    def counts(self, layer: str | None = None, *, raw: bool = False) -> Counts | None:
        """X, a layer or ``raw.X``; None without X."""
        matrix = self.source.expression(layer=layer, raw=raw)
        if matrix is None:
            return None
        features = self.source.gene_names(raw=raw)
        known = _FEATURE_TYPES in self.source.var_columns(raw=raw)
        types = self.source.gene_names(_FEATURE_TYPES, raw=raw) if known else None
        where = f"layers['{layer}']" if layer is not None else "raw.X" if raw else "X"
        return Counts(matrix, self.names, features, types, where)

    def clusters(self, column: str) -> Clusters:
        """Labels of an obs column and their colours; integers count as labels, other numbers are refused."""
        where = f"obs['{column}']"
        labels, order = labels_of(self.source.obs(column), where)
        colors = self.colors.get(f"{column}_colors", ())
        by_label = dict(zip(order, (color[:7].lower() for color in colors), strict=False)) if order else {}
        return Clusters(self.names, labels, {label: each for label, each in by_label.items() if _is_hex(each)}, where)

    def positions(self, given: str | tuple[str, str] | None = None) -> tuple[Floats, Floats, str] | None:
        """Where the cells are, and where that is said; None without an entry or columns of a usual name.

        Parameters
        ----------
        given
            Key of an obsm entry, the first two columns of which are x and y, or names of two obs columns.
        """
        pairs = [given] if isinstance(given, tuple) else [] if given else list(_PAIRS)
        keys = [given] if isinstance(given, str) else [] if given else list(_OBSM)
        known, columns = self.source.obsm(), self.source.obs_columns()
        for key in keys:
            if key in known or given is not None:
                where, array = f"obsm['{key}']", self.source.obsm_array(key)
                if array.shape[1] < 2:
                    raise InputError(Problem(where, "has less than two columns", "give x and y"))
                values = np.asarray(load(array), np.float64)
                return values[:, 0].copy(), values[:, 1].copy(), where
        for pair in pairs:
            if set(pair) <= set(columns) or given is not None:
                x, y = (_numbers(self.source.obs(name), f"obs['{name}']") for name in pair)
                return x, y, f"obs{list(pair)}"
        return None


def labels_of(column: Column, where: str) -> tuple[pa.StringArray, list[str]]:
    """Values of an obs column as text, null where missing, and its categories in order; none of numbers."""
    if isinstance(column, Categorical):
        codes = load(column.codes).astype(np.int32)
        indices = pa.array(codes, pa.int32(), mask=codes < 0)
        labels = pa.DictionaryArray.from_arrays(indices, pa.array(column.categories, pa.string()))
        return labels.cast(pa.string()), list(column.categories)
    values = load(column.values)
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    whole = np.where(missing, 0, values)
    if np.any(whole != np.floor(whole)) or np.any(np.abs(whole) > 2**53):
        raise InputError(Problem(where, "holds numbers that are no labels", "name a column of categories"))
    return pa.array(whole.astype(np.int64), mask=missing).cast(pa.string()), []


def _numbers(column: Column, where: str) -> Floats:
    if isinstance(column, Categorical):
        raise InputError(Problem(where, "holds categories, not positions", "name columns of numbers"))
    return np.asarray(load(column.values), np.float64)


def _is_hex(color: str) -> bool:
    return len(color) == 7 and color[0] == "#" and set(color[1:]) <= set("0123456789abcdef")


def open_annotated(data: str | os.PathLike[str] | AnnData, *, workers: int | None = None) -> Annotated:
    """Open an AnnData object, an ``.h5ad`` file or a Zarr store.

    Raises
    ------
    InputError
        It is no AnnData, or its cells have no names.
    """
    source = open_source(data, workers=workers)
    try:
        if isinstance(data, str | os.PathLike):
            with tree_of(Path(data)) as root:
                return Annotated(source, _stored_names(root), _stored_colors(root))
        colors = {key: as_text(np.ravel(value)) for key, value in data.uns.items() if str(key).endswith("_colors")}
        return Annotated(source, pa.array(as_text(data.obs_names.to_numpy()), pa.string()), colors)
    except BaseException:
        source.close()
        raise


@contextmanager
def tree_of(path: Path) -> Iterator[Node]:
    """The groups and arrays of an HDF5 file or a Zarr store."""
    location = str(path)
    if path.is_dir() or zipfile.is_zipfile(path):
        import zarr

        with translated_damage(location, "disk"):
            store: Any = location if path.is_dir() else zarr.storage.ZipStore(location, mode="r")
            group = zarr.open_group(store, mode="r")
        try:
            yield Node(group, location)
        finally:
            group.store.close()
        return
    import h5py

    with translated_damage(location, "disk"):
        file = h5py.File(path, "r")
    with file:
        yield Node(file, location)


def _stored_names(root: Node) -> pa.StringArray:
    table = root.child("obs")
    name = table.attribute("_index")
    if not isinstance(name, str):
        found = "has no index of cells that can be read here"
        raise InputError(Problem("obs", found, "read and write the file with a current anndata"))
    return stored_texts(table.child(name), "obs.index")


def stored_texts(node: Node, where: str) -> pa.StringArray:
    """A stored vector of text or integers, without missing values, as text."""
    if "codes" in node.names():
        texts = np.array(node.child("categories").texts(), object)
        codes = node.child("codes").read()
        if codes.size and not (int(codes.min()) >= 0 and int(codes.max()) < texts.size):
            raise InputError(Problem(where, "has missing values, or is damaged", "give every cell a name"))
        return pa.array(texts[codes], pa.string())
    if not node.is_array:
        if "mask" in node.names() and node.child("mask").read().any():
            raise InputError(Problem(where, "has missing values", "give every cell a name"))
        node = node.child("values")
    (n,) = node.sizes() or (0,)
    if node.kind not in "Uiu":
        raise InputError(Problem(where, "holds neither text nor integers", "give every cell a name"))
    pieces = [pa.array(as_text(node.rows(start, min(start + _NAMES, n))), pa.string()) for start in range(0, n, _NAMES)]
    return pa.chunked_array(pieces, pa.string()).combine_chunks()


def _stored_colors(root: Node) -> dict[str, list[str]]:
    if "uns" not in root.names():
        return {}
    uns = root.child("uns")
    nodes = {name: uns.child(name) for name in uns.names() if name.endswith("_colors")}
    return {name: node.texts() for name, node in nodes.items() if node.is_array and node.kind == "U"}


def chosen(given: str | None, known: Sequence[str], obvious: Sequence[str], what: str, where: str) -> str | None:
    """One of several: the one that is given, the only one, or the first obvious one; None if there are none.

    Raises
    ------
    InputError
        The one given does not exist, or there are several and none is obvious.
    """
    if given is not None and given not in known:
        raise InputError(Problem(where, f"has no {what} {given!r}", f"choose one of {listed(known) or 'none'}"))
    if given is not None or len(known) < 2:
        return given or next(iter(known), None)
    for name in obvious:
        if name in known:
            return name
    raise InputError(Problem(where, f"has several candidates for {what}", f"choose one of {listed(known, 30)}"))
