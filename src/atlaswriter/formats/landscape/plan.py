"""What an export will do and cost, before it starts."""

from __future__ import annotations

import math

from atlaswriter.engine import strategy
from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.strategy import Choice
from atlaswriter.formats.landscape import layout, rooms
from atlaswriter.formats.landscape.genes import encoding_room, statistics_room
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.pyramid import pyramid_room
from atlaswriter.formats.landscape.transcripts import TranscriptReader
from atlaswriter.sources.base import AnyArray

# Seconds of one core, measured on 2 cores with 400 million transcripts, a million cells and 2 gigapixels
# (benchmarks/results/landscape_large.json): to read a transcript, and to write it; for a byte of outlines, half of it
# to write them; for a count; for a value of a pixel; for a file.
READ_TRANSCRIPT, WRITE_TRANSCRIPT, _OUTLINE_BYTE, _COUNT, PIXEL, _FILE = 120e-9, 80e-9, 60e-9, 100e-9, 36e-9, 60e-6
# Bytes that are written of these, there.
TRANSCRIPT_BYTES, _OUTLINE_SHARE, COUNT_BYTES, PIXEL_BYTES = 5.5, 0.5, 3, 0.1


def make_plan(prepared: Export) -> Plan:
    """What an export will do inside its budget.

    Raises
    ------
    BudgetError
        It cannot work; the message says the smallest budget that would.
    """
    budget = prepared.budget
    budget.settle()
    workers = rooms.workers(prepared)
    choices = [found for part in prepared.segmented if (found := gene_choice(prepared, part, workers)) is not None]
    room = budget.free - workers * (rooms.WORKER_BYTES + rooms.busy(prepared))
    held = rooms.record_bytes(prepared)
    spilled = 0 if held <= room and prepared.resources.strategy != strategy.SPILL else held
    wishes = [workers * rooms.busy(prepared) + max(min(held, room), 0)]
    wishes += [genes_memory(prepared, part, workers) for part in prepared.segmented]
    wishes += [pyramid_room(plane, workers) for plane in prepared.spatial.planes]
    n_files = _files(prepared)
    return Plan(
        workers=workers,
        budget=budget.limit,
        choice=choices[0] if choices else None,
        seconds=(_seconds(prepared) + n_files * _FILE) / workers + sum(choice.seconds for choice in choices),
        memory=min(budget.limit, budget.held + workers * rooms.WORKER_BYTES + max(wishes)),
        least=budget.smallest_for(rooms.least(prepared, 1)),
        spill_bytes=spilled + sum(choice.spill_bytes for choice in choices),
        files=n_files,
        bytes_out=int(
            n_transcripts(prepared) * TRANSCRIPT_BYTES
            + sum(outlines_out(part) + n_counts(part) * COUNT_BYTES for part in prepared.segmented)
            + sum(n_values(plane.pixels) * PIXEL_BYTES for plane in prepared.spatial.planes)
        ),
    )


def gene_choice(prepared: Export, part: Segmented, workers: int) -> Choice | None:
    """How the counts of a segmentation are regrouped; None without any."""
    if part.counts is None:
        return None
    room = prepared.budget.free - workers * rooms.WORKER_BYTES
    room -= statistics_room(len(prepared.catalogue.names), len(part.clusters.labels))
    encoding, chosen = workers * encoding_room(part.counts), prepared.resources.strategy
    return strategy.choose(part.counts.matrix, part.columns.size, workers, room, chosen, encoding)


def genes_memory(prepared: Export, part: Segmented, workers: int) -> int:
    """Bytes that writing the genes of a segmentation takes, as chosen."""
    room, choice = rooms.genes_room(prepared, part, workers), gene_choice(prepared, part, workers)
    if choice is None or part.counts is None:
        return room
    return max(room, choice.needs(workers * encoding_room(part.counts)))


def n_transcripts(prepared: Export) -> int:
    """Number of transcripts, about."""
    transcripts = prepared.spatial.transcripts
    if transcripts is None:
        return 0
    known = transcripts.table.n_rows
    return transcripts.table.n_bytes // TranscriptReader.STORED_BYTES if known is None else known


def n_values(pixels: AnyArray) -> int:
    """Values of an image."""
    return math.prod(pixels.shape)


def n_counts(part: Segmented) -> int:
    """Counts of a segmentation, about."""
    return 0 if part.counts is None else strategy.entries_of(part.counts.matrix, part.columns.size)


def outlines_seconds(part: Segmented) -> float:
    """Seconds of one core to read, or to write, the outlines of a segmentation."""
    return 0.0 if part.outlines is None else part.outlines.n_bytes * _OUTLINE_BYTE / 2


def outlines_out(part: Segmented) -> float:
    """Bytes that the outlines of a segmentation become."""
    return 0.0 if part.outlines is None else part.outlines.n_bytes * _OUTLINE_SHARE


def counts_seconds(part: Segmented) -> float:
    """Seconds of one core to write the counts of a segmentation."""
    return n_counts(part) * _COUNT


def _seconds(prepared: Export) -> float:
    total = n_transcripts(prepared) * (READ_TRANSCRIPT + WRITE_TRANSCRIPT)
    total += sum(2 * outlines_seconds(part) + counts_seconds(part) for part in prepared.segmented)
    return total + sum(n_values(plane.pixels) * PIXEL for plane in prepared.spatial.planes)


def _files(prepared: Export) -> int:
    """Transforms, parameters and tables; an image and its tiles; a file for each gene and tile, or few of each."""
    options, spatial = prepared.options, prepared.spatial
    images = [sum(across * down for across, down in _tiles_of(plane.pixels)) for plane in spatial.planes]
    genes = [part.columns.size for part in prepared.segmented if part.counts is not None]
    width, height = prepared.size_px or (spatial.planes[0].pixels.shape[1::-1] if spatial.planes else (0, 0))
    tiles = max(-(-width // options.tile_size) * -(-height // options.tile_size), 1)
    n_kinds = sum(part.outlines is not None for part in prepared.segmented) + (spatial.transcripts is not None)
    if not options.row_groups:
        return 3 + 5 * len(prepared.segmented) + len(images) + sum(images) + sum(genes) + n_kinds * tiles
    each = options.max_row_groups_per_file
    chunks = sum(-(-n // layout.IMAGE_ROW_GROUPS_PER_FILE) for n in images) + sum(-(-n // each) for n in genes)
    return 3 + 5 * len(prepared.segmented) + len(images) + chunks + n_kinds * -(-tiles // each)


def _tiles_of(pixels: AnyArray) -> list[tuple[int, int]]:
    height, width = pixels.shape[:2]
    size = layout.IMAGE_TILE
    return [(-(-across // size), -(-down // size)) for across, down in layout.image_levels(width, height)]
