"""Export requests: what the client sends to have a project made, since it cannot write OME-TIFFs itself."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import numpy as np

from atlaswriter.errors import Problems, listed
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.cells import derive, to_json
from atlaswriter.formats.deepcell.dimensions import Dimensions, check_bytes
from atlaswriter.formats.deepcell.job import opened
from atlaswriter.formats.deepcell.jsonlist import load, shown
from atlaswriter.formats.deepcell.opening import open_zip, refuse_missing, tables
from atlaswriter.formats.deepcell.survey import as_values
from atlaswriter.formats.deepcell.values import Present, Values
from atlaswriter.report import Report
from atlaswriter.sinks.archive import ArchiveSink, check_target_file
from atlaswriter.sinks.folder import target_path
from atlaswriter.sources.archives import Archive
from atlaswriter.sources.axes import Reading
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Blank, Movie, Submission
from atlaswriter.sources.nparray import in_file
from atlaswriter.sources.submission import OpenSubmission, Options
from atlaswriter.sources.unpacked import Unpacker

_NEEDED = (layout.DIMENSIONS, layout.LABELED, layout.RAW, layout.CELLS)
_PASSED_ON = (layout.CELLS, layout.CELL_TYPES, layout.DIVISIONS, layout.SPOTS)

_READING = Reading((1, 0, 2, 3), "CTYX")
_INT32 = np.dtype("<i4")

_MOST_DIMENSIONS, _MOST_NAMES = 1 << 20, 16 << 20

# What the client leaves in names, and escapes no further.
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});")

# Pixels that are read at once where a request is written.
_BLOCK_BYTES = 4 << 20


def deepcell_export(
    request: str | PathLike[str],
    out: str | PathLike[str],
    *,
    image_dtype: Literal["keep", "uint8"] = "keep",
    preview: bool = False,
    force: bool = False,
    memory_budget: str | int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    spill_dir: str | PathLike[str] | None = None,
) -> Report:
    """Write the project that the client asks for when it exports.

    Labels are made anew, in every frame and feature: values without a cell become 0, values of one cell become that
    cell, values of several cells a code above every cell of the frame.

    Parameters
    ----------
    request
        Zip file with ``dimensions.json``, ``labeled.dat`` (int32, features × frames × rows × columns), ``raw.dat``
        (channels × frames × rows × columns, of the dtype that the dimensions name, else uint8) and ``cells.json``; and
        ``channels.json``, ``cellTypes.json``, ``divisions.json`` and ``spots.csv``, where there are any.
    out
        Zip file to write.
    image_dtype
        ``"keep"``: pixels are stored as they are. ``"uint8"``: as in `atlaswriter.deepcell`.
    preview, force, memory_budget, workers, progress, spill_dir
        As in `atlaswriter.deepcell`.

    Returns
    -------
    Report
        What was written, and what deserves a second look.

    Raises
    ------
    InputError
        Something is wrong with the request; everything that was found is said at once.
    BudgetError
        The memory budget is too small; says what would do.
    OutputError
        The project cannot be written; the target is as it was.
    """
    with opened(dict(locals()), [request]) as job:
        # What takes a moment to import is not needed to refuse an option.
        from atlaswriter.formats.deepcell.write import export

        with Unpacker(job.sink.scratch) as unpacker:
            with job.report.phase("open"):
                submission = open_request(request, unpacker)
            return export(job, submission, unpacker, lenient=True)


def open_request(path: str | PathLike[str], unpacker: Unpacker) -> Submission:
    """What an export request holds; its pixels are readable while the unpacker is open.

    Raises
    ------
    InputError
        Everything that is wrong, but for the contents of its tables.
    """
    archive, problems = open_zip(path, unpacker, "the request"), Problems()
    refuse_missing(archive, _NEEDED)
    where = f"{archive.where}: {layout.DIMENSIONS}"
    content = problems.attempt(archive.read_small, layout.DIMENSIONS, _MOST_DIMENSIONS)
    dimensions = None if content is None else Dimensions.parse(content, where, problems)
    if dimensions is not None:
        for name, shape, dtype in _buffers(dimensions):
            check_bytes(archive.size(name), shape, dtype, f"{archive.where}: {name}", problems)
    names = _names(archive, dimensions, problems)
    members = tables(archive, _PASSED_ON, problems)
    problems.raise_if_any()
    assert dimensions is not None  # noqa: S101 - none is a problem
    labels, images = (
        Movie(in_file(archive.open(name), 0, shape, dtype, _READING), axes=_READING.letters, where=f"{path}: {name}")
        for name, shape, dtype in _buffers(dimensions)
    )
    left = sorted(set(archive.names) - {*_NEEDED, *_PASSED_ON, layout.CHANNELS})
    warnings = (f"{archive.where}: members that no request has are left out: {listed(left)}",) if left else ()
    return Submission(replace(images, names=names), labels, members, warnings)


def _buffers(dimensions: Dimensions) -> Iterator[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """Name, shape and dtype of the labels and of the image."""
    yield layout.LABELED, dimensions.label_shape, _INT32
    yield layout.RAW, dimensions.image_shape, dimensions.dtype


def _names(archive: Archive, dimensions: Dimensions | None, problems: Problems) -> tuple[str, ...]:
    """Names of the channels; empty where there are none."""
    if layout.CHANNELS not in archive.names:
        return ()
    where = f"{archive.where}: {layout.CHANNELS}"
    content = problems.attempt(archive.read_small, layout.CHANNELS, _MOST_NAMES)
    found = None if content is None else problems.attempt(load, content, where)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(name, str | int | float) for name in found):
        problems.add(where, f"{shown(found)} is no list of names", "write a list of texts")
        return ()
    if dimensions is not None and len(found) != dimensions.n_channels:
        problems.add(where, f"has {len(found):,} names for {dimensions.n_channels:,} channels", "give one for each")
    return tuple(_as_text(name) for name in found)


def _as_text(name: str | float) -> str:
    """A name as it was before the client's XML reader: numbers and booleans are texts that look so."""
    if isinstance(name, str):
        return _ESCAPED.sub(lambda found: html.unescape(found[0]), name)
    return json.dumps(int(name) if isinstance(name, float) and name.is_integer() else name)


