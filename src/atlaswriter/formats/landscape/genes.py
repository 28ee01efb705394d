"""Counts: a file a gene, statistics of all genes, and mean counts of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.engine import strategy
from atlaswriter.engine.columns import Batch, CodedColumns, Rules, SparseColumns
from atlaswriter.engine.rows import value_dtype
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.cells import CellIds
from atlaswriter.formats.landscape.clusters import CellClusters
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.parquet import INDEX
from atlaswriter.formats.landscape.rowgroups import ChunkSeries
from atlaswriter.kernels import quantize
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


@dataclass
class GeneWriter:
    """Writes the counts of one segmentation.

    Attributes
    ----------
    rows
        int64: id of the cell of each row of the matrix, negative where it is not exported.
    columns, codes
        int64: exported columns of the matrix, and the gene code of each.
    n_entries
        Counts written.
    row_group_files
        Entry of row-group mode in the parameters.
    """

    counts: Counts
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    codes: NDArray[np.int64]
    genes: Genes
    cells: CellIds
    statistics: GeneStatistics
    job: Job
    segmentation: str | None
    n_entries: int = 0
    row_group_files: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._n_rows = int((self.rows >= 0).sum())
        self._ascending = bool((np.diff(self.rows) > 0).all())
        self._ids = self.genes.ids[self.codes]
        self._numbers = np.zeros(len(self.genes.names), np.int64)
        self._series: ChunkSeries | None = None
        self._whole = value_dtype(self.counts.matrix).kind in "biu"
        real = pa.float64() if self.job.style.compat or not self._whole else pa.uint32()
        self._value_type = pa.int64() if self.job.style.compat and self._whole else real

    def run(self, choice: strategy.Choice) -> int:
        """Write a file, or a row group, for every gene that was counted; the bytes of temporary files."""
        with self._opened():
            spilled = strategy.give_out(
                self.counts.matrix, self.columns, unaltered, self.job.team, choice, self.job.sink.scratch,
                self._room, self._write, self.job.progress.add,
            )  # fmt: skip
        self.n_entries = int(self._numbers.sum())
        return spilled

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """With row groups, the files that they go to."""
        directory, options = layout.cbg_dir(self.segmentation), self.job.options
        self.job.sink.make_dir(directory)
        if not options.row_groups:
            yield
            return
        schema = self._row_group(0, np.empty(0, np.int64), np.empty(0)).schema
        style = self.job.style.options(schema)
        with ChunkSeries(self.job.sink, directory, options.max_row_groups_per_file, schema, style) as self._series:
            yield
        if not self._series.files:
            return
        self.row_group_files = {
            "directory": directory,
            "files": self._series.files,
            "max_row_groups_per_file": options.max_row_groups_per_file,
            "total_row_groups": len(self._series.groups),
            "gene_to_row_group": {self.genes.names[self._ids[k]]: group for k, group in self._series.groups.items()},
        }

    def _room(self, batch: Batch, piece: slice) -> int:
        sizes = batch.sizes[piece]
        # The tables of a piece are written together into row groups.
        at_once = sizes.max(initial=0) if self._series is None else sizes.sum()
        return batch.room(piece) + gene_room(int(at_once))

    def _write(self, batch: Batch, piece: slice) -> None:
        if self._series is None:
            for gene, ids, values in self._read(batch, piece):
                if ids.size:
                    self._write_loose(gene, ids, values)
            return
        with self._series.giving_up():
            read = self._read(batch, piece)
            tables = [self._row_group(gene, ids, values) if ids.size else None for gene, ids, values in read]
            self._series.add(batch.first + piece.start, tables)

    def _read(self, batch: Batch, piece: slice) -> Iterator[tuple[int, NDArray[np.int64], Array]]:
        """Id, cells and counts of the genes of a piece."""
        columns = batch.read(piece)
        if isinstance(columns, SparseColumns):
            columns = columns.in_order()
        first = batch.first + piece.start
        for position in range(len(columns)):
            gene = int(self._ids[first + position])
            yield gene, *self._counted(gene, *_entries(columns, position))

    def _counted(self, gene: int, rows: Array, values: Array) -> tuple[NDArray[np.int64], Array]:
        """Cells, ascending, and counts of one gene, which are measured on the way."""
        ids = self.rows[rows]
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
            self.statistics.measure(gene, ids, values.astype(np.float64), self._n_rows)
        return ids, values

    def _refuse(self, gene: int, found: str) -> None:
        raise InputError(Problem(self.counts.where, f"{self.genes.names[gene]!r} {found}", "mend them"))

    def _write_loose(self, gene: int, ids: NDArray[np.int64], values: Array) -> None:
        name = self.genes.names[gene]
        table = self.job.style.table({name: self._numbers_of(values), layout.INDEX: self._cell_ids(ids)})
        self.job.write_table(layout.cbg_file(name, self.segmentation), table)

    def _row_group(self, gene: int, ids: NDArray[np.int64], values: Array) -> pa.Table:
        """Columns of row-group mode, whose types all genes share."""
        columns = {
            "cell_id": self._cell_ids(ids),
            "expression": pa.array(values.astype(np.int64) if self._whole else values).cast(self._value_type),
            "gene": pa.repeat(pa.scalar(self.genes.names[gene], pa.string()), ids.size),
        }
        return self.job.style.table(columns)

    def _numbers_of(self, values: Array) -> pa.Array:
        """Counts as whole numbers, or values as they are."""
        whole = values.astype(np.int64)
        if not (whole == values).all():
            return pa.array(values, pa.float64() if self.job.style.compat else pa.float32())
        return pa.array(whole, self.job.style.id_type(int(whole.max()) + 1))

    def _cell_ids(self, ids: NDArray[np.int64]) -> pa.Array:
        return pa.array(ids, self.job.style.id_type(self.cells.n_cells))


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
