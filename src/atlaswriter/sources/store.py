"""AnnData on disk: .h5ad and Zarr, which are the same tree of groups and arrays.

Reads the encodings of anndata 0.8 and later (https://anndata.readthedocs.io, "On-disk format"),
each part only when it is asked for, without importing anndata or pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array, Categorical, Column, Compressed, Continuous, Matrix, as_text
from atlaswriter.sources.lazy import Derived, converted
from atlaswriter.sources.parts import (
    REAL_KINDS,
    as_real,
    blocks,
    compressed,
    dense_rows,
    no_such_key,
    settled,
    stacked,
    texts_of,
)
from atlaswriter.sources.texts import text_column
from atlaswriter.sources.tree import Node

_WRITE_AGAIN = "the file is damaged: write it again from its source"

_VERSIONS = {
    "": None,
    "array": "0.2.0",
    "string-array": "0.2.0",
    "categorical": "0.2.0",
    "nullable-integer": "0.1.0",
    "nullable-boolean": "0.1.0",
    "nullable-string-array": "0.1.0",
    "csr_matrix": "0.1.0",
    "csc_matrix": "0.1.0",
    "dataframe": "0.2.0",
}


def is_current(root: Node) -> bool:
    """Whether obs and var have the encoding that this module reads."""
    tables = [root.child(name) for name in ("obs", "var")]
    return all(table.attribute("encoding-version") == _VERSIONS["dataframe"] for table in tables)


class StoreSource:
    """A `Source` on an open HDF5 file or Zarr group.

    Parameters
    ----------
    root
        The group that holds obs, var, X and the others.
    close
        Releases the file.
    """

    def __init__(self, root: Node, close: Callable[[], None]) -> None:
        self._root = root
        self.close = close
        self.location = root.location
        self.n_cells = _length(_index(root.child("obs")))

    def obs_columns(self) -> list[str]:
        """Names of the obs columns."""
        return _columns(self._root.child("obs"))

    def obs(self, column: str) -> Column:
        """One obs column."""
        return _table_column(self._root.child("obs"), column, "obs", self.n_cells)

    def var_columns(self, *, raw: bool = False) -> list[str]:
        """Names of the var columns."""
        return _columns(self._var(raw))

    def gene_names(self, column: str | None = None, *, raw: bool = False) -> list[str]:
        """Gene identifiers: the var index, or a var column."""
        table, label = self._var(raw), "raw.var" if raw else "var"
        index = _index(table)
        n_genes = _length(index)
        if column is None:
            where = f"{label}.index"
            return texts_of(_column(index, where, n_genes), where)
        return texts_of(_table_column(table, column, label, n_genes), f"{label}['{column}']")

    def layers(self) -> list[str]:
        """Names of the layers."""
        return self._names("layers")

    def has_raw(self) -> bool:
        """Whether there is a raw group with an X."""
        return "X" in self._names("raw")

    def expression(self, *, layer: str | None = None, raw: bool = False) -> Matrix | None:
        """X, a layer or raw.X."""
        shape = (self.n_cells, _length(_index(self._var(raw))))
        if layer is not None:
            return _matrix(self._entry("layers", layer), f"layers['{layer}']", shape)
        holder = self._raw() if raw else self._root
        if "X" not in holder.names() or holder.child("X").attribute("encoding-type") == "null":
            return None
        return _matrix(holder.child("X"), "raw.X" if raw else "X", shape)

    def obsm(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the numeric obsm entries."""
        nodes = {key: self._entry("obsm", key) for key in self._names("obsm")}
        shapes = {key: _numeric_shape(node) for key, node in nodes.items()}
        return {key: shape for key, shape in shapes.items() if shape is not None and len(shape) == 2}

    def obsm_array(self, key: str) -> AnyArray:
        """One obsm entry, dense."""
        node, where = self._entry("obsm", key), f"obsm['{key}']"
        if _encoding(node, where) == "dataframe":
            return stacked([_table_column(node, name, where, self.n_cells) for name in _columns(node)], where)
        matrix = _matrix(node, where, (self.n_cells, None))
        return dense_rows(matrix) if isinstance(matrix, Compressed) else matrix

    def obsp(self) -> list[str]:
        """Names of the obsp entries."""
        return self._names("obsp")

    def obsp_matrix(self, key: str) -> Matrix:
        """One obsp entry."""
        return _matrix(self._entry("obsp", key), f"obsp['{key}']", (self.n_cells, self.n_cells))

    def _names(self, group: str) -> list[str]:
        return self._root.child(group).names() if group in self._root.names() else []

    def _entry(self, group: str, key: str) -> Node:
        known = self._names(group)
        if key not in known:
            raise no_such_key(f"{group}['{key}']", known)
        return self._root.child(group).child(key)

    def _raw(self) -> Node:
        if not self.has_raw():
            raise InputError(Problem("raw", f"{self.location} has no raw", "use X or a layer"))
        return self._root.child("raw")

    def _var(self, raw: bool) -> Node:
        return (self._raw() if raw else self._root).child("var")


