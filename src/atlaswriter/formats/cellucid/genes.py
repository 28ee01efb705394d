"""Expression: one file a gene."""

from __future__ import annotations

from dataclasses import dataclass, field

from atlaswriter.engine.regroup import GeneColumn, batch_limits, gene_batches
from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.values import ValueEncoder

# Dense bytes that one piece of work covers. Handing over a piece costs about 40 µs, encoding
# 2 MB of sparse codes 2 ms; larger pieces leave the last thread alone for longer.
_PIECE_BYTES = 2 << 20
# A batch is worth its pass over the matrix from about this size on.
_BATCH_ROOM = 1 << 30


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

    def room(self) -> int:
        """Memory for one batch: what is left beside the workers' buffers, no more than is of use."""
        left = self.job.team.budget.free - self.job.team.workers * self.worker_bytes()
        least, most = batch_limits(self.genes.matrix)
        return max(min(left, _BATCH_ROOM, most), least)

    def worker_bytes(self) -> int:
        """Memory of one worker: a dense column, its compressed form, a float32 one to truncate from."""
        return self.job.n_cells * (2 * self.item_bytes + 4)

    def run(self) -> None:
        """Encode and write every gene."""
        team = self.job.team
        room = self.room()
        need = room + team.workers * self.worker_bytes()
        with team.budget.draw(need, "writing genes"):
            for batch in gene_batches(self.genes.matrix, self.genes.columns, team, room):
                per_piece = max(1, _PIECE_BYTES // (self.job.n_cells * self.item_bytes))
                pieces = [
                    team.submit(self._write, batch.first + start, batch.columns[start : start + per_piece])
                    for start in range(0, len(batch.columns), per_piece)
                ]
                for piece in pieces:
                    piece.result()
                del batch, pieces

    def _write(self, first: int, columns: list[GeneColumn]) -> None:
        for position, column in enumerate(columns, first):
            gene = self.genes.ids[position]
            encoded = self._encoder.encode(column, f"gene {gene!r}")
            self.job.write_values(layout.resolve(self._pattern, gene), encoded)
            self.entries[position] = [gene, *(encoded.bounds or ())]
            if encoded.n_missing:
                self.missing[position] = encoded.n_missing
            self.job.progress.add(encoded.content.nbytes)

    def warnings(self) -> list[str]:
        """What to say about missing values."""
        if not self.missing:
            return []
        names = [self.genes.ids[position] for position in sorted(self.missing)]
        return [
            f"{len(names)} genes hold NaN or infinite values ({sum(self.missing.values()):,} in all), "
            f"stored as missing: {listed(names)}"
        ]
