"""Expression: one file a gene."""

from __future__ import annotations

from dataclasses import dataclass, field

from atlaswriter.engine import strategy
from atlaswriter.engine.columns import Batch, CodedColumns, SparseColumns, split
from atlaswriter.engine.regroup import PIECE_GENES, PIECE_VALUES
from atlaswriter.engine.strategy import Choice
from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.sources.base import Array, is_sparse


@dataclass
class GeneWriter:
    """Writes the genes of one export; `entries` is filled in export order."""

    genes: Genes
    job: Job
    entries: list[list[object]] = field(init=False)
    missing: dict[int, int] = field(default_factory=dict)
    spill_bytes: int = 0

    def __post_init__(self) -> None:
        options = self.job.options
        self.entries = [[] for _ in self.genes.ids]
        self._encoder = ValueEncoder(self.job.n_cells, options.var_quantization, options.quantizer)
        self._pattern = layout.values_pattern(
            options.layout.var_dir, options.var_quantization, options.level is not None
        )

    def run(self, choice: Choice) -> None:
        """Read, encode and write every gene; waits until what the choice takes is free."""
        job = self.job
        self.spill_bytes = strategy.give_out(
            self.genes.matrix, self.genes.columns, self._encoder.rules, job.team, choice, job.sink.scratch,
            self._room, self._write, job.progress.add,
        )  # fmt: skip

    def _room(self, batch: Batch, piece: slice) -> int:
        if not is_sparse(self.genes.matrix):
            return costs.largest_piece(self.genes, self.job.options)
        sizes = batch.sizes[piece]
        parts = (sizes[part] for part in split(sizes, PIECE_VALUES, PIECE_GENES))
        return batch.room(piece) + max(costs.encoding(self.job.n_cells, self.job.options, part) for part in parts)

    def _write(self, batch: Batch, piece: slice) -> None:
        first, columns = batch.first + piece.start, batch.read(piece)
        if isinstance(columns, SparseColumns):
            columns = self._encoder.encode(columns)
        if isinstance(columns, CodedColumns):
            for genes in split(batch.sizes[piece], PIECE_VALUES, PIECE_GENES):
                self._write_sparse(first + genes.start, columns[genes])
        else:
            for position, column in enumerate(columns, first):
                self._write_dense(position, column)

    def _write_sparse(self, first: int, columns: CodedColumns) -> None:
        paths = [self._path(position) for position in range(first, first + len(columns))]
        self.job.write_columns(paths, columns, lambda column: self._encoder.dense(columns, column))
        bounds = columns.rules.bounds
        for column in range(len(columns)):
            self._note(first + column, [] if bounds is None else bounds[column].tolist(), columns.n_missing[column])

    def _write_dense(self, position: int, values: Array) -> None:
        encoded = self._encoder.encode_dense(values)
        self.job.write(self._path(position), encoded.payload)
        self._note(position, encoded.bounds, encoded.n_missing)

    def _path(self, position: int) -> str:
        return layout.resolve(self._pattern, self.genes.ids[position])

    def _note(self, position: int, bounds: list[float], n_missing: int) -> None:
        self.entries[position] = [self.genes.ids[position], *bounds]
        if n_missing:
            self.missing[position] = int(n_missing)

    def warnings(self) -> list[str]:
        """What to say about missing values."""
        if not self.missing:
            return []
        names = [self.genes.ids[position] for position in sorted(self.missing)]
        return [
            f"{len(names)} genes hold NaN or infinite values ({sum(self.missing.values()):,} in all), "
            f"stored as missing: {listed(names)}"
        ]
