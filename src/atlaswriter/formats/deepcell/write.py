"""One project, from a submission to a published zip: look at everything, then write it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from atlaswriter.engine.run import Team
from atlaswriter.engine.warmup import warm_up
from atlaswriter.errors import Problems
from atlaswriter.formats.deepcell import layout, summary
from atlaswriter.formats.deepcell.annotations import Annotations
from atlaswriter.formats.deepcell.blocks import Cut
from atlaswriter.formats.deepcell.channelnames import usable_name
from atlaswriter.formats.deepcell.images import ImageWriter, written_room
from atlaswriter.formats.deepcell.job import Job
from atlaswriter.formats.deepcell.ometiff import MOST_PAGES, OME_TYPES, Images
from atlaswriter.formats.deepcell.remake import Remade, plan_remake
from atlaswriter.formats.deepcell.scale import Scale
from atlaswriter.formats.deepcell.survey import as_values, doubts, extremes, present_values, survey_room
from atlaswriter.formats.deepcell.values import Present
from atlaswriter.formats.deepcell.warmup import wanted_kernels
from atlaswriter.report import Report
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Blank, Movie, Submission
from atlaswriter.units import usable_cpus

# What a thread keeps beside its blocks: what the libraries hold on to.
_WORKER_BYTES = 8 << 20

# Memory for a byte of a table: its text, and the numbers of a row of cells, 32 bytes where the text takes 45.
_TABLE_TIMES = 2

# What a row of the cells takes while labels are planned. Measured on a million of them: 250, without features 282.
_ROW_BYTES = 288


@dataclass(frozen=True)
class Project:
    """What is written.

    Attributes
    ----------
    image
        The image, and how it is stored.
    labels
        The segmentation; int32.
    scales
        How each channel is stored.
    remade
        How the labels' values become those that are stored, and the cells they stand for.
    annotations
        Everything that is no image.
    """

    image: ImageWriter
    labels: ImageWriter
    scales: Sequence[Scale]
    remade: Remade
    annotations: Annotations


class Given(Protocol):
    """Files that a submission is read from, while they are open."""

    @property
    def held(self) -> int:
        """Bytes that reading them takes, beside what is asked for."""

    def verify(self) -> None:
        """Raise `InputError` where something turns out to be damaged that nobody has read."""


def export(job: Job, submission: Submission, given: Given, *, lenient: bool = False) -> Report:
    """Write and publish a project.

    Parameters
    ----------
    job
        Where it is written, and how.
    submission
        What it is made of; open.
    given
        Where it is read from.
    lenient
        As an export: leave out cells that no pixel shows, and only warn of divisions and types that do not go with the
        cells.

    Raises
    ------
    InputError
        Something is wrong with the submission; the target is as it was.
    BudgetError
        The memory budget is too small.
    OutputError
        The project cannot be written; the target is as it was.
    """
    report = job.report
    with report.phase("kernels"):
        warm_up(wanted_kernels(submission, keep=job.options.keep))
    job.budget.settle()
    workers = job.resources.workers or usable_cpus()
    aside = workers * _WORKER_BYTES + given.held
    with Team(workers, job.budget) as team:
        project = _checked(job, submission, team, aside, lenient=lenient)
        is_big = _write(job, project, team)
    with report.phase("publish"):
        given.verify()
        job.sink.publish()
    if job.options.preview:
        # Reading takes a moment to import.
        from atlaswriter.formats.deepcell.preview import write_preview_beside

        with report.phase("preview"):
            write_preview_beside(job.sink.target, force=job.options.force)
    summary.close(report, job, submission, project, is_big=is_big)
    report.close()
    return report


def _checked(job: Job, submission: Submission, team: Team, aside: int, *, lenient: bool) -> Project:
    """Everything that is to be known before the first pixel is written."""
    problems, images = Problems(), submission.images
    n_frames, _, height, width = images.stack.shape
    labels = submission.labels or Movie(Blank(n_frames, height, width), where="labels")
    images = replace(images, names=_names(job, images, problems))
    _check_dtypes(images, labels, job, problems)
    if (n_images := max(images.stack.shape[1], labels.stack.shape[1]) * n_frames) > MOST_PAGES:
        problems.add(images.where, f"makes {n_images:,} images, of which a file holds {MOST_PAGES:,}", "divide it")
    tables = sum(len(content) for _, content in submission.members.values())
    job.budget.set_aside(tables * _TABLE_TIMES, "cells.json and other tables")
    annotations = Annotations.parse(submission.members, (n_frames, height, width), problems)
    problems.raise_if_any()
    stored = _layout(images, _stored_dtype(images, job))
    kept = _layout(labels, np.dtype(np.int32), runs=True)
    image_cut, label_cut = Cut.of(images.stack, stored.strip_rows), Cut.of(labels.stack, kept.strip_rows)
    room = max(written_room(stored, image_cut), written_room(kept, label_cut), survey_room(label_cut))
    job.budget.require(aside + room, "this project")
    job.budget.set_aside(aside, "threads")
    size = image_cut.content_bytes + label_cut.content_bytes
    with job.report.phase("look through", size), job.progress.phase("look through", size):
        present = present_values(labels, label_cut, team, job.progress)
        scales = _scales(images, image_cut, job, team)
    job.budget.set_aside(annotations.n_rows(present) * _ROW_BYTES, "the list of cells")
    remade = _remade(present, annotations, labels, problems, lenient=lenient)
    problems.raise_if_any()
    return Project(
        ImageWriter(stored, image_cut, lambda pixels, _, channel: scales[channel].apply(pixels)),
        ImageWriter(kept, label_cut, _Relabel(remade, labels.where)),
        scales,
        remade,
        annotations,
    )


@dataclass(frozen=True)
class _Relabel:
    """Pixels of the labels to the values that are stored."""

    remade: Remade
    where: str

    def __call__(self, pixels: Array, frame: int, feature: int) -> Array:
        values = as_values(pixels, self.where)
        if self.remade.identity(frame, feature):
            return values
        out = np.empty(values.shape, np.int32)
        self.remade.table(frame, feature).apply(values, out)
        return out


def _remade(present: Present, annotations: Annotations, labels: Movie, problems: Problems, *, lenient: bool) -> Remade:
    present.refuse_negative(labels.where, problems)
    problems.raise_if_any()
    annotations.warnings += doubts(present, labels)
    cells = annotations.checked_cells(present, problems, lenient=lenient)
    problems.raise_if_any()
    remade = plan_remake(cells, present.n_frames, present.n_features, present)
    annotations.check_against(remade.cells, present, problems, lenient=lenient)
    return remade


def _names(job: Job, images: Movie, problems: Problems) -> tuple[str, ...]:
    """Names of the channels as XML can hold them."""
    given, n_channels = job.options.channel_names, images.stack.shape[1]
    if given is not None and len(given) != n_channels:
        problems.add("channel_names", f"{len(given)} names for {n_channels} channels", "give one for each")
    names = images.names if given is None else tuple(given)
    return tuple(usable_name(name) for name in names) if len(names) == n_channels else ()


def _check_dtypes(images: Movie, labels: Movie, job: Job, problems: Problems) -> None:
    dtype = images.stack.dtype
    if job.options.keep and dtype.str[1:] not in OME_TYPES:
        remedy = 'convert it, or store it as 8 bit (image_dtype="uint8", --image-dtype uint8)'
        problems.add(images.where, f"is {dtype}, which the client cannot read", remedy)
    if labels.stack.dtype.kind not in "uib":
        remedy = "labels are whole numbers: save them as int32"
        problems.add(labels.where, f"is {labels.stack.dtype}", remedy)
    shape, other = images.stack.shape, labels.stack.shape
    if (shape[0], *shape[2:]) != (other[0], *other[2:]):
        found = f"has {_size(other)}, {images.where} has {_size(shape)}"
        problems.add(labels.where, found, "images and labels need the same frames, rows and columns; check the axes")


def _size(shape: tuple[int, int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[2]} rows × {shape[3]} columns"


def _stored_dtype(images: Movie, job: Job) -> np.dtype:
    return images.stack.dtype if job.options.keep else np.dtype(np.uint8)


def _layout(movie: Movie, dtype: np.dtype, *, runs: bool = False) -> Images:
    n_frames, n_channels, height, width = movie.stack.shape
    return Images(n_channels, n_frames, height, width, dtype, movie.names, runs)


def _scales(images: Movie, cut: Cut, job: Job, team: Team) -> list[Scale]:
    if job.options.keep or images.stack.dtype == np.uint8:
        job.progress.add(cut.content_bytes)
        return [Scale()] * images.stack.shape[1]
    return [Scale.between(found) for found in extremes(images, cut, team, job.progress)]


def _write(job: Job, project: Project, team: Team) -> list[str]:
    """Write all members; names of those that became BigTIFFs."""
    report, sink, is_big = job.report, job.sink, list[str]()
    for name, writer in ((layout.IMAGE, project.image), (layout.LABELS, project.labels)):
        size = writer.cut.content_bytes
        with report.phase(name, size), job.progress.phase(name, size):
            if writer.write(name, team, sink, job.progress):
                is_big.append(name)
    with report.phase("tables"):
        for name, content in _tables(project):
            sink.write(name, content)
    return is_big


def _tables(project: Project) -> Iterator[tuple[str, Iterator[bytes]]]:
    contents = project.annotations.contents(project.remade.cells)
    yield from ((name, contents[name]) for name in layout.MEMBERS if name in contents)
