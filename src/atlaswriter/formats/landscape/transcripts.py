"""Transcripts: from a table in any order to tiles."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.engine.gather import Gathering, Part
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Catalogue, Genes
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.tallies import TranscriptTally
from atlaswriter.formats.landscape.tiles import key_of, negative_records
from atlaswriter.kernels import bins
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.spatial import Transcripts

# Transcripts grouped together; what a thread holds of each of them meanwhile: as read, in pixels, grouped.
_PART_ROWS = 1 << 19
_ROW_BYTES = 40
# Tiles that one part may be spread over to be counted; 8 bytes each.
_MOST_TILES = 1 << 20


class TranscriptReader:
    """Reads a table of transcripts once, and groups them by tile.

    Parameters
    ----------
    transcripts
        The table.
    to_px
        float64 (3, 3): to pixels.
    size_px
        Width and height of what is exported of the image where a region was chosen, else None.
    catalogue
        The features.
    job
        The export.

    Attributes
    ----------
    tally
        What was found, by this reader or others.
    dtypes
        Of the columns of records: position in the tile, and gene code.
    """

    what = "transcripts"
    name = layout.transcripts_dir()
    segmentation: str | None = None
    # Bytes of a transcript while it is held, mostly.
    RECORD_BYTES = 6
    # And of one in a file, about (Parquet of Xenium, 400 million of them).
    STORED_BYTES = 32

    def __init__(
        self, transcripts: Transcripts, to_px: NDArray[np.float64], size_px: tuple[int, int] | None,
        catalogue: Catalogue, job: Job,
    ) -> None:  # fmt: skip
        self.tally = TranscriptTally()
        self._transcripts, self._catalogue, self._job = transcripts, catalogue, job
        self._to_px = np.ascontiguousarray(to_px[:2]).ravel()
        self._region = np.array([] if size_px is None else [0, 0, *size_px], np.float64) * 100
        self._guard = threading.Lock()
        local = np.dtype("u2" if job.options.edge <= 1 << 16 else "u4")
        self.dtypes = (local, local, np.dtype("u2" if catalogue.short else "u4"))
        self._columns = [transcripts.gene, transcripts.x, transcripts.y]
        if job.options.min_qv is not None and transcripts.quality is not None:
            self._columns.append(transcripts.quality)

    @staticmethod
    def thread_room_of(transcripts: Transcripts) -> int:
        """Bytes that one thread takes while it reads."""
        names = (transcripts.gene, transcripts.x, transcripts.y, transcripts.quality)
        return transcripts.table.room([name for name in names if name]) + _ROW_BYTES * 2 * _PART_ROWS + 8 * _MOST_TILES

    @property
    def extent(self) -> int:
        """How far from the origin positions are at most, in hundredths of a pixel."""
        ends = [*self.tally.first, *(last + 1 for last in self.tally.last)]
        furthest = max(abs(end) for end in ends) if self.tally.kept else 0
        return furthest * self._job.options.edge

    def kind(self, job: Job, genes: Genes) -> TranscriptTiles:
        """How they are written, by a job that knows its style."""
        return TranscriptTiles(job, genes.ids)

    def read(self, room: int, parts: range | None = None) -> Gathering:
        """Read everything, or some parts of the table.

        What does not fit in `room` bytes, which the caller has drawn, goes to temporary files.
        """
        gathering = Gathering(self.dtypes, room, lambda: self._job.sink.scratch() / self.name)
        table, team = self._transcripts.table, self._job.team
        memory = self.thread_room_of(self._transcripts)
        work = [
            team.submit(self._read_part, part, gathering, memory=memory, what="reading transcripts")
            for part in (range(table.n_parts) if parts is None else parts)
        ]
        for future in work:
            future.result()
            team.raise_if_failed()
        self.tally.negative = negative_records(gathering)
        return gathering

    def _read_part(self, part: int, gathering: Gathering) -> None:
        for number, columns in enumerate(self._blocks(part)):
            found = self._grouped(*columns)
            if found is not None:
                gathering.add((part, number), found)

    def _blocks(self, part: int) -> Iterator[tuple[NDArray[np.int32], ...]]:
        """Positions in hundredths of a pixel and genes, some million at a time."""
        held: list[tuple[NDArray[np.int32], ...]] = []
        n_held = 0
        for batch in self._transcripts.table.batches(part, self._columns):
            located = self._located(batch)
            self._job.progress.add(self.RECORD_BYTES * batch.num_rows)
            if n_held and n_held + located[0].size > 2 * _PART_ROWS:
                yield _joined(held)
                held, n_held = [], 0
            held.append(located)
            n_held += located[0].size
        if held:
            yield _joined(held)

    def _located(self, batch: pa.RecordBatch) -> tuple[NDArray[np.int32], ...]:
        transcripts = self._transcripts
        features = batch.column(0)
        codes = self._catalogue.codes(features.dictionary.to_pylist())
        if features.null_count:
            self._refuse(f"{features.null_count:,} transcripts have no {transcripts.gene}")
        x, y = (self._numbers(batch.column(k), self._columns[k]) for k in (1, 2))
        real = np.result_type(x, y, np.float32)
        quality, least = np.empty(0), -np.inf
        if len(self._columns) > 3:
            stored = self._numbers(batch.column(3), self._columns[3])
            # A limit such as 20.3 means the stored number that is written so.
            least = float(stored.dtype.type(self._job.options.min_qv))
            quality = stored.astype(np.float64)
        found = np.zeros(bins.N_FOUND, np.int64)
        found[bins.FIRST_I :] = [*[np.iinfo(np.int64).max] * 2, *[np.iinfo(np.int64).min] * 2]
        out = tuple(np.empty(x.size, np.int32) for _ in range(3))
        n = bins.locate(
            x.astype(real, copy=False), y.astype(real, copy=False), readable(features.indices.to_numpy()), codes,
            quality, least, self._to_px, self._region, np.int32(self._job.options.edge), *out, found,
        )  # fmt: skip
        if found[bins.FAR]:
            self._refuse(f"{found[bins.FAR]:,} transcripts have no usable position (NaN, infinite, or far away)")
        self._note(batch.num_rows, n, found)
        # A view would keep the whole block alive.
        return tuple(array[:n] if 2 * n > x.size else array[:n].copy() for array in out)

    def _numbers(self, column: pa.Array, name: str) -> NDArray[Any]:
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            self._refuse(f"column {name!r} holds {column.type}, not numbers", "name another column")
        found = column.to_numpy(zero_copy_only=False)
        if found.dtype != np.float32:
            found = found.astype(np.float64, copy=False)
        return readable(np.ascontiguousarray(found))

    def _refuse(self, found: str, remedy: str = "remove or mend them") -> None:
        raise InputError(Problem(self._transcripts.table.location, found, remedy))

    def _note(self, n_read: int, n_kept: int, found: NDArray[np.int64]) -> None:
        values = found.tolist()
        tally = TranscriptTally(
            n_kept, 0, values[bins.LAST_I : bins.LAST_J + 1], n_read, values[bins.OUTSIDE], values[bins.POOR],
            values[bins.UNWANTED], values[bins.FIRST_I : bins.FIRST_J + 1],
        )  # fmt: skip
        with self._guard:
            self.tally.add(tally)

    def _grouped(self, x: NDArray[np.int32], y: NDArray[np.int32], genes: NDArray[np.int32]) -> Part | None:
        if not x.size:
            return None
        edge = self._job.options.edge
        first_i, first_j = int(x.min()) // edge, int(y.min()) // edge
        n_i, n_j = int(x.max()) // edge - first_i + 1, int(y.max()) // edge - first_j + 1
        if n_i * n_j > _MOST_TILES:
            return self._sorted(x, y, genes)
        counts = np.zeros(n_i * n_j, np.int64)
        bins.count(x, y, np.int32(edge), first_i, first_j, n_j, counts)
        tiles = np.flatnonzero(counts)
        offsets = np.r_[0, np.cumsum(counts[tiles])]
        counts[tiles] = offsets[:-1]
        columns = tuple(np.empty(x.size, dtype) for dtype in self.dtypes)
        bins.group(x, y, genes, np.int32(edge), first_i, first_j, n_j, counts, *columns)
        keys = key_of(first_i + tiles // n_j, first_j + tiles % n_j)
        return Part(keys, (offsets,) * len(columns), columns)

    def _sorted(self, x: NDArray[np.int32], y: NDArray[np.int32], genes: NDArray[np.int32]) -> Part:
        """As `_grouped`, for positions so far apart that most tiles between them are empty."""
        edge = self._job.options.edge
        i, j = (axis.astype(np.int64) // edge for axis in (x, y))
        every = key_of(i, j)
        order = np.argsort(every, kind="stable")
        keys, firsts = np.unique(every[order], return_index=True)
        offsets = np.r_[firsts, x.size].astype(np.int64)
        values = (x - i * edge, y - j * edge, genes)
        columns = tuple(value[order].astype(dtype) for value, dtype in zip(values, self.dtypes, strict=True))
        return Part(keys, (offsets,) * len(columns), columns)


def _joined(held: Sequence[tuple[NDArray[np.int32], ...]]) -> tuple[NDArray[np.int32], ...]:
    return tuple(np.concatenate(columns) for columns in zip(*held, strict=True))


class TranscriptTiles:
    """Content of the tiles of transcripts: a `tiles.Kind`.

    Parameters
    ----------
    job
        The export.
    ids
        Id of each gene code.
    """

    def __init__(self, job: Job, ids: NDArray[np.int64]) -> None:
        self._job = job
        self._id_type = job.style.id_type(ids.size)
        self._ids = ids.astype(self._id_type.to_pandas_dtype())
        self.directory = layout.transcripts_dir(job.options.row_groups)
        self.tile_type = pa.int32()

    def path(self, i: int, j: int) -> str:
        """File of one loose tile."""
        return layout.transcript_tile(i, j)

    def columns(self, i: int, j: int, found: Part, position: int) -> dict[str, pa.Array]:
        """Gene ids, and positions in pixels of the image."""
        x, y, codes = found.of(position)
        style, edge = self._job.style, self._job.options.edge
        xy = np.empty(2 * x.size, style.real_dtype)
        bins.pairs(x, y, i * edge, j * edge, style.steps, xy)
        return {"name": pa.array(self._ids[codes]), "geometry": style.pairs(xy)}

    def empty(self) -> dict[str, pa.Array]:
        """No transcripts."""
        return {
            "name": pa.array([], self._id_type),
            "geometry": self._job.style.pairs(np.empty(0, self._job.style.real_dtype)),
        }
