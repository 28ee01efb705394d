"""Expression: one file a gene."""

from __future__ import annotations

from dataclasses import dataclass, field

from atlaswriter.engine.regroup import CodedColumns, Columns, SparseColumns, gene_batches
from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.sources.base import Array

# Values that one piece of work covers, and genes at most. What is done once for a piece costs about 50 µs,
# encoding 128 Ki sparse values 1 ms; larger pieces leave the last thread alone for longer.
_PIECE_VALUES, _PIECE_GENES = 1 << 17, 64


@dataclass
class GeneWriter:
    """Writes the genes of one export; `entries` is filled in export order."""

    genes: Genes
    job: Job
    entries: list[list[object]] = field(init=False)
    missing: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = self.job.options
        self.entries = [[] for _ in self.genes.ids]
        self._encoder = ValueEncoder(self.job.n_cells, options.var_quantization, options.quantizer)
        self._pattern = layout.values_pattern(
            options.layout.var_dir, options.var_quantization, options.level is not None
        )

    @property
    def item_bytes(self) -> int:
        """Bytes of one stored value."""
        return (self.job.options.var_quantization or 32) // 8

    def run(self) -> None:
        """Encode and write every gene."""
        team = self.job.team
        workers_bytes = team.workers * costs.gene_worker(self.job.n_cells, self.job.options.var_quantization)
        room = costs.gene_room(self.genes, team.budget.free - workers_bytes)
        with team.budget.draw(room + workers_bytes, "writing genes"):
            for batch in gene_batches(self.genes.matrix, self.genes.columns, self._encoder.rules, team, room):
                per_piece = _genes_a_piece(batch.columns)
                pieces = [
                    team.submit(self._write, batch.first + start, batch.columns[start : start + per_piece])
                    for start in range(0, len(batch.columns), per_piece)
                ]
                for piece in pieces:
                    piece.result()
                    team.raise_if_failed()
                del batch, pieces

    def _write(self, first: int, columns: Columns) -> None:
        if isinstance(columns, SparseColumns):
            columns = self._encoder.encode(columns)
        if isinstance(columns, CodedColumns):
            self._write_sparse(first, columns)
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
        self.job.write(self._path(position), encoded.codes)
        self._note(position, encoded.bounds, encoded.n_missing)

    def _path(self, position: int) -> str:
        return layout.resolve(self._pattern, self.genes.ids[position])

    def _note(self, position: int, bounds: list[float], n_missing: int) -> None:
        self.entries[position] = [self.genes.ids[position], *bounds]
        if n_missing:
            self.missing[position] = int(n_missing)
        self.job.progress.add(self.job.n_cells * self.item_bytes)

    def warnings(self) -> list[str]:
        """What to say about missing values."""
        if not self.missing:
            return []
        names = [self.genes.ids[position] for position in sorted(self.missing)]
        return [
            f"{len(names)} genes hold NaN or infinite values ({sum(self.missing.values()):,} in all), "
            f"stored as missing: {listed(names)}"
        ]


def _genes_a_piece(columns: Columns) -> int:
    if isinstance(columns, CodedColumns | SparseColumns):
        n_values = int(columns.offsets[-1])
    else:
        n_values = sum(column.size for column in columns)
    return max(1, min(_PIECE_GENES, _PIECE_VALUES * len(columns) // max(n_values, 1)))
