"""Edits that the client leaves to the server: one frame of one feature goes there, and comes back changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.cells import Cells, parse_cells, to_json
from atlaswriter.formats.deepcell.dimensions import check_bytes
from atlaswriter.formats.deepcell.jsonlist import load, shown, whole
from atlaswriter.formats.deepcell.opening import open_zip, refuse_missing
from atlaswriter.sinks.archive import ArchiveSink, check_target_file
from atlaswriter.sinks.folder import target_path
from atlaswriter.sources.archives import Archive
from atlaswriter.sources.unpacked import Unpacker

T = TypeVar("T")

WRITE_MODES = ("overlap", "overwrite", "exclude")

# Arguments of each action; those with a "?" may be left out.
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "draw": ("trace", "brush_size", "cell", "erase?"),
    "trim_pixels": ("cell", "x", "y"),
    "flood": ("foreground", "background", "x", "y"),
    "watershed": ("cell", "new_cell", "x1", "y1", "x2", "y2"),
    "threshold": ("y1", "x1", "y2", "x2", "cell"),
    "active_contour": ("cell", "min_pixels?", "iterations?", "dilate?"),
    "erode": ("cell",),
    "dilate": ("cell",),
}
# Actions that look at the image.
OF_IMAGES = ("watershed", "threshold", "active_contour")

_CELL, _CELL_OR_NONE = ("cell", "new_cell"), ("foreground", "background")
_COUNTS = ("brush_size", "min_pixels", "iterations", "dilate")

_INT32 = np.dtype("<i4")
_LARGEST_SIDE, _LARGEST_INT = 1 << 20, 2**31 - 1
_MOST_JSON, _MOST_PIXELS = 256 << 20, 1 << 30


@dataclass(frozen=True)
class EditRequest:
    """An edit of one frame of one feature.

    Attributes
    ----------
    action
        One of `ACTIONS`.
    args
        Its arguments by name. Coordinates are pixels; ``trace`` is a text: JSON of ``[[x, y], ...]``.
    labels : int32, (height, width)
        The values of the frame and feature.
    cells
        The cells that these values stand for; None: each value is one.
    write_mode
        ``"overlap"``, ``"overwrite"`` or ``"exclude"``: what becomes of pixels that another cell has.
    raw : uint8, (height, width)
        The image, which the actions `OF_IMAGES` need; else None.
    """

    action: str
    args: Mapping[str, Any]
    labels: NDArray[np.int32]
    cells: Cells | None = None
    write_mode: str = "overlap"
    raw: NDArray[np.uint8] | None = None

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return int(self.labels.shape[0])

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return int(self.labels.shape[1])


@dataclass(frozen=True)
class EditResponse:
    """An edited frame of one feature.

    Attributes
    ----------
    labels : int32, (height, width)
        Its values.
    cells
        The cells that they stand for.
    """

    labels: NDArray[np.int32]
    cells: Cells


def read_edit_request(path: str | PathLike[str]) -> EditRequest:
    """Read what the client sends to have a frame edited.

    Raises
    ------
    InputError
        Something is wrong with it; everything that was found is said at once.
    """
    return _reading(path, "the request", _request)


def write_edit_request(request: EditRequest, out: str | PathLike[str], *, force: bool = False) -> None:
    """Write what the client sends to have a frame edited; the same bytes for the same request.

    Raises
    ------
    InputError
        Something is wrong with the request, or the target may not be written.
    OutputError
        The file cannot be written; the target is as it was.
    """
    problems = Problems()
    _check_plane(request.labels, np.int32, "labels", problems)
    if request.raw is not None:
        _check_plane(request.raw, np.uint8, "raw", problems)
    problems.raise_if_any()
    _check(request, "request", problems)
    problems.raise_if_any()
    described = {
        "width": request.width,
        "height": request.height,
        "action": request.action,
        "args": dict(request.args),
        "writeMode": request.write_mode,
    }
    members: list[tuple[str, Iterable[Any]]] = [(layout.EDIT, [json.dumps(described).encode()])]
    if request.cells is not None:
        members.append((layout.CELLS, to_json(request.cells)))
    members.append((layout.LABELED, [_buffer(request.labels, _INT32)]))
    if request.raw is not None:
        members.append((layout.RAW, [_buffer(request.raw, np.dtype(np.uint8))]))
    _write(members, out, force)


def read_edit_response(path: str | PathLike[str], *, height: int, width: int, t: int = 0, c: int = 0) -> EditResponse:
    """Read what the server answers to an edit.

    As the client does, the first member is taken for the labels and the second for the cells, whatever their names.

    Parameters
    ----------
    path
        The zip file.
    height, width
        Of the frame, which only the request tells.
    t, c
        Frame and feature that were edited: rows of new values do not name them.

    Raises
    ------
    InputError
        Something is wrong with it; everything that was found is said at once.
    """
    return _reading(path, "the response", partial(_response, height=height, width=width, t=t, c=c))


def write_edit_response(response: EditResponse, out: str | PathLike[str], *, force: bool = False) -> None:
    """Write what the server answers to an edit; the same bytes for the same response.

    Raises
    ------
    InputError
        The labels are no int32 plane, or the target may not be written.
    OutputError
        The file cannot be written; the target is as it was.
    """
    problems = Problems()
    _check_plane(response.labels, np.int32, "labels", problems)
    problems.raise_if_any()
    _write([(layout.LABELED, [_buffer(response.labels, _INT32)]), (layout.CELLS, to_json(response.cells))], out, force)


# --- reading


def _reading(path: str | PathLike[str], what: str, read: Callable[[Archive], T]) -> T:
    with TemporaryDirectory(prefix="atlaswriter-") as folder, Unpacker(lambda: Path(folder)) as unpacker:
        return read(open_zip(path, unpacker, what))


def _request(archive: Archive) -> EditRequest:
    refuse_missing(archive, (layout.EDIT, layout.LABELED))
    where, problems = f"{archive.where}: {layout.EDIT}", Problems()
    described = load(archive.read_small(layout.EDIT, _MOST_JSON), where)
    if not isinstance(described, dict):
        raise InputError(Problem(where, f"{shown(described)} is no JSON object", "write an object"))
    height, width = (_side(described, key, where, problems) for key in ("height", "width"))
    problems.raise_if_any()
    labels = _plane(archive, layout.LABELED, (height, width), _INT32, problems)
    has_raw = layout.RAW in archive.names
    raw = _plane(archive, layout.RAW, (height, width), np.dtype(np.uint8), problems) if has_raw else None
    cells = _cells(archive, layout.CELLS, problems) if layout.CELLS in archive.names else None
    args = described.get("args", {})
    if not isinstance(args, dict):
        problems.add(where, f"has the args {shown(args)}", "write an object")
        args = {}
    mode, action = described.get("writeMode", WRITE_MODES[0]), described.get("action")
    request = EditRequest(action, args, labels, cells, mode, raw)  # type: ignore[arg-type]  # checked next
    _check(request, where, problems, has_raw=has_raw)
    problems.raise_if_any()
    return request


def _response(archive: Archive, *, height: int, width: int, t: int, c: int) -> EditResponse:
    problems = Problems()
    if len(archive.names) < 2:
        found = f"has {len(archive.names)} members"
        raise InputError(Problem(archive.where, found, f"a response has {layout.LABELED} and {layout.CELLS}"))
    first, second = archive.names[:2]
    labels = _plane(archive, first, (height, width), _INT32, problems)
    cells = _cells(archive, second, problems, t, c)
    problems.raise_if_any()
    return EditResponse(labels, cells)


def _side(described: Mapping[str, Any], key: str, where: str, problems: Problems) -> int:
    size = whole(described.get(key))
    if size is None or not 1 <= size <= _LARGEST_SIDE:
        problems.add(where, f"has the {key} {shown(described.get(key))}", f"write a number from 1 to {_LARGEST_SIDE:,}")
        return 1
    return size


def _plane(
    archive: Archive, name: str, shape: tuple[int, int], dtype: np.dtype[Any], problems: Problems
) -> NDArray[Any]:
    """One image; zeros, with a problem noted, where its size is wrong."""
    size, where = archive.size(name), f"{archive.where}: {name}"
    fits = check_bytes(size, shape, dtype, where, problems)
    content = problems.attempt(archive.read_small, name, _MOST_PIXELS) if fits else None
    if content is None:
        return np.zeros((1, 1), dtype)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _cells(archive: Archive, name: str, problems: Problems, t: int | None = None, c: int | None = None) -> Cells:
    """Rows of cells; those that lack a frame or feature get the given ones."""
    where = f"{archive.where}: {name}"
    content = problems.attempt(archive.read_small, name, _MOST_JSON) or b"[]"
    if t is not None:
        rows = problems.attempt(load, content, where)
        if isinstance(rows, list):
            filled = [{"t": t, "c": c, **row} if isinstance(row, dict) else row for row in rows]
            content = json.dumps(filled).encode()
    empty = np.empty(0, np.int64)
    return parse_cells(content, where, problems, []) or Cells(empty, empty, empty, empty)


# --- checks


def _check(request: EditRequest, where: str, problems: Problems, *, has_raw: bool | None = None) -> None:
    if request.write_mode not in WRITE_MODES:
        problems.add(where, f"has the writeMode {shown(request.write_mode)}", f"use one of {', '.join(WRITE_MODES)}")
    if not isinstance(request.action, str) or request.action not in ACTIONS:
        problems.add(where, f"has the action {shown(request.action)}", f"use one of {', '.join(ACTIONS)}")
        return
    has_raw = request.raw is not None if has_raw is None else has_raw
    if request.action in OF_IMAGES and not has_raw:
        problems.add(where, f"is to {request.action} without an image", f"add {layout.RAW}: uint8, height × width")
    if request.raw is not None and has_raw and request.raw.shape != request.labels.shape and not problems.found:
        problems.add(where, f"has an image of {request.raw.shape} for labels of {request.labels.shape}")
    if request.cells is not None and np.unique(np.stack([request.cells.t, request.cells.c]), axis=1).shape[1] > 1:
        problems.add(where, "has cells of several frames or features", "give those of the one that is edited")
    _check_args(request, where, problems)


def _check_args(request: EditRequest, where: str, problems: Problems) -> None:
    args, known = request.args, ACTIONS[request.action]
    missing = [name for name in known if not name.endswith("?") and name not in args]
    if missing:
        problems.add(where, f"has no {', '.join(missing)} among the args", f"{request.action} needs {_of(known)}")
    unknown = sorted(set(args) - {name.removesuffix("?") for name in known})
    if unknown:
        problems.add(where, f"has the args {shown(', '.join(unknown))}", f"{request.action} takes {_of(known)}")
    for name in (name.removesuffix("?") for name in known):
        if name in args and (wanted := _wanted(name, args[name], request)):
            problems.add(where, f"has the {name} {shown(args[name])}", wanted)


def _of(names: Iterable[str]) -> str:
    return ", ".join(name.removesuffix("?") for name in names)


def _wanted(name: str, value: Any, request: EditRequest) -> str:
    """What an argument must be; nothing when it is that."""
    if name == "erase":
        return "" if isinstance(value, bool) else "write true or false"
    if name == "trace":
        return "" if _is_trace(value) else "write a text that holds JSON: [[x, y], ...]"
    number = whole(value)
    if name in _CELL:
        low, high = 1, _LARGEST_INT
    elif name in (*_CELL_OR_NONE, *_COUNTS):
        low, high = 0, _LARGEST_INT
    else:
        low, high = 0, (request.width if name.startswith("x") else request.height) - 1
    return "" if number is not None and low <= number <= high else f"write a whole number from {low:,} to {high:,}"


def _is_trace(value: Any) -> bool:
    try:
        points = load(value.encode(), "trace") if isinstance(value, str) else None
    except (InputError, UnicodeEncodeError):
        return False
    return isinstance(points, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in point)
        for point in points
    )


def _check_plane(plane: Any, dtype: Any, where: str, problems: Problems) -> None:
    if not isinstance(plane, np.ndarray) or plane.ndim != 2 or plane.dtype != dtype or not plane.size:
        found = f"is {type(plane).__name__}, {getattr(plane, 'dtype', '')} {getattr(plane, 'shape', '')}"
        problems.add(where, found, f"give an array of {np.dtype(dtype).name}, (height, width)")


# --- writing


def _buffer(plane: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(plane, dtype)


def _write(members: Iterable[tuple[str, Iterable[Any]]], out: str | PathLike[str], force: bool) -> None:
    target, problems = target_path(out, "out"), Problems()
    check_target_file(target, force=force, problems=problems)
    problems.raise_if_any()
    with ArchiveSink(target, force=force) as sink:
        for name, content in members:
            sink.write(name, content)
        sink.publish()
