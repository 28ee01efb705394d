"""Groups and arrays of an HDF5 file or a Zarr store, through one small interface.

Nothing in such a file is trusted: names lead only downwards, links do not leave the file, and
whatever a library raises on damaged content becomes an `InputError` that names the place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, Lazy, as_native, as_text
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.h5read import H5Array, read_dataset
from atlaswriter.sources.zarrread import ZarrArray


@dataclass(frozen=True)
class Node:
    """A group or an array.

    Attributes
    ----------
    raw
        The object of h5py or zarr.
    location
        The file, for messages.
    path
        The place inside the file, for messages.
    workers
        Threads for reading.
    """

    raw: Any
    location: str
    path: str = ""
    workers: int = 1

    @property
    def is_array(self) -> bool:
        """Whether this is an array, not a group."""
        return hasattr(self.raw, "shape")

    @property
    def kind(self) -> str:
        """Kind of an array's dtype, ``"U"`` for every kind of text."""
        with translated_damage(self.path, self.location):
            dtype = self.raw.dtype
            if isinstance(self.raw, h5py.Dataset) and dtype.kind == "O":
                return "U" if h5py.check_string_dtype(dtype) else "O"
            return "U" if dtype.kind in "OSTU" else str(dtype.kind)

    def attribute(self, name: str) -> Any:
        """An attribute, None if there is none."""
        with translated_damage(self.path, self.location):
            value = self.raw.attrs.get(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def names(self) -> list[str]:
        """Names of a group's children, sorted, as folders have no order; none for an array."""
        if self.is_array:
            return []
        with translated_damage(self.path, self.location):
            return sorted(self.raw.keys())

    def child(self, name: str) -> Node:
        """A child; older files may hold it further down, under a name with slashes.

        Raises
        ------
        InputError
            It is missing, or leads out of the file.
        """
        node = self
        for part in name.split("/"):
            node = node._step(part)
        return node

    def _step(self, name: str) -> Node:
        path = f"{self.path}/{name}".lstrip("/")
        with translated_damage(path, self.location):
            if self.is_array or name in ("", ".", "..") or name not in self.raw:
                raise InputError(
                    Problem(path, f"is missing in {self.location}", "write the file again from its source")
                )
            if isinstance(self.raw, h5py.Group) and _leads_out(self.raw.get(name, getlink=True)):
                raise _elsewhere(path)
            return replace(self, raw=self.raw[name], path=path)

    def sizes(self) -> tuple[int, ...] | None:
        """Shape of an array, or of the sparse matrix that a group holds; None if there is none."""
        with translated_damage(self.path, self.location):
            shape = self.raw.shape if self.is_array else self.raw.attrs.get("shape")
            return None if shape is None else tuple(int(size) for size in shape)

    def read(self) -> Array:
        """The whole array in native byte order; text as objects (`str` or `bytes`)."""
        with translated_damage(self.path, self.location):
            _refuse_unsafe(self.raw, self.path)
            if isinstance(self.raw, h5py.Dataset):
                return read_dataset(self.raw, self.workers, self.path, self.location)
            return as_native(np.asarray(self.raw[()]))

    def rows(self, first: int, last: int) -> Array:
        """Some rows of an array of any kind; text as objects."""
        with translated_damage(self.path, self.location):
            _refuse_unsafe(self.raw, self.path)
            return np.asarray(self.raw[first:last])

    @property
    def grain(self) -> int:
        """Rows of a chunk of an array, 1 without chunks."""
        chunks = getattr(self.raw, "shards", None) or self.raw.chunks
        return int(chunks[0]) if chunks else 1

    def lazy(self) -> Lazy:
        """An array of real numbers in one or two dimensions, to be read in slices."""
        with translated_damage(self.path, self.location):
            _refuse_unsafe(self.raw, self.path)
            kind = H5Array if isinstance(self.raw, h5py.Dataset) else ZarrArray
            return kind(self.raw, self.path, self.location)

    def texts(self) -> list[str]:
        """The whole array as text."""
        return as_text(self.read())

    def refuse_unsafe_parts(self) -> None:
        """Refuse a tree with any part that `child` or `read` would refuse."""
        with translated_damage(self.path, self.location):
            if isinstance(self.raw, h5py.Group):
                # h5py stops at the first answer; it does not survive errors from in there.
                path = self.raw.visititems_links(lambda name, link: name if _leads_out(link) else None)
                path = path or self.raw.visititems(lambda name, item: name if _leads_out(item) else None)
                if path:
                    raise _elsewhere(path)
                return
            _refuse_unsafe(self.raw, self.path)
            for name in self.names():
                self.child(name).refuse_unsafe_parts()


def _leads_out(item: Any) -> bool:
    """Whether a link or a dataset of HDF5 takes its data from another file."""
    if isinstance(item, h5py.Dataset):
        return bool(item.external or item.is_virtual)
    return isinstance(item, h5py.ExternalLink)


def _refuse_unsafe(item: Any, path: str) -> None:
    """Refuse an array whose data lies elsewhere, or whose codec could run any code."""
    if _leads_out(item):
        raise _elsewhere(path)
    # zarr 2 runs pickle when it is asked to; zarr 3 refuses it on its own.
    metadata = getattr(item, "metadata", item)
    codecs = [*(getattr(metadata, "filters", None) or ()), getattr(metadata, "compressor", None)]
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
        raise InputError(Problem(path, "is stored with pickle, which can hide programs", "write it again with anndata"))


def _elsewhere(path: str) -> InputError:
    remedy = "copy the data into one file, for example by reading and writing it with anndata"
    return InputError(Problem(path, "its data lies in another file", remedy))
