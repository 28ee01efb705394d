"""Transcripts and outlines on their way to tiles: who reads them, and what is known once all are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from atlaswriter.engine.gather import ByKey
from atlaswriter.formats.landscape.catalogue import Catalogue, Genes
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Export
from atlaswriter.formats.landscape.outlines import OutlineReader
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.formats.landscape.tiles import Grid, TileWriter
from atlaswriter.formats.landscape.transcripts import TranscriptReader

Reader = TranscriptReader | OutlineReader


def make_readers(prepared: Export, catalogue: Catalogue, job: Job) -> list[Reader]:
    """Of the transcripts, and of the outlines of each segmentation, as far as there are any."""
    spatial, readers = prepared.spatial, list[Reader]()
    if spatial.transcripts is not None:
        readers.append(TranscriptReader(spatial.transcripts, spatial.to_px, prepared.size_px, catalogue, job))
    for part in prepared.segmented:
        if part.outlines is not None:
            readers.append(OutlineReader(part.outlines, spatial.to_px, part.cells, job, part.name))
    return readers


def reading_unit(name: str, number: int = 0) -> str:
    """Name of the unit that has read a source, or some of it."""
    return f"read/{name}/{number}"


def readings(name: str, results: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Results of the units that have read a source."""
    prefix = f"read/{name}/"
    return (found for unit, found in results.items() if unit.startswith(prefix))


def recall(reader: Reader, results: Mapping[str, Any]) -> bool:
    """Let a reader know what others have found; whether anybody has read its source."""
    found = [reading["tally"] for reading in readings(reader.name, results)]
    reader.tally = type(reader.tally).of(found)
    return bool(found)


class Survey:
    """What is known once all records are read: how tables are stored, and where tiles are.

    Parameters
    ----------
    prepared
        The export.
    job
        The export, whose style is not known yet.
    readers
        All readers, which know what was found.

    Attributes
    ----------
    job
        The export with its style.
    grid
        All tiles.
    """

    def __init__(self, prepared: Export, job: Job, readers: Iterable[Reader]) -> None:
        self.readers = list(readers)
        self.job = replace(job, style=Style.of(job.options.compat, self._extent(prepared)))
        self.grid = Grid.covering(prepared.spatial.planes, [reader.tally for reader in self.readers], job.options)

    def _extent(self, prepared: Export) -> float:
        """How far from the origin positions are at most, pixels."""
        furthest = [float(np.abs(part.cells.xy).max(initial=0)) for part in prepared.segmented]
        return max([*furthest, *(reader.extent / 100 for reader in self.readers)])

    def writer(self, reader: Reader, records: ByKey, genes: Genes) -> TileWriter:
        """What writes the records of a reader."""
        return TileWriter(self.job, reader.name, reader.kind(self.job, genes), records, self.grid)
