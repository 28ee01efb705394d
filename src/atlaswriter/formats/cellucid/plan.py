"""What an export will do and cost, before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from atlaswriter.engine import strategy
from atlaswriter.engine.strategy import Choice
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas, Export
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.report import html_table, text_table
from atlaswriter.sources.base import Categorical, n_bytes
from atlaswriter.units import format_bytes, usable_cpus

# Measured on 2 cores (benchmarks/macro/any_size.py), seconds of one core: for a byte of points, codes and values;
# for a cell of a field's centroids in one embedding, and of its outlier quantiles for each latent dimension and for
# ranking; for a graph's entry; for a stored value of a gene and for a file.
_TABLE_BYTE, _CENTROID, _LATENT, _RANK, _EDGE, _ENTRY, _FILE = 2e-9, 45e-9, 2e-9, 60e-9, 30e-9, 9e-9, 60e-6


@dataclass(frozen=True)
class Plan:
    """Estimates of one export.

    Attributes
    ----------
    choice
        How expression is regrouped; None without expression.
    seconds
        About how long it takes with `workers` threads; measured on 2 cores of a server, warm files.
    memory
        Largest resident size of the process, bytes: never more than `budget`.
    least
        Smallest budget that works, bytes.
    spill_bytes, files, bytes_out
        Temporary files, and what will be written.
    """

    workers: int
    budget: int
    choice: Choice | None
    seconds: float
    memory: int
    least: int
    spill_bytes: int
    files: int
    bytes_out: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            (
                "time",
                f"about {self.seconds:,.0f} s with {self.workers} threads" if self.seconds >= 1 else "about a second",
            ),
            ("memory", f"at most {format_bytes(self.memory)} of {format_bytes(self.budget)}"),
            ("smallest budget", format_bytes(self.least)),
            ("regrouping", "no expression" if self.choice is None else str(self.choice)),
            ("temporary files", format_bytes(self.spill_bytes) if self.spill_bytes else "none"),
            ("output", f"about {format_bytes(self.bytes_out)} in {self.files:,} files"),
        ]

    def __str__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())


def make_plan(prepared: Export) -> Plan:
    """What an export will do inside its budget.

    Raises
    ------
    BudgetError
        It cannot work; the message says the smallest budget that would.
    """
    atlas, options, budget = prepared.atlas, prepared.options, prepared.budget
    workers, wanted = prepared.resources.workers or usable_cpus(), prepared.resources.strategy
    threads = workers * costs.WORKER_BYTES
    parts = list(costs.parts(atlas, options))
    needs = [(what, least) for what, least, _ in parts]
    encoding = 0
    if atlas.genes is not None:
        matrix, n_genes = atlas.genes.matrix, len(atlas.genes.ids)
        encoding = costs.largest_piece(atlas.genes, options)
        needs.append(("writing genes", strategy.least_room(matrix, n_genes, workers, wanted, encoding)))
    what, least = max(needs, key=lambda need: need[1], default=("the export", 0))
    budget.require(threads + least, what)
    choice = None
    if atlas.genes is not None:
        choice = strategy.choose(matrix, n_genes, workers, budget.free - threads, wanted, encoding)
    # When everything that may run side by side does.
    wishes = sum(whole for _, _, whole in parts) + workers * encoding + (0 if choice is None else choice.needs(0))
    return Plan(
        workers=workers,
        budget=budget.limit,
        choice=choice,
        seconds=_seconds(atlas, choice, workers),
        memory=min(budget.limit, budget.held + threads + wishes),
        least=budget.smallest_for(threads + least),
        spill_bytes=_spill_bytes(atlas, options, budget.free - threads, choice),
        files=_files(atlas),
        bytes_out=_bytes_out(atlas, options),
    )


def _spill_bytes(atlas: Atlas, options: Options, free: int, choice: Choice | None) -> int:
    total = 0 if choice is None else choice.spill_bytes
    for _, column in atlas.obs:
        if isinstance(column, Categorical):
            bits = layout.codes_bits(len(column.categories), options.obs_categorical_dtype)
            fixed, rooms = costs.outliers(atlas, column, bits)
            if rooms.within(free - fixed) < rooms.whole:
                total += costs.spilled_distances(atlas.n_cells)
    return total


def _seconds(atlas: Atlas, choice: Choice | None, workers: int) -> float:
    n_cells, n_files = atlas.n_cells, _files(atlas)
    arrays = [*atlas.embeddings.values(), *(array for dims in atlas.vectors.values() for array in dims.values())]
    total = n_files * _FILE + sum(n_bytes(array) for array in arrays) * _TABLE_BYTE
    n_fields = sum(isinstance(column, Categorical) for _, column in atlas.obs)
    width = 0 if atlas.latent is None else atlas.latent.shape[1]
    total += n_fields * n_cells * (len(atlas.embeddings) * _CENTROID + width * _LATENT + _RANK)
    total += len(atlas.obs) * n_cells * 8 * _TABLE_BYTE
    if atlas.graph is not None:
        total += costs.stored_entries(atlas.graph) * _EDGE
    if atlas.genes is not None:
        total += strategy.entries_of(atlas.genes.matrix, len(atlas.genes.ids)) * _ENTRY
    return total / workers + (0.0 if choice is None else choice.seconds)


def _files(atlas: Atlas) -> int:
    n_categorical = sum(isinstance(column, Categorical) for _, column in atlas.obs)
    n_vectors = sum(len(dims) for dims in atlas.vectors.values())
    n_genes = 0 if atlas.genes is None else len(atlas.genes.ids) + 1
    n_edges = 0 if atlas.graph is None else 3
    return 2 + len(atlas.embeddings) + n_vectors + len(atlas.obs) + n_categorical + n_genes + n_edges


def _bytes_out(atlas: Atlas, options: Options) -> int:
    """Sizes of plain files are known; what gzip leaves of them is a guess by the kind of content."""
    n_cells, width = atlas.n_cells, (options.obs_continuous_quantization or 32) / 8
    zipped = options.level is not None
    n_axes = sum(atlas.embeddings) + sum(dim for dims in atlas.vectors.values() for dim in dims)
    total = n_cells * 4 * n_axes * (0.92 if zipped else 1)
    for _, column in atlas.obs:
        total += n_cells * width * (0.85 if zipped else 1)
        total += n_cells * 0.6 * isinstance(column, Categorical)
    if atlas.graph is not None:
        size = layout.index_dtype(n_cells)[1]
        total += costs.stored_entries(atlas.graph) / 2 * size * (1.0 if zipped else 2)
    if atlas.genes is not None:
        gene_width, n_genes = (options.var_quantization or 32) / 8, len(atlas.genes.ids)
        whole = n_cells * n_genes * gene_width
        entries = strategy.entries_of(atlas.genes.matrix, n_genes)
        total += min(whole, entries * (0.5 + 0.9 * gene_width)) if zipped else whole
    return int(total)
