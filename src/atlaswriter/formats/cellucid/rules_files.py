"""Files of an export folder, read without trusting anything that is written in them.

Everything that can go wrong becomes a `ReadError`, whose `rule` is the name that `check` reports.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs.gzip import inflate
from atlaswriter.errors import FormatError, Problem

Array = NDArray[Any]

_REMEDY = "export again, or copy the folder again from where it was complete"


class ReadError(FormatError):
    """Something that keeps a file, or an entry of a manifest, from being read.

    Attributes
    ----------
    rule
        Stable short name of the rule that is broken.
    problem
        File, finding and remedy.
    """

    def __init__(self, rule: str, where: str, found: str, remedy: str = _REMEDY) -> None:
        self.rule = rule
        self.problem = Problem(where, found, remedy)
        super().__init__(str(self.problem))


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


def locate(root: Path, relative: str) -> Path:
    """Path of a file named in a manifest, made sure to be inside `root`, which is resolved.

    Raises
    ------
    ReadError
        The name is absolute, has a ``..`` part, or leads outside over a symbolic link.
    """
    # Windows' rules know both separators and drive letters, so they serve every machine.
    parts = PureWindowsPath(relative)
    if not relative or parts.anchor or ".." in parts.parts:
        raise ReadError(
            "file.path", ascii(relative), "is not a path inside the export", "name files relative to the folder"
        )
    try:
        relative.encode()
        path = (root / relative).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise ReadError("file.path", ascii(relative), f"is not a usable path ({error})") from None
    if not path.is_relative_to(root):
        raise ReadError(
            "file.path", relative, "leads outside the export over a symbolic link", "copy the file in its place"
        )
    return path


def load_json(root: Path, name: str) -> dict[str, Any]:
    """One JSON object from a file, by the browser's rules: UTF-8, no NaN, no Infinity, no key twice."""
    content = _read(locate(root, name), name)
    try:
        result = json.loads(content.decode(), parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ReadError("json", name, f"is not standard JSON ({error})") from None
    if not isinstance(result, dict):
        raise ReadError("json", name, "does not hold a JSON object")
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed; browsers refuse the whole file")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {key!a} twice")
    return result


def read_array(root: Path, payload: Payload) -> Array:
    """Content of a payload, read-only, as dtype and shape declare it.

    Raises
    ------
    ReadError
        The file is missing, has another size, or its gzip stream is damaged.
    """
    path = locate(root, payload.path)
    content = _read(path, payload.path, payload.size)
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


def _read(path: Path, name: str, size: int | None = None) -> bytes:
    """Bytes of a regular file; a payload may not be larger than gzip could make `size` bytes."""
    try:
        if not path.is_file():
            found = "is not a regular file" if path.exists() else "is missing"
            raise ReadError("file.missing", name, found)
        stored = path.stat().st_size
        if size is not None and stored > size + size // 8 + 65536:
            raise ReadError("file.size", name, f"holds {stored:,} bytes, {size:,} are declared")
        return path.read_bytes()
    except (OSError, MemoryError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError("file.unreadable", name, f"cannot be read ({error or 'out of memory'})") from None
