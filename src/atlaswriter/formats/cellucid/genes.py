"""Expression: one file a gene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from atlaswriter.engine.regroup import GeneColumn, gene_batches
from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.values import ValueEncoder

# Dense bytes that one piece of work covers. Handing over a piece costs about 40 µs, encoding
# 2 MB of sparse codes 2 ms; larger pieces leave the last thread alone for longer.
_PIECE_BYTES = 2 << 20


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
            for batch in gene_batches(self.genes.matrix, self.genes.columns, team, room):
                per_piece = max(1, _PIECE_BYTES // (self.job.n_cells * self.item_bytes))
                pieces = [
                    team.submit(self._write, batch.first + start, batch.columns[start : start + per_piece])
                    for start in range(0, len(batch.columns), per_piece)
                ]
                for piece in pieces:
                    piece.result()
                    team.raise_if_failed()
                del batch, pieces

    def _write(self, first: int, columns: Sequence[GeneColumn]) -> None:
        for position, column in enumerate(columns, first):
            gene = self.genes.ids[position]
            encoded = self._encoder.encode(column)
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
