"""Damaged content: whatever a library raises on it becomes an `InputError` that names the place."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from atlaswriter.errors import InputError, Problem

# What h5py, zarr and numcodecs raise on damaged content.
_DAMAGE = (
    *(OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError),
    *(zlib.error, struct.error, zipfile.BadZipFile),
)


@contextmanager
def translated_damage(where: str, location: str) -> Iterator[None]:
    """Turn errors from reading damaged content into `InputError`."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        remedy = "the file is damaged or incomplete: copy or write it again"
        raise InputError(Problem(where, f"cannot be read from {location} ({reason})", remedy)) from error