def _encoding(node: Node, where: str) -> str:
    """The encoding type of an element, which must be one that is known; may be empty for arrays."""
    encoding, version = node.attribute("encoding-type") or "", node.attribute("encoding-version")
    if encoding not in _VERSIONS or (encoding and version != _VERSIONS[encoding]):
        found = f"has the encoding {encoding!r} of version {version!r}, which cannot be read here"
        raise InputError(Problem(where, found, "convert it to an array, or leave it out"))
    return str(encoding)


def _index(table: Node) -> Node:
    name = table.attribute("_index")
    if not isinstance(name, str):
        raise InputError(Problem(table.path, f"has no index in {table.location}", _WRITE_AGAIN))
    return table.child(name)


def _columns(table: Node) -> list[str]:
    order = table.attribute("column-order")
    return [] if order is None else as_text(np.ravel(order))


def _length(column: Node) -> int:
    """Length of a column, read from its header."""
    for part in ("codes", "values"):
        if part in column.names():
            column = column.child(part)
    sizes = column.sizes() if column.is_array else None
    if not sizes:
        raise InputError(Problem(column.path, f"is no column in {column.location}", _WRITE_AGAIN))
    return sizes[0]


def _table_column(table: Node, name: str, label: str, n: int) -> Column:
    where = f"{label}['{name}']"
    known = _columns(table)
    if name not in known:
        raise no_such_key(where, known)
    return _column(table.child(name), where, n)


def _column(node: Node, where: str, n: int) -> Column:
    encoding = _encoding(node, where)
    length = _length(node)
    if length != n:
        raise InputError(Problem(where, f"has {length} values for {n} rows", _WRITE_AGAIN))
    if encoding == "categorical":
        return _categorical(node, where)
    if encoding.startswith("nullable"):
        return _plain_column(node.child("values"), where, n, node.child("mask"))
    return _plain_column(node, where, n, None)


def _plain_column(node: Node, where: str, n: int, mask: Node | None) -> Column:
    """A column of booleans, numbers or text; `mask` is true where a value is missing."""
    kind = node.kind
    if kind not in "biufU":
        remedy = "convert it to text or to real numbers first"
        raise InputError(Problem(where, f"values of dtype {node.raw.dtype} cannot be shown", remedy))
    _check_length(node, where, n)
    missing = None
    if mask is not None:
        _check_length(mask, where, n)
        missing = converted(_array(mask), bool)
    if kind == "U":
        return text_column(node, missing, where)
    values = _array(node)
    if kind == "b":
        return _boolean_column(values, missing)
    if missing is None or not any(block.any() for block in blocks(missing)):
        return Continuous(values)
    return Continuous(settled(Derived([values, missing], (n,), np.float64, _with_gaps)))


def _with_gaps(values: Array, missing: Array) -> Array:
    return np.where(missing, np.nan, values.astype(np.float64))


def _check_length(node: Node, where: str, n: int) -> None:
    if node.sizes() != (n,):
        found = f"{node.path} has shape {node.sizes()} where {(n,)} is needed"
        raise InputError(Problem(where, found, _WRITE_AGAIN))


def _array(node: Node) -> AnyArray:
    """A vector or matrix of real numbers; in memory when it is small."""
    return settled(node.lazy(), node.workers)


def _boolean_column(flags: AnyArray, missing: AnyArray | None) -> Categorical:
    """Booleans as the categories that occur."""
    parts = [flags] if missing is None else [flags, missing]

    def kinds(values: Array, mask: Array | bool = False) -> Array:
        return np.where(mask, np.int8(-1), (values != 0).astype(np.int8))

    cells = Derived(parts, flags.shape, np.int8, kinds)
    found = {int(code) for block in blocks(cells) for code in np.unique(block)} - {-1}
    # Where only True occurs, it is the first category.
    codes = Derived([cells], flags.shape, np.int8, lambda block: np.minimum(block, 0)) if found == {1} else cells
    return Categorical(settled(codes), [str(bool(code)) for code in sorted(found)])


