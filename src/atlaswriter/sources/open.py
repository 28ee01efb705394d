"""From what a user names to a `Source`."""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import Source
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.memory import AnnDataSource
from atlaswriter.sources.store import StoreSource, is_current
from atlaswriter.sources.tree import Node
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    from anndata import AnnData

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GZIP_SIGNATURE = b"\x1f\x8b"
_REMEDY = "give an .h5ad file or a Zarr store written by anndata"

# Names at the root by which other formats are known.
_FOREIGN = (
    ({"mod"}, "MuData", "save one modality, for example mdata['rna'].write_h5ad(...)"),
    ({"matrix"}, "a 10x Genomics matrix", "read it with scanpy.read_10x_h5, add an embedding, and save it as .h5ad"),
    ({"row_attrs", "col_attrs"}, "a loom file", "read it with anndata.io.read_loom and save it as .h5ad"),
    ({"tables", "points"}, "SpatialData", "give the table inside it, for example data.zarr/tables/table"),
    ({"cell.names"}, "an h5Seurat file", "convert it to .h5ad, for example with SeuratDisk"),
)


def open_source(data: str | os.PathLike[str] | AnnData, *, workers: int | None = None) -> Source:
    """Open AnnData wherever it lives.

    Parameters
    ----------
    data
        An AnnData object, or the path of an ``.h5ad`` file, a Zarr folder or a zipped Zarr store.
        Files are known by their content, not by their name.
    workers
        Threads for reading; all usable CPUs by default.

    Raises
    ------
    InputError
        There is no such file, or it does not hold an AnnData that can be read.
    """
    if not isinstance(data, str | os.PathLike):
        return _from_object(data)
    path = Path(data)
    location = str(path)
    if path.is_dir():
        return _from_zarr(path, location, workers)
    start = _first_bytes(path)
    if start == _HDF5_SIGNATURE:
        return _from_hdf5(path, location, workers)
    if zipfile.is_zipfile(path):
        return _from_zarr(path, location, workers)
    raise InputError(Problem(location, _looks_like(start), _REMEDY))


def _from_object(data: Any) -> Source:
    # Whoever holds an AnnData object has imported anndata.
    anndata = sys.modules.get("anndata")
    if anndata is not None and isinstance(data, anndata.AnnData):
        return AnnDataSource(data)
    remedy = "give an AnnData object or a path; of a MuData object, one modality such as mdata['rna']"
    raise InputError(Problem("input", f"is a {type(data).__name__}", remedy))


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise InputError(Problem(str(path), "there is no such file", "check the path")) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be opened ({error.strerror})", "check its permissions")) from error


def _looks_like(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.startswith(_GZIP_SIGNATURE):
        return "is gzip-compressed; unpack it first"
    return "is neither an HDF5 file nor a zipped Zarr store"


def _from_hdf5(path: Path, location: str, workers: int | None) -> Source:
    import h5py

    with translated_damage(location, "disk"):
        try:
            file = h5py.File(path, "r")
        except BlockingIOError:
            found = "is being written by another program"
            raise InputError(Problem(location, found, "wait until it is closed there")) from None
    return _from_root(Node(file, location, workers=workers or usable_cpus()), file.close)


def _from_zarr(path: Path, location: str, workers: int | None) -> Source:
    if path.is_dir() and not any((path / name).exists() for name in (".zgroup", "zarr.json")):
        raise InputError(Problem(location, "is a folder but no Zarr store", _REMEDY))
    import zarr

    with translated_damage(location, "disk"):
        store: Any = str(path) if path.is_dir() else zarr.storage.ZipStore(str(path), mode="r")
        group = zarr.open_group(store, mode="r")
    return _from_root(Node(group, location, workers=workers or usable_cpus()), group.store.close)


def _from_root(root: Node, close: Callable[[], None]) -> Source:
    try:
        _refuse_foreign(root)
        if is_current(root):
            return StoreSource(root, close)
        source = _from_older(root)
    except BaseException:
        close()
        raise
    close()
    return source


def _refuse_foreign(root: Node) -> None:
    """Refuse a tree that is not AnnData, and say what it looks like."""
    names = set(root.names())
    for needed, kind, remedy in _FOREIGN:
        if needed <= names:
            raise InputError(Problem(root.location, f"looks like {kind}, not AnnData", remedy))
    for group in ("obs", "var"):
        if group not in names:
            found = f"has no {group}, so it is not AnnData; it holds {listed(sorted(names)) or 'nothing'}"
            raise InputError(Problem(root.location, found, _REMEDY))


def _from_older(root: Node) -> Source:
    """A layout from before anndata 0.8, by anndata itself; of HDF5, X stays in the file."""
    import anndata

    root.refuse_unsafe_parts()
    with warnings.catch_warnings():
        # Nobody can act on what it says about old layouts here.
        warnings.simplefilter("ignore")
        try:
            is_zarr = hasattr(root.raw, "store")
            adata = anndata.io.read_zarr(root.raw) if is_zarr else _backed(root.location)
        except Exception as error:
            found = f"has an older AnnData layout that anndata {anndata.__version__} cannot read ({error})"
            raise InputError(Problem(root.location, found, "write it again with the anndata that made it")) from error
    close = adata.file.close if adata.isbacked else lambda: None
    return AnnDataSource(adata, root.location, close=close, workers=root.workers)


def _backed(location: str) -> AnnData:
    import anndata

    try:
        return anndata.read_h5ad(location, backed="r")
    except Exception:  # noqa: BLE001 - what it cannot back it may yet read, or say what is wrong
        return anndata.read_h5ad(location)
