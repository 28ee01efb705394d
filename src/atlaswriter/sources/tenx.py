"""Count matrices as 10x Genomics writes them: HDF5, Zarr in a zip, Matrix Market in a folder or in a tar."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import Array, Compressed
from atlaswriter.sources.csvtable import whole_lines
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.lazy import load
from atlaswriter.sources.packed import open_gzip, tar_files
from atlaswriter.sources.parts import as_real, compressed
from atlaswriter.sources.spatial import Counts
from atlaswriter.sources.tables import reading
from atlaswriter.sources.tree import Node
from atlaswriter.sources.zarrzip import ZarrZip
from atlaswriter.units import format_bytes

_FROM_SOURCE = "write it again from its source"

# Of names of features, and of a line of a matrix that is no entry.
_MOST_TEXT = 64 << 20

# Files of a matrix in Matrix Market form; genes.tsv is of Cell Ranger 2.
_MEX_FILES = {"features.tsv": "features", "genes.tsv": "features", "barcodes.tsv": "barcodes", "matrix.mtx": "matrix"}

# Columns of values of a Matrix Market file, by the kind it states.
_VALUES = {"integer": {"value": pa.int64()}, "real": {"value": pa.float64()}, "pattern": {}}


def open_counts(path: Path, where: str = "", workers: int = 1) -> tuple[Counts, Callable[[], None]]:
    """Counts, known by their content, and what releases their file.

    Parameters
    ----------
    path
        HDF5 (``cell_feature_matrix.h5``), zipped Zarr (``cell_feature_matrix.zarr.zip``), a folder with
        ``matrix.mtx``, ``features.tsv`` (or ``genes.tsv``) and ``barcodes.tsv``, all of which may be gzip-compressed,
        or a ``.tar.gz`` of such a folder, which is read in place. The entries of the first two stay in the file.
    where
        Its name in messages; the path by default.
    workers
        Threads for reading.

    Raises
    ------
    InputError
        It is damaged, none of these, or has a barcode twice.
    """
    where = where or str(path)
    with ExitStack() as stack:
        counts = _counts(path, where, workers, stack)
        repeated = len(counts.cells) - pc.count_distinct(counts.cells).as_py()
        if repeated:
            found = f"{repeated:,} of {len(counts.cells):,} barcodes occur more than once"
            raise InputError(Problem(where, found, "make them unique"))
        return counts, stack.pop_all().close


def _counts(path: Path, where: str, workers: int, stack: ExitStack) -> Counts:
    if path.is_dir():
        return _mex_counts(_files_of_folder(path), where)
    with translated_damage(where, "disk"):
        if h5py.is_hdf5(path):
            return _h5_counts(Node(stack.enter_context(h5py.File(path, "r")), where, workers=workers), where)
        if zipfile.is_zipfile(path):
            return _zarr_counts(stack.enter_context(ZarrZip(path, where, workers)), where)
    return _mex_counts(tar_files(path), where)


def _h5_counts(root: Node, where: str) -> Counts:
    if "matrix" not in root.names():
        found = f"has no group 'matrix'; it holds {listed(root.names()) or 'nothing'}"
        raise InputError(Problem(where, found, "give a cell_feature_matrix.h5 of Cell Ranger 3 or Xenium"))
    matrix = root.child("matrix")
    shape = matrix.child("shape").read()
    features = matrix.child("features")
    names, types = features.child("name").texts(), features.child("feature_type").texts()
    cells = _strings(matrix.child("barcodes").read())
    _check_sizes(shape, names, cells, where)
    indptr = load(matrix.child("indptr").lazy(), root.workers)
    indices, data = (matrix.child(name).lazy() for name in ("indices", "data"))
    entries = compressed((len(cells), len(names)), indptr, indices, as_real(data, where), axis=0, where=where)
    return Counts(entries, cells, names, types, where)


def _strings(values: Array) -> pa.StringArray:
    """Text of HDF5 of fixed or of any length as strings."""
    return pa.array(values, pa.binary()).cast(pa.string())


def _check_sizes(shape: Any, names: list[str], cells: pa.StringArray, where: str) -> None:
    if tuple(shape) != (len(names), len(cells)):
        sizes = " × ".join(str(size) for size in shape)
        found = f"damaged matrix: it is {sizes}, with {len(names):,} features and {len(cells):,} cells"
        raise InputError(Problem(where, found, _FROM_SOURCE))


def _zarr_counts(store: ZarrZip, where: str) -> Counts:
    """Counts of Xenium, by feature."""
    group = store.root.child("cell_features")
    names, types = group.attribute("feature_keys"), group.attribute("feature_types")
    if not _are_texts(names) or not _are_texts(types) or len(names) != len(types):
        raise InputError(Problem(where, "damaged matrix: it does not name its features", _FROM_SOURCE))
    cells = store.cell_names("cell_features/cell_id")
    indptr = store.array("cell_features/indptr", len(names) + 1).read()
    nnz = store.array("cell_features/data", None).sizes()
    indices, data = (store.array(f"cell_features/{part}", *(nnz or ())).lazy() for part in ("indices", "data"))
    _check_sizes((len(names), group.attribute("number_cells")), names, cells, where)
    entries = compressed((len(cells), len(names)), indptr, indices, as_real(data, where), axis=1, where=where)
    return Counts(entries, cells, names, types, where)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _files_of_folder(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for file in sorted(path.iterdir()):
        if file.name.removesuffix(".gz") in _MEX_FILES:
            with file.open("rb") as stream:
                yield file.name, stream


def _mex_counts(files: Iterator[tuple[str, IO[bytes]]], where: str) -> Counts:
    """Counts of three files in Matrix Market form."""
    found: dict[str, Any] = {}
    with reading(where):
        for path, file in files:
            name = path.rpartition("/")[2]
            kind = _MEX_FILES.get(name.removesuffix(".gz"))
            if kind is None:
                continue
            if kind in found:
                raise InputError(Problem(where, f"holds {kind} twice", "keep one of each file"))
            readers = {"matrix": _read_matrix, "features": _read_features, "barcodes": _read_barcodes}
            with reading(f"{where}/{name}"), open_gzip(file, "rb") if name.endswith(".gz") else file as text:
                found[kind] = readers[kind](text)
    missing = sorted({"matrix", "features", "barcodes"} - set(found))
    if missing:
        said = f"holds no {' and no '.join(missing)}"
        raise InputError(Problem(where, said, "needed are matrix.mtx, features.tsv and barcodes.tsv (or these as .gz)"))
    (names, types), cells, entries = found["features"], found["barcodes"], found["matrix"]
    _check_sizes(entries.shape, names, cells, where)
    return Counts(entries.by_cell(len(cells), len(names), where), cells, names, types, where)


def _read_barcodes(file: IO[bytes]) -> pa.StringArray:
    pieces = [chunk for lines in whole_lines(file) for chunk in _rows(lines, {"name": pa.string()}).column(0).chunks]
    return pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())


def _read_features(file: IO[bytes]) -> tuple[list[str], list[str] | None]:
    """Names, which follow the ids, and types, if there are any."""
    content = file.read(_MOST_TEXT)
    if len(content) == _MOST_TEXT:
        raise ValueError(f"it has more than {format_bytes(_MOST_TEXT)}")
    rows = [line.rstrip("\r").split("\t") for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    names = [row[min(1, len(row) - 1)] for row in rows]
    return names, [row[2] for row in rows] if all(len(row) > 2 for row in rows) else None


def _rows(lines: bytes, types: dict[str, pa.DataType], delimiter: str = "\t") -> pa.Table:
    """Lines of values, all of which are there."""
    return pacsv.read_csv(
        pa.BufferReader(lines),
        read_options=pacsv.ReadOptions(use_threads=False, column_names=list(types)),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=pacsv.ConvertOptions(null_values=[], column_types=types),
    )


def _read_matrix(file: IO[bytes]) -> _Entries:
    banner = file.readline(1024).decode("ascii", "replace").lower().split()
    kind = "".join(banner[3:4])
    if banner[:3] != ["%%matrixmarket", "matrix", "coordinate"] or banner[4:] != ["general"] or kind not in _VALUES:
        raise ValueError("it does not begin with '%%MatrixMarket matrix coordinate integer general'")
    line = b"%"
    while line.startswith(b"%") or line.isspace():
        line = file.readline(_MOST_TEXT)
    n_features, n_cells, nnz = (int(size) for size in line.split())
    entries = _Entries((n_features, n_cells))
    for lines in whole_lines(file):
        rows = _rows(lines, {"feature": pa.int64(), "cell": pa.int64(), **_VALUES[kind]}, " ")
        entries.add(*(column.to_numpy() for column in rows.columns))
    if entries.n != nnz:
        raise ValueError(f"it has {entries.n:,} entries where {nnz:,} are announced")
    return entries


class _Entries:
    """Entries of a matrix of features × cells as they come."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape, self.n = shape, 0
        if max(shape) >= 2**31:
            raise ValueError(f"it has a size of {max(shape):,}")
        self._features: list[Array] = []
        self._cells: list[Array] = []
        self._values: list[Array] = []

    def add(self, features: Array, cells: Array, values: Array | None = None) -> None:
        """Take some more; counting begins with 1."""
        for name, places, size in zip(("row", "column"), (features, cells), self.shape, strict=True):
            if places.min() < 1 or places.max() > size:
                raise ValueError(f"an entry lies in {name} {places.max()} of {size}, or before the first")
        values = np.ones(features.size, np.int32) if values is None else values
        if values.dtype == np.int64:
            if values.min() < -(2**31) or values.max() >= 2**31:
                raise ValueError(f"a count is as large as {values.max()}")
            values = values.astype(np.int32)
        self.n += features.size
        self._features.append((features - 1).astype(np.int32))
        self._cells.append((cells - 1).astype(np.int32))
        self._values.append(values)

    def by_cell(self, n_cells: int, n_features: int, where: str) -> Compressed:
        """Cells × features, by row."""
        cells, features, values = (_let_go(pieces) for pieces in (self._cells, self._features, self._values))
        if not np.all(cells[1:] >= cells[:-1]):
            order = np.argsort(cells, kind="stable")
            features, values = features[order], values[order]
        indptr = np.append(0, np.cumsum(np.bincount(cells, minlength=n_cells)))
        return compressed((n_cells, n_features), indptr, features, values, axis=0, where=where)


def _let_go(pieces: list[Array]) -> Array:
    """Pieces put together; the list is emptied."""
    whole = np.concatenate(pieces or [np.empty(0, np.int32)])
    pieces.clear()
    return whole
