"""Zarr stores in zip files, as Xenium writes them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.tree import Node
from atlaswriter.units import format_bytes

_FROM_SOURCE = "write it again from its source"

# Of a zip file: content may be so many times larger than what is stored, from a size on where it matters.
_LARGEST_RATIO, _HARMLESS_BYTES = 1000, 64 << 20


class ZarrZip:
    """A Zarr store in a zip file, whose arrays may not be much larger than the file: a context manager.

    Parameters
    ----------
    path
        The file.
    where
        Its name in messages.
    workers
        Threads for reading.

    Attributes
    ----------
    root
        Its root.
    """

    def __init__(self, path: Path, where: str, workers: int = 1) -> None:
        import zarr

        self._where = where
        with translated_damage(where, "disk"):
            self._largest = max(_HARMLESS_BYTES, _LARGEST_RATIO * path.stat().st_size)
            with zipfile.ZipFile(path) as file:
                for member in file.infolist():
                    self._check(member.file_size, member.filename)
            self._store = zarr.storage.ZipStore(str(path), mode="r")
            self.root = Node(zarr.open_group(self._store, mode="r"), where, workers=workers)

    def __enter__(self) -> ZarrZip:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def has(self, name: str) -> bool:
        """Whether there is a group or an array of that name."""
        try:
            self.root.child(name)
        except InputError:
            return False
        return True

    def cell_names(self, name: str = "cell_id") -> pa.StringArray:
        """Names of cells, as Xenium spells the numbers in an array.

        It is (n, 2): prefix and suffix of names such as ``"aaaabbcd-1"``, letters a to p standing for hexadecimal
        digits; or (n,) of the first version, whose names are numbers.
        """
        two = len(self.root.child(name).sizes() or ()) == 2
        ids = self.array(name, None, 2).read() if two else self.array(name, None).read()
        if not two:
            return pc.cast(pa.array(ids), pa.string())
        digits = (ids[:, :1].astype(np.uint32) >> np.arange(28, -1, -4, dtype=np.uint32)) & 15
        prefixes = (digits + ord("a")).astype(np.uint8).view("S8").ravel()
        suffixes = pc.cast(pa.array(ids[:, 1]), pa.string())
        return pc.binary_join_element_wise(pa.array(prefixes, pa.binary()).cast(pa.string()), suffixes, "-")

    def array(self, name: str, *shape: int | None) -> Node:
        """An array of numbers of such a shape, in which None is any size; `InputError` if there is none."""
        node = self.root.child(name)
        sizes = node.sizes()
        fits = sizes is not None and len(sizes) == len(shape)
        if not node.is_array or sizes is None or not fits or node.kind not in "iuf":
            found = f"is no array of numbers in {len(shape)} dimension(s)"
            raise InputError(Problem(f"{self._where}/{name}", found, _FROM_SOURCE))
        if any(wanted not in (size, None) for size, wanted in zip(sizes, shape, strict=True)):
            found = f"has the shape {sizes}, where {tuple(size or 'any' for size in shape)} is needed"
            raise InputError(Problem(f"{self._where}/{name}", found, _FROM_SOURCE))
        for extent in (sizes, node.raw.chunks):
            self._check(math.prod(extent) * node.raw.dtype.itemsize, name)
        return node

    def _check(self, n_bytes: int, name: str) -> None:
        if n_bytes > self._largest:
            found = f"is said to hold {format_bytes(n_bytes)}, more than such a file can"
            raise InputError(Problem(f"{self._where}/{name}", found, _FROM_SOURCE))