def _categorical(node: Node, where: str) -> Categorical:
    labels, codes_node = node.child("categories"), node.child("codes")
    for name, part in (("categories", labels), ("codes", codes_node)):
        if part.is_array and len(part.sizes() or ()) != 1:
            raise InputError(Problem(where, f"{name} have the shape {part.sizes()}", _WRITE_AGAIN))
    if labels.is_array:
        categories = labels.texts()
    else:
        categories = texts_of(_column(labels, f"{where} categories", _length(labels)), f"{where} categories")
    if codes_node.kind not in "iu":
        found = f"codes have dtype {codes_node.raw.dtype}"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    codes = _array(codes_node)
    limits = [(int(block.min()), int(block.max())) for block in blocks(codes) if block.size]
    lowest, highest = min((low for low, _ in limits), default=0), max((high for _, high in limits), default=-1)
    if lowest < -1 or highest >= len(categories):
        found = f"codes go from {lowest} to {highest} with {len(categories)} categories"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    if codes.dtype.kind == "u":
        codes = converted(codes, np.min_scalar_type(-max(len(categories), 1)))
    return Categorical(codes, categories)


def _matrix(node: Node, where: str, expected: tuple[int, int | None]) -> Compressed | AnyArray:
    """A dense or compressed matrix of the expected shape; None stands for any number of columns."""
    encoding = _encoding(node, where)
    shape = node.sizes() or ()
    if len(shape) != 2 or any(size not in (found, None) for found, size in zip(shape, expected, strict=True)):
        needed = " × ".join("any" if size is None else str(size) for size in expected)
        found = f"has shape {shape} where {needed} is needed"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    if node.is_array:
        return dense_matrix(node, where)
    if encoding not in ("csr_matrix", "csc_matrix"):
        found = f"is stored as {encoding or 'a group'}, not as a matrix"
        raise InputError(Problem(where, found, "store it as an array or a sparse matrix"))
    return sparse_matrix(node, shape, int(encoding == "csc_matrix"), where)


def dense_matrix(node: Node, where: str) -> AnyArray:
    """A stored matrix of real numbers, which is read when it is sliced, or at once when it is small."""
    return settled(as_real(_numbers(node, where), where), node.workers)


def sparse_matrix(node: Node, shape: tuple[int, ...], axis: int, where: str) -> Compressed:
    """A group that holds a compressed matrix.

    Parameters
    ----------
    node
        The group.
    shape
        ``(rows, columns)``.
    axis
        As of `Compressed`.
    where
        Its name in messages.

    Returns
    -------
    Compressed
        Parts that are not small are lazy; `indptr` has been read and is as it should be.
    """
    indptr, indices = (_index_array(node.child(part), where, part) for part in ("indptr", "indices"))
    data = as_real(_numbers(node.child("data"), where), where)
    return compressed(
        shape,
        *(settled(part, node.workers) for part in (indptr, indices, data)),
        axis=axis,
        where=where,
    )


def _index_array(node: Node, where: str, part: str) -> AnyArray:
    if node.kind not in "iu" or len(node.sizes() or ()) != 1:
        found = f"damaged sparse matrix: {part} is {len(node.sizes() or ())}-dimensional {node.raw.dtype}"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    return node.lazy()


def _numbers(node: Node, where: str) -> AnyArray:
    if node.kind not in REAL_KINDS:
        found = f"values of dtype {node.raw.dtype} are not real numbers"
        raise InputError(Problem(where, found, "convert it to real numbers"))
    if len(node.sizes() or ()) not in (1, 2):
        raise InputError(Problem(where, f"{node.path} has the shape {node.sizes()}", _WRITE_AGAIN))
    return node.lazy()


def _numeric_shape(node: Node) -> tuple[int, ...] | None:
    """Shape of a matrix or table of real numbers, from its header; None for anything else."""
    if node.is_array:
        return node.sizes() if node.kind in REAL_KINDS else None
    encoding = node.attribute("encoding-type")
    if encoding in ("csr_matrix", "csc_matrix"):
        return node.sizes()
    if encoding == "dataframe":
        names = _columns(node)
        if all(_is_number_column(node.child(name)) for name in names):
            return (_length(_index(node)), len(names))
    return None


def _is_number_column(node: Node) -> bool:
    if node.is_array:
        return node.kind in "iuf"
    return bool(node.attribute("encoding-type") == "nullable-integer")
