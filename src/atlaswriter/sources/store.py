"""AnnData on disk: .h5ad and Zarr, which are the same tree of groups and arrays.

Reads the encodings of anndata 0.8 and later (https://anndata.readthedocs.io, "On-disk format"),
each part only when it is asked for, without importing anndata or pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, Categorical, Column, Compressed, Continuous, Matrix, as_text
from atlaswriter.sources.memory import REAL_KINDS, as_real, compressed, densified, no_such_key, stacked, texts_of
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

    def obsm_array(self, key: str) -> Array:
        """One obsm entry, dense."""
        node, where = self._entry("obsm", key), f"obsm['{key}']"
        if _encoding(node, where) == "dataframe":
            return stacked([_table_column(node, name, where, self.n_cells) for name in _columns(node)], where)
        matrix = _matrix(node, where, (self.n_cells, None))
        return densified(matrix) if isinstance(matrix, Compressed) else matrix

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
        mask = _vector(node.child("mask"), where, n).astype(bool)
        return _plain_column(node.child("values"), where, n, mask)
    return _plain_column(node, where, n, None)


def _plain_column(node: Node, where: str, n: int, mask: Array | None) -> Column:
    """A column of booleans, numbers or text; `mask` is true where a value is missing."""
    kind = node.kind
    if kind not in "biufU":
        remedy = "convert it to text or to real numbers first"
        raise InputError(Problem(where, f"values of dtype {node.raw.dtype} cannot be shown", remedy))
    values = _vector(node, where, n)
    if kind == "U":
        return _text_column(values, mask)
    if kind == "b":
        return _boolean_column(values, mask)
    if mask is not None and mask.any():
        values = values.astype(np.float64)
        values[mask] = np.nan
    return Continuous(values)


def _vector(node: Node, where: str, n: int) -> Array:
    if node.sizes() != (n,):
        found = f"{node.path} has shape {node.sizes()} where {(n,)} is needed"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    return node.read()


def _text_column(texts: Array, mask: Array | None) -> Categorical:
    present = slice(None) if mask is None else ~mask
    known = texts[present].tolist()
    # UTF-8 bytes sort like the characters they stand for.
    order = sorted(set(known))
    position = {text: code for code, text in enumerate(order)}
    codes = np.full(texts.shape[0], -1, np.int32)
    codes[present] = np.fromiter(map(position.__getitem__, known), np.int32, len(known))
    return Categorical(codes, as_text(np.array(order, object)))


def _boolean_column(flags: Array, mask: Array | None) -> Categorical:
    codes = np.full(flags.shape[0], -1, np.int8)
    categories: list[str] = []
    for value in (False, True):
        cells = flags == value if mask is None else (flags == value) & ~mask
        if cells.any():
            codes[cells] = len(categories)
            categories.append(str(value))
    return Categorical(codes, categories)


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
    codes = codes_node.read()
    if codes.size and (codes.min() < -1 or codes.max() >= len(categories)):
        found = f"codes go from {codes.min()} to {codes.max()} with {len(categories)} categories"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    if codes.dtype.kind == "u":
        codes = codes.astype(np.min_scalar_type(-max(len(categories), 1)))
    return Categorical(codes, categories)


def _matrix(node: Node, where: str, expected: tuple[int, int | None]) -> Matrix:
    """A dense or compressed matrix of the expected shape; None stands for any number of columns."""
    encoding = _encoding(node, where)
    shape = node.sizes() or ()
    if len(shape) != 2 or any(size not in (found, None) for found, size in zip(shape, expected, strict=True)):
        needed = " × ".join("any" if size is None else str(size) for size in expected)
        found = f"has shape {shape} where {needed} is needed"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    if node.is_array:
        return as_real(_numbers(node, where), where)
    if encoding not in ("csr_matrix", "csc_matrix"):
        found = f"is stored as {encoding or 'a group'}, not as a matrix"
        raise InputError(Problem(where, found, "store it as an array or a sparse matrix"))
    indptr, indices = (node.child(part).read() for part in ("indptr", "indices"))
    data = as_real(_numbers(node.child("data"), where), where)
    return compressed(shape, indptr, indices, data, axis=int(encoding == "csc_matrix"), where=where)


def _numbers(node: Node, where: str) -> Array:
    if node.kind not in REAL_KINDS:
        found = f"values of dtype {node.raw.dtype} are not real numbers"
        raise InputError(Problem(where, found, "convert it to real numbers"))
    return node.read()


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
