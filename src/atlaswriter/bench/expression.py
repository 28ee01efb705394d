"""The genes of a Cellucid export, without the files: what reading, regrouping and encoding take alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine import strategy
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.columns import Batch, CodedColumns, SparseColumns, split
from atlaswriter.engine.regroup import PIECE_GENES, PIECE_VALUES
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid import costs
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.sources.base import Compressed
from atlaswriter.sources.open import open_source
from atlaswriter.units import usable_cpus

_BITS, _LEVEL = 8, 6  # what `cellucid` chooses


def regroup(
    source: str, *, encode: bool, workers: int | None = None, memory_budget: str | None = None
) -> dict[str, int]:
    """Bring the expression of an atlas (CSR) to genes, and compress these if asked for; nothing is written.

    Returns
    -------
    dict
        ``bytes_out``: of the compressed genes; ``files``: 0.
    """
    atlas, budget, threads = open_source(source, workers=workers), Budget(memory_budget), workers or usable_cpus()
    try:
        matrix, names = cast("Compressed", atlas.expression()), atlas.gene_names()
        genes = Genes(names, np.arange(len(names)), matrix)
        options = Options(var_quantization=_BITS, compression=_LEVEL)
        encoding = costs.largest_piece(genes, options)
        budget.set_aside(threads * costs.WORKER_BYTES, "threads")
        choice = strategy.choose(matrix, len(names), threads, budget.free, encoding=encoding)
        taker = _Taker(ValueEncoder(atlas.n_cells, _BITS, options.quantizer), encode)
        with Team(threads, budget) as team:
            strategy.give_out(
                matrix, genes.columns, taker.encoder.rules, team, choice, lambda: Path(source).parent,
                lambda batch, piece: batch.room(piece) + encoding, taker.take,
            )  # fmt: skip
    finally:
        atlas.close()
    return {"bytes_out": sum(taker.sizes), "files": 0}


class _Taker:
    """Takes genes as the writer does, and keeps the sizes of what would be written."""

    def __init__(self, encoder: ValueEncoder, encode: bool) -> None:
        self.encoder, self._encode = encoder, encode
        self.sizes: list[int] = []

    def take(self, batch: Batch, piece: slice) -> None:
        """Read one piece of a batch, and encode it."""
        columns = batch.read(piece)
        if not self._encode:
            return
        coded = self.encoder.encode(columns) if isinstance(columns, SparseColumns) else cast("CodedColumns", columns)
        for genes in split(batch.sizes[piece], PIECE_VALUES, PIECE_GENES):
            part = coded[genes]
            files = sparse_gzip.compress(
                part.entries, part.offsets, self.encoder.n_cells, part.rules.backgrounds, _LEVEL
            )
            self.sizes.extend(len(file) for file in files)
