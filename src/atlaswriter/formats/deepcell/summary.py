"""What a project holds, how it is stored, and what deserves a second look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.formats.deepcell.channelnames import changes
from atlaswriter.formats.deepcell.job import Job
from atlaswriter.report import Report
from atlaswriter.sources.movie import Movie, Submission

if TYPE_CHECKING:
    from atlaswriter.formats.deepcell.write import Project


def close(report: Report, job: Job, submission: Submission, project: Project, *, is_big: list[str]) -> None:
    """Put everything into the report."""
    images, annotations, remade = submission.images, project.annotations, project.remade
    n_frames, n_channels, height, width = images.stack.shape
    contents: dict[str, Any] = {
        "images": f"{images.where}, {_axes(images)}",
        "labels": "none" if submission.labels is None else f"{submission.labels.where}, {_axes(submission.labels)}",
        "frames": f"{n_frames:,} of {width:,} × {height:,} pixels",
        "channels": list(project.image.images.names) or n_channels,
        "pixels": _pixels(project, images),
        "features": project.labels.images.n_channels,
        "cells": int(np.unique(remade.cells.cell).size),
        "rows of cells": remade.cells.n,
        "divisions": len(annotations.divisions),
        "cell types": len(annotations.cell_types),
    }
    if project.scales[0].low is not None:
        contents["limits"] = [[scale.low, scale.high] for scale in project.scales]
    if annotations.spots is not None:
        contents["spots"] = annotations.spots.n
    report.contents |= contents
    report.warnings += [*_warnings(submission, project), *annotations.warnings]
    report.warnings += _too_large(job, is_big)
    report.bytes_in = project.image.cut.content_bytes + project.labels.cut.content_bytes
    report.bytes_out = job.sink.target.stat().st_size
    report.files = 1


def _axes(movie: Movie) -> str:
    return f"axes {movie.axes}{' (assumed)' if movie.assumed else ''}"


def _pixels(project: Project, images: Movie) -> str | list[str]:
    """How pixels are stored, with the limits of every channel that was stretched."""
    stored = project.image.images.dtype
    if project.scales[0].low is None:
        return f"{stored}, as they were given"
    names = project.image.images.names or [f"channel {number}" for number in range(len(project.scales))]
    limits = ", ".join(
        f"{name} {_exact(scale.low)} to {_exact(scale.high)}" for name, scale in zip(names, project.scales, strict=True)
    )
    return f"{stored}, from {images.stack.dtype}; stretched to 0 to 255: {limits}"


def _exact(number: float | None) -> str:
    """All digits, so that it can be undone."""
    return str(number).removesuffix(".0")


def _warnings(submission: Submission, project: Project) -> list[str]:
    movies = [movie for movie in (submission.images, submission.labels) if movie is not None]
    found = [text for movie in movies for text in movie.warnings]
    found += submission.warnings
    remade = project.remade
    if remade.n_values_removed:
        found.append(f"{remade.n_values_removed:,} values of labels are in no row of the cells: their pixels became 0")
    if remade.n_rows_dropped:
        found.append(f"{remade.n_rows_dropped:,} rows of cells have values that no pixel shows: left out")
    if remade.n_rows_repeated:
        found.append(f"{remade.n_rows_repeated:,} rows of cells are there twice: left out")
    stored = project.image.images.dtype
    if stored.kind == "i" and stored.itemsize < 4:
        found.append(f"the client takes {stored} pixels for unsigned ones: negative values look bright")
    if other := [name for name in project.image.images.names if changes(name)]:
        found.append(
            f"the client shows other names of channels than {listed(other)}: & and < as &amp; and &lt;, 007 as 7"
        )
    if n_missing := sum(scale.n_missing for scale in project.scales):
        found.append(f"{n_missing:,} pixels are not finite: NaN is stored as 0, infinities as 0 and 255")
    flat = [number for number, scale in enumerate(project.scales) if scale.low is not None and scale.low == scale.high]
    if flat:
        found.append(f"channels {listed(flat)} have one value everywhere, which is stored as 0")
    return found


def _too_large(job: Job, is_big: list[str]) -> list[str]:
    large = sorted({*is_big, *job.sink.zip64})
    if not large:
        return []
    return [f"{listed(large)} go beyond 4 GiB (BigTIFF, Zip64): the deployed client may refuse them"]
