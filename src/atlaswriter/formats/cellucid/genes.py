"""Expression: one file a gene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine import strategy
from atlaswriter.engine.columns import Batch, CodedColumns, MakeRules, SparseColumns, split
from atlaswriter.engine.regroup import PIECE_GENES, PIECE_VALUES
from atlaswriter.engine.sorted import SortedGenes
from atlaswriter.engine.strategy import Choice
from atlaswriter.engine.work import Work
from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import Array, is_sparse

# Units of genes are named so, and by the position of their first one.
GENES = "genes/"


# One gene in the result of a unit: its position in the export, missing values, and the bounds of its codes.
Row = list[Any]


class GeneWriter:
    """Writes genes of one export.

    Parameters
    ----------
    genes
        All genes.
    positions
        int64: which of them to write, ascending.
    job
        The export.
    work
        Who does it: each piece is a unit, whose result is a row for each gene.
    """

    def __init__(self, genes: Genes, positions: NDArray[np.int64], job: Job, work: Work) -> None:
        options = job.options
        self._genes, self._positions, self._job, self._work = genes, positions, job, work
        self._encoder = ValueEncoder(job.n_cells, options.var_quantization, options.quantizer)
        self._pattern = layout.values_pattern(
            options.layout.var_dir, options.var_quantization, options.level is not None
        )

    def run(self, choice: Choice) -> int:
        """Read, encode and write every gene; waits until what the choice takes is free.

        Returns
        -------
        int
            Bytes of temporary files.
        """
        job, genes = self._job, self._genes
        return strategy.give_out(
            genes.matrix, genes.columns[self._positions], self._encoder.rules, job.team, choice, job.sink.scratch,
            self._room, self._write, job.progress.add,
        )  # fmt: skip

    def run_sorted(self, grouping: SortedGenes) -> None:
        """As `run`, for the genes of a grouping that others have prepared; its positions are those of all genes."""
        strategy.hand_out(grouping, self._job.team, 0, self._room, self._write)

    @property
    def rules(self) -> MakeRules:
        """How values become codes."""
        return self._encoder.rules

    def _room(self, batch: Batch, piece: slice) -> int:
        if not is_sparse(self._genes.matrix):
            return costs.largest_piece(self._genes, self._job.options)
        sizes = batch.sizes[piece]
        parts = (sizes[part] for part in split(sizes, PIECE_VALUES, PIECE_GENES))
        return batch.room(piece) + max(costs.encoding(self._job.n_cells, self._job.options, part) for part in parts)

    def _write(self, batch: Batch, piece: slice) -> None:
        positions = self._positions[batch.first + piece.start : batch.first + piece.stop].tolist()

        def write(files: Files) -> list[Row]:
            return self._written(batch, piece, positions, replace(self._job, sink=files))

        self._work.perform(f"{GENES}{positions[0]}", write)

    def _written(self, batch: Batch, piece: slice, positions: list[int], job: Job) -> list[Row]:
        columns = batch.read(piece)
        if isinstance(columns, SparseColumns):
            columns = self._encoder.encode(columns)
        if not isinstance(columns, CodedColumns):
            return [self._dense(*pair, job) for pair in zip(positions, columns, strict=True)]
        rows = []
        for genes in split(batch.sizes[piece], PIECE_VALUES, PIECE_GENES):
            rows += self._sparse(positions[genes], columns[genes], job)
        return rows

    def _sparse(self, positions: list[int], columns: CodedColumns, job: Job) -> list[Row]:
        paths = [self._path(position) for position in positions]
        job.write_columns(paths, columns, lambda column: self._encoder.dense(columns, column))
        bounds = columns.rules.bounds
        shown = [[]] * len(positions) if bounds is None else bounds.tolist()
        missing = columns.n_missing.tolist()
        return [[position, *rest] for position, *rest in zip(positions, missing, shown, strict=True)]

    def _dense(self, position: int, values: Array, job: Job) -> Row:
        encoded = self._encoder.encode_dense(values)
        job.write(self._path(position), encoded.payload)
        return [position, encoded.n_missing, encoded.bounds]

    def _path(self, position: int) -> str:
        return layout.resolve(self._pattern, self._genes.ids[position])


def written_rows(results: Mapping[str, Any]) -> dict[int, Row]:
    """Rows of the genes that are done, by position, from the results of units."""
    rows = (row for name, found in results.items() if name.startswith(GENES) for row in found)
    return {row[0]: row for row in rows}


def positions_left(genes: Genes, results: Mapping[str, Any]) -> NDArray[np.int64]:
    """Positions of the genes that are not done."""
    done = written_rows(results)
    return np.array([position for position in range(len(genes.ids)) if position not in done], np.int64)


def manifest_entries(genes: Genes, rows: Mapping[int, Row]) -> list[list[Any]]:
    """What the manifest says of every gene, in export order."""
    return [[gene, *rows[position][2]] for position, gene in enumerate(genes.ids)]


def missing_warnings(genes: Genes, rows: Mapping[int, Row]) -> list[str]:
    """What to say about missing values."""
    found = {position: row[1] for position, row in sorted(rows.items()) if row[1]}
    if not found:
        return []
    return [
        f"{len(found)} genes hold NaN or infinite values ({sum(found.values()):,} in all), "
        f"stored as missing: {listed(genes.ids[position] for position in found)}"
    ]