def write_export_request(
    images: Any,
    out: str | PathLike[str],
    labels: Any = None,
    axes: str | None = None,
    *,
    label_axes: str | None = None,
    force: bool = False,
) -> None:
    """Write what the client sends to have a project exported; the same bytes for the same input.

    Parameters
    ----------
    images, labels, axes, label_axes
        As of `atlaswriter.deepcell`, such as a project. Without cells, each value of the labels is one.
    out
        Zip file to write.
    force
        Replace an existing file.

    Raises
    ------
    InputError
        The input is damaged, has pixels that JavaScript has no array for, or labels that do not fit in int32.
    OutputError
        The file cannot be written; the target is as it was.
    """
    problems, target = Problems(), target_path(out, "out")
    check_target_file(target, force=force, problems=problems)
    problems.raise_if_any()
    reading = Options(axes, label_axes)
    with (
        ArchiveSink(target, force=force) as sink,
        OpenSubmission(images, labels, scratch=sink.scratch, options=reading) as given,
    ):
        _write_request(given.submission, sink)
        given.verify()
        sink.publish()


def _write_request(submission: Submission, sink: ArchiveSink) -> None:
    images = submission.images
    n_frames, n_channels, height, width = images.stack.shape
    labels = submission.labels or Movie(Blank(n_frames, height, width), where="labels")
    n_features = labels.stack.shape[1]
    dimensions = Dimensions(width, height, n_frames, n_channels, n_features, images.stack.dtype)
    sink.write(layout.DIMENSIONS, [dimensions.to_json()])
    values: list[Values] = []
    sink.write(layout.LABELED, _labelled(labels, values))
    sink.write(layout.RAW, (_little_endian(rows) for rows in _rows(images)))
    names = images.names or [f"channel {number}" for number in range(n_channels)]
    sink.write(layout.CHANNELS, [json.dumps([html.escape(name) for name in names]).encode()])
    for name in _PASSED_ON:
        if name in submission.members:
            sink.write(name, [submission.members[name][1]])
        elif name == layout.CELLS:
            sink.write(name, to_json(derive(_present(values, labels.stack.shape))))


def _rows(movie: Movie) -> Iterator[Array]:
    """All pixels, some rows at a time: channels outermost, then frames."""
    n_frames, n_channels, height, width = movie.stack.shape
    step = max(1, _BLOCK_BYTES // (width * movie.stack.dtype.itemsize), movie.stack.grain)
    for channel in range(n_channels):
        for frame in range(n_frames):
            for top in range(0, height, step):
                rows = slice(top, min(top + step, height))
                yield movie.stack.read(frame, slice(channel, channel + 1), rows)


def _little_endian(rows: Array) -> Array:
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))


def _labelled(labels: Movie, values: list[Values]) -> Iterator[Array]:
    """Labels as they are sent; puts the values of each feature and frame into a list."""
    n_frames, _, height, _ = labels.stack.shape
    n_rows = height
    for rows in _rows(labels):
        if n_rows == height:
            feature, frame = divmod(len(values), n_frames)
            values.append(Values(f"{labels.where}, frame {frame}, feature {feature}"))
            n_rows = 0
        block = as_values(rows, labels.where)
        values[-1].add(block)
        n_rows += rows.shape[1]
        yield _little_endian(block)


def _present(values: list[Values], shape: tuple[int, int, int, int]) -> Present:
    """The values, gathered by feature and frame."""
    n_frames, n_features = shape[:2]
    lists = (values[c * n_frames + t].sorted() for t in range(n_frames) for c in range(n_features))
    return Present.of(lists, n_features)
