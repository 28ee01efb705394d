"""Files of an export folder, read without trusting anything that is written in them.

Everything that can go wrong becomes a `ReadError`, whose `rule` is the name that `check` reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs.gzip import inflate
from atlaswriter.errors import FormatError
from atlaswriter.findings import ReadError
from atlaswriter.sources.untrusted import locate, read_bytes

Array = NDArray[Any]


@dataclass(frozen=True)
class Payload:
    """A binary file that a manifest declares: little-endian, row-major, without a header."""

    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the content once inflated."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def read_array(root: Path, payload: Payload) -> Array:
    """Content of a payload, read-only, as dtype and shape declare it.

    Raises
    ------
    ReadError
        The file is missing, has another size, or its gzip stream is damaged.
    """
    path = locate(root, payload.path)
    content = read_bytes(path, payload.path, payload.size)
    if payload.path.endswith(".gz"):
        try:
            content = inflate(content, payload.size)
        except FormatError as error:
            raise ReadError("gzip", payload.path, str(error)) from None
    if len(content) != payload.size:
        raise ReadError(
            "file.size", payload.path, f"holds {_size(content, payload)}, {payload.size:,} bytes are declared"
        )
    return np.frombuffer(content, np.dtype(payload.dtype).newbyteorder("<")).reshape(payload.shape)


def _size(content: bytes, payload: Payload) -> str:
    # Inflating stops one byte past the declared size.
    inflated = payload.path.endswith(".gz") and len(content) > payload.size
    return f"more than {payload.size:,} bytes" if inflated else f"{len(content):,} bytes"
