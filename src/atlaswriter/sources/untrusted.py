"""Files of a folder that was written elsewhere, read without trusting anything that is written in them.

Everything that can go wrong becomes a `ReadError`, whose `rule` is the name that `check` reports.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any

from atlaswriter.findings import ReadError

_LARGEST_COUNT = 2**48


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
    content = read_bytes(locate(root, name), name)
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


def read_bytes(path: Path, name: str, size: int | None = None) -> bytes:
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


def text(value: Any, what: str, where: str) -> str:
    """JSON text."""
    if not isinstance(value, str):
        raise ReadError("json.shape", where, f"{what} is {shown(value)}, not text")
    return value


def number(value: Any, what: str, where: str) -> float:
    """A finite JSON number."""
    try:
        result = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ReadError("json.shape", where, f"{what} is {shown(value)}, not a finite number")
    return result


def count(value: Any, what: str, where: str) -> int:
    """A whole number, not negative; R writes large ones as ``1e+05``."""
    result = number(value, what, where)
    if not 0 <= result <= _LARGEST_COUNT or result != int(result):
        raise ReadError("json.shape", where, f"{what} is {shown(value)}, not a count")
    return int(result)


def shown(value: Any) -> str:
    """A JSON value for a message."""
    result = ascii(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return result if len(result) <= 40 else f"{result[:40]}..."
