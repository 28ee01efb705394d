"""What an export will do and cost, before it starts."""

from __future__ import annotations

from atlaswriter.engine import strategy
from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.strategy import Choice
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas, Export
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.sources.base import Categorical, n_bytes
from atlaswriter.units import usable_cpus

# Measured on 2 cores (benchmarks/macro/any_size.py), seconds of one core: for a byte of points, codes and values;
# for a cell of a field's centroids in one embedding, and of its outlier quantiles for each latent dimension and for
# ranking; for a graph's entry; for a stored value of a gene and for a file.
_TABLE_BYTE, _CENTROID, _LATENT, _RANK, _EDGE, _ENTRY, _FILE = 2e-9, 45e-9, 2e-9, 60e-9, 30e-9, 9e-9, 60e-6


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
    return int(total + gene_bytes(atlas, options))


def gene_bytes(atlas: Atlas, options: Options) -> float:
    """Bytes of expression in the export, about."""
    if atlas.genes is None:
        return 0.0
    gene_width, n_genes = (options.var_quantization or 32) / 8, len(atlas.genes.ids)
    whole = atlas.n_cells * n_genes * gene_width
    entries = strategy.entries_of(atlas.genes.matrix, n_genes)
    return min(whole, entries * (0.5 + 0.9 * gene_width)) if options.level is not None else whole
