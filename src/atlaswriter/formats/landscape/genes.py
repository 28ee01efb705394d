"""Counts: a file a gene, statistics of all genes, and mean counts of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.engine import strategy
from atlaswriter.engine.columns import Batch, CodedColumns, Rules, SparseColumns
from atlaswriter.engine.rows import value_dtype
from atlaswriter.engine.work import Work
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.clusters import CellClusters
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Segmented
from atlaswriter.formats.landscape.parquet import INDEX
from atlaswriter.formats.landscape.rowgroups import ChunkSeries
from atlaswriter.kernels import quantize
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import Array, is_sparse
from atlaswriter.sources.spatial import Counts

# What writing a gene takes, over its 8 bytes an entry: ids, values, both in order, pages.
_ROOM = 5
# Whole numbers from here on are not float32.
_MOST = 1 << 24
_STATISTICS = ("mean", "std", "max", "non-zero")


def unaltered(bounds: NDArray[np.float64]) -> Rules:
    """Rules that keep values as float32, which counts below 16.7 million are exactly."""
    n_columns = len(bounds)
    return Rules(np.zeros((n_columns, 3)), quantize.FLOAT32, 0, None, np.zeros(n_columns, np.uint32))


class GeneStatistics:
    """Mean, spread and largest count of each gene, and its mean in each cluster; genes without counts have zeros."""

    def __init__(self, genes: Genes, clusters: CellClusters) -> None:
        self._genes, self._clusters = genes, clusters
        self._sizes = np.maximum(clusters.sizes, 1)
        self._values = np.zeros((len(genes.names), len(_STATISTICS)))
        self._means = np.zeros((len(genes.names), len(clusters.labels)))

    def measure(self, gene: int, ids: NDArray[np.int64], values: NDArray[np.float64], n_cells: int) -> None:
        """Take in the counts of one gene, float64 above 0, in some of `n_cells` cells; population statistics."""
        mean = values.sum() / n_cells
        squares = np.square(values - mean).sum() + (n_cells - values.size) * mean**2
        self._values[gene] = mean, np.sqrt(squares / n_cells), values.max(), values.size / n_cells
        codes = self._clusters.codes[ids]
        sums = np.bincount(codes + 1, weights=values, minlength=self._sizes.size + 1)[1:]
        self._means[gene] = sums / self._sizes

    def write(self, job: Job, segmentation: str | None) -> None:
        """Write statistics and colours of the genes, and their means in clusters."""
        names = pa.array(self._genes.names, pa.string())
        columns = {key: pa.array(self._values[:, k]) for k, key in enumerate(_STATISTICS)}
        columns |= {"color": pa.array(self._genes.colors, pa.string()), layout.INDEX: names}
        job.write_table(layout.meta_gene_file(segmentation), job.style.table(columns, index=INDEX))
        if not self._clusters.known:
            return
        genes = pa.array(signature_genes(self._genes.names), pa.int64())
        labelled = sorted(zip(self._clusters.labels, self._means.T, strict=True), key=lambda pair: pair[0])
        means = {label: pa.array(column).take(genes) for label, column in labelled}
        table = job.style.table(means | {layout.INDEX: names.take(genes)}, index=INDEX)
        job.write_table(layout.signatures_file(segmentation), table)


def write_genes(part: Segmented, genes: Genes, job: Job, work: Work, chosen: str) -> int:
    """Write the counts of one segmentation, statistics of all genes, and mean counts of clusters.

    Loose files are units of some genes each, and the tables another. Row groups are one with the tables, as the place
    of each depends on those before it. Whatever is done already is not written again; tables are made of all counts,
    which are read again for them.

    Parameters
    ----------
    part
        The segmentation.
    genes
        All features.
    job
        The export.
    work
        Who does it.
    chosen
        How the matrix shall be regrouped, as in `strategy.choose`.

    Returns
    -------
    int
        Bytes of temporary files.
    """
    tables, done = tables_unit(part.name), work.results.keys()
    if tables in done and (job.options.row_groups or len(counted(part.name, work.results)) == part.columns.size):
        return 0
    budget, room = job.team.budget, statistics_room(len(genes.names), len(part.clusters.labels))
    budget.take(room, "means of clusters")
    try:
        statistics = GeneStatistics(genes, part.clusters)
        writer = None if part.counts is None else GeneWriter(part, part.counts, genes, statistics, job, work)

        def write(files: Files) -> dict[str, Any]:
            own, found = replace(job, sink=files), dict[str, Any]()
            if writer is not None and job.options.row_groups:
                found["row_groups"] = writer.run_row_groups(files, chosen, budget.free - room)
                found["entries"] = writer.n_entries
            statistics.write(own, part.name)
            return found

        if writer is not None and not job.options.row_groups:
            writer.run_loose(chosen, budget.free - room)
        if tables not in done:
            work.perform(tables, write)
        return 0 if writer is None else writer.spill_bytes
    finally:
        budget.give_back(room)


def tables_unit(segmentation: str | None) -> str:
    """Name of the unit that writes statistics."""
    return f"genes/{layout.cbg_dir(segmentation)}"


def counted(segmentation: str | None, results: Mapping[str, Any]) -> dict[int, int]:
    """Counts of each gene, by its position among the columns, that has its own file, or needs none."""
    prefix = f"{layout.cbg_dir(segmentation)}/"
    return {
        position: entries for name, rows in results.items() if name.startswith(prefix) for position, entries in rows
    }


def n_counts(segmentation: str | None, results: Mapping[str, Any]) -> int:
    """Counts of one segmentation that are written."""
    in_groups = results.get(tables_unit(segmentation), {}).get("entries", 0)
    return sum(counted(segmentation, results).values()) + int(in_groups)


class GeneWriter:
    """Writes the counts of one segmentation.

    Attributes
    ----------
    spill_bytes
        Bytes of temporary files.
    """

    def __init__(
        self, part: Segmented, counts: Counts, genes: Genes, statistics: GeneStatistics, job: Job, work: Work
    ) -> None:
        self._part, self._counts, self._genes, self._statistics = part, counts, genes, statistics
        self._job, self._work = job, work
        self._rows, self._directory = part.rows, layout.cbg_dir(part.name)
        self.spill_bytes = 0
        self._done = counted(part.name, work.results).keys()
        self._n_rows = int((part.rows >= 0).sum())
        self._ascending = bool((np.diff(part.rows) > 0).all())
        self._ids = genes.ids[part.codes]
        self._numbers = np.zeros(len(genes.names), np.int64)
        self._series: ChunkSeries | None = None
        self._whole = value_dtype(counts.matrix).kind in "biu"
        real = pa.float64() if job.style.compat or not self._whole else pa.uint32()
        self._value_type = pa.int64() if job.style.compat and self._whole else real

    @property
    def n_entries(self) -> int:
        """Counts that were found."""
        return int(self._numbers.sum())

    def run_loose(self, chosen: str, room: int) -> None:
        """Write a file for every gene that was counted, and is not done; arguments as of `strategy.choose`."""
        self._job.sink.make_dir(self._directory)
        self._give_out(chosen, room)

    def run_row_groups(self, files: Files, chosen: str, room: int) -> dict[str, Any]:
        """Write a row group for every gene that was counted; the entry in the parameters, empty without any."""
        files.make_dir(self._directory)
        schema = self._row_group(0, np.empty(0, np.int64), np.empty(0)).schema
        style, each = self._job.style.options(schema), self._job.options.max_row_groups_per_file
        with ChunkSeries(files, self._directory, each, schema, style) as self._series:
            self._give_out(chosen, room)
        if not self._series.files:
            return {}
        return {
            "directory": self._directory,
            "files": self._series.files,
            "max_row_groups_per_file": each,
            "total_row_groups": len(self._series.groups),
            "gene_to_row_group": {self._genes.names[self._ids[k]]: group for k, group in self._series.groups.items()},
        }

    def _give_out(self, chosen: str, room: int) -> None:
        matrix, columns, team = self._counts.matrix, self._part.columns, self._job.team
        encoding = team.workers * encoding_room(self._counts)
        choice = strategy.choose(matrix, columns.size, team.workers, room, chosen, encoding)
        self.spill_bytes = strategy.give_out(
            matrix, columns, unaltered, team, choice, self._job.sink.scratch, self._room, self._write,
            self._job.progress.add,
        )  # fmt: skip

    def _room(self, batch: Batch, piece: slice) -> int:
        sizes = batch.sizes[piece]
        # The tables of a piece are written together into row groups.
        at_once = sizes.max(initial=0) if self._series is None else sizes.sum()
        return batch.room(piece) + gene_room(int(at_once))

    def _write(self, batch: Batch, piece: slice) -> None:
        if self._series is None:
            self._write_unit(batch, piece)
            return
        with self._series.giving_up():
            tables = [
                self._row_group(gene, ids, values) if ids.size else None
                for _, gene, ids, values in self._read(batch, piece)
            ]
            self._series.add(batch.first + piece.start, tables)

    def _write_unit(self, batch: Batch, piece: slice) -> None:
        positions = range(batch.first + piece.start, batch.first + piece.stop)
        left = [position for position in positions if position not in self._done]

        def write(files: Files) -> list[list[int]]:
            job, rows = replace(self._job, sink=files), []
            for position, gene, ids, values in self._read(batch, piece):
                if position in self._done:
                    continue
                rows.append([position, ids.size])
                if ids.size:
                    self._write_loose(gene, ids, values, job)
            return rows

        if left:
            self._work.perform(f"{self._directory}/{left[0]}-{left[-1]}", write)
        else:
            for _ in self._read(batch, piece):
                """Measured."""

    def _read(self, batch: Batch, piece: slice) -> Iterator[tuple[int, int, NDArray[np.int64], Array]]:
        """Position, id, cells and counts of the genes of a piece."""
        columns = batch.read(piece)
        if isinstance(columns, SparseColumns):
            columns = columns.in_order()
        first = batch.first + piece.start
        for position in range(len(columns)):
            gene = int(self._ids[first + position])
            yield first + position, gene, *self._counted(gene, *_entries(columns, position))

    def _counted(self, gene: int, rows: Array, values: Array) -> tuple[NDArray[np.int64], Array]:
        """Cells, ascending, and counts of one gene, which are measured on the way."""
        ids = self._rows[rows]
        kept = (ids >= 0) & (values != 0)
        if not kept.all():
            ids, values = ids[kept], values[kept]
        if not self._ascending:
            order = np.argsort(ids, kind="stable")
            ids, values = ids[order], values[order]
        self._numbers[gene] = ids.size
        if ids.size:
            if not (np.isfinite(values).all() and values.min() > 0):
                self._refuse(gene, "has counts below 0, NaN or infinite ones")
            if values.max() >= _MOST:
                self._refuse(gene, f"has counts of {_MOST:,} and more")
            self._statistics.measure(gene, ids, values.astype(np.float64), self._n_rows)
        return ids, values

    def _refuse(self, gene: int, found: str) -> None:
        raise InputError(Problem(self._counts.where, f"{self._genes.names[gene]!r} {found}", "mend them"))

    def _write_loose(self, gene: int, ids: NDArray[np.int64], values: Array, job: Job) -> None:
        name = self._genes.names[gene]
        table = job.style.table({name: self._numbers_of(values), layout.INDEX: self._cell_ids(ids)})
        job.write_table(layout.cbg_file(name, self._part.name), table)

    def _row_group(self, gene: int, ids: NDArray[np.int64], values: Array) -> pa.Table:
        """Columns of row-group mode, whose types all genes share."""
        columns = {
            "cell_id": self._cell_ids(ids),
            "expression": pa.array(values.astype(np.int64) if self._whole else values).cast(self._value_type),
            "gene": pa.repeat(pa.scalar(self._genes.names[gene], pa.string()), ids.size),
        }
        return self._job.style.table(columns)

    def _numbers_of(self, values: Array) -> pa.Array:
        """Counts as whole numbers, or values as they are."""
        whole = values.astype(np.int64)
        if not (whole == values).all():
            return pa.array(values, pa.float64() if self._job.style.compat else pa.float32())
        return pa.array(whole, self._job.style.id_type(int(whole.max()) + 1))

    def _cell_ids(self, ids: NDArray[np.int64]) -> pa.Array:
        return pa.array(ids, self._job.style.id_type(self._part.cells.n_cells))


def statistics_room(n_genes: int, n_clusters: int) -> int:
    """Bytes that `GeneStatistics` takes: means, and these as columns, in order and packed."""
    return 4 * 8 * n_genes * n_clusters


def gene_room(n_entries: int) -> int:
    """Bytes that writing a gene with so many counts takes."""
    return _ROOM * 8 * n_entries


def signature_genes(names: Sequence[str]) -> list[int]:
    """Ids of the genes that signatures have."""
    return [k for k, name in enumerate(names) if not any(part in name for part in layout.NO_SIGNATURE)]


def _entries(columns: CodedColumns | SparseColumns | Sequence[Array], position: int) -> tuple[Array, Array]:
    """Rows and values (float32) of one gene; the same for every kind of matrix."""
    if isinstance(columns, CodedColumns):
        entries = columns.entries[columns.offsets[position] : columns.offsets[position + 1]]
        return entries >> 32, (entries & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    if isinstance(columns, SparseColumns):
        here = slice(columns.offsets[position], columns.offsets[position + 1])
        return columns.rows[here], columns.values[here].astype(np.float32)
    rows = np.flatnonzero(columns[position])
    return rows, columns[position][rows].astype(np.float32)


def encoding_room(counts: Counts) -> int:
    """What writing the largest gene takes."""
    return gene_room(strategy.largest_gene(counts.matrix)) if is_sparse(counts.matrix) else gene_room(len(counts.cells))
