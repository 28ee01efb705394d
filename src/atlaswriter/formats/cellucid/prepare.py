"""`prepare`: the drop-in for cellucid 0.0.9's function of that name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.resources import Resources
from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.cellucid.atlas import Atlas, Export, Genes, group_vectors, keep_arrays
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.selection import select, select_genes
from atlaswriter.formats.cellucid.target import check_early
from atlaswriter.formats.cellucid.validate import check_atlas
from atlaswriter.formats.cellucid.write import export
from atlaswriter.report import Report
from atlaswriter.sinks.folder import target_path
from atlaswriter.sources.base import AnyArray, Column
from atlaswriter.sources.columns import column_from_pandas
from atlaswriter.sources.memory import dense_of, matrix_of
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    import pandas as pd

# As in cellucid 0.0.9, the working directory at import.
DEFAULT_EXPORT_DIR = Path.cwd() / "exports"


def prepare(
    latent_space: Any = None,
    obs: pd.DataFrame | None = None,
    var: pd.DataFrame | None = None,
    gene_expression: Any = None,
    var_gene_id_column: str | None = "index",
    gene_identifiers: Sequence[str] | None = None,
    connectivities: Any = None,
    out_dir: Path | str = DEFAULT_EXPORT_DIR,
    obs_keys: Sequence[str] | None = None,
    centroid_outlier_quantile: float | None = 0.95,
    centroid_min_points: int = 10,
    obs_manifest_filename: str = Layout.obs_manifest,
    obs_binary_dirname: str = Layout.obs_dir,
    var_manifest_filename: str = Layout.var_manifest,
    var_binary_dirname: str = Layout.var_dir,
    connectivity_manifest_filename: str = Layout.connectivity_manifest,
    connectivity_binary_dirname: str = Layout.connectivity_dir,
    force: bool = False,
    var_quantization: int | None = None,
    obs_continuous_quantization: int | None = None,
    obs_categorical_dtype: Literal["auto", "uint8", "uint16"] = "auto",
    compression: int | None = None,
    dataset_name: str | None = None,
    dataset_description: str | None = None,
    dataset_id: str | None = None,
    source_name: str | None = None,
    source_url: str | None = None,
    source_citation: str | None = None,
    X_umap_1d: Any = None,  # noqa: N803 - the original's names
    X_umap_2d: Any = None,  # noqa: N803
    X_umap_3d: Any = None,  # noqa: N803
    X_umap_4d: Any = None,  # noqa: N803
    vector_fields: Mapping[str, Any] | None = None,
    *,
    engine: Literal["fast", "reference"] = "fast",
    memory_budget: str | int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    quantizer: Literal["nearest", "truncate"] = "nearest",
    make_unique: bool = False,
    merge_equal_categories: bool = False,
    created_at: str | None = None,
    strategy: Literal["auto", "memory", "spill"] = "auto",
    spill_dir: str | PathLike[str] | None = None,
) -> Report:
    """Export arrays and tables to a Cellucid folder (layout v1).

    Takes what ``cellucid.prepare`` of 0.0.9 takes; arguments after `vector_fields` are ours.
    Everything is checked before anything is written, all problems are reported together, and the
    folder appears in one step. The caller's arrays are never modified.

    Parameters
    ----------
    latent_space : array or sparse matrix, (n_cells, d)
        Space in which outlier quantiles are measured.
    obs : DataFrame, n_cells rows
        Cell metadata.
    var : DataFrame, n_genes rows
        Gene metadata; required with `gene_expression`.
    gene_expression : array or sparse matrix, (n_cells, n_genes)
        CSR, CSC, COO or dense; any real dtype.
    var_gene_id_column : str or None
        Column of `var` with the gene identifiers; ``"index"`` or None for its index.
    gene_identifiers : sequence of str
        Genes to export, in this order; all by default. Unknown ones are refused.
    connectivities : sparse matrix or array, (n_cells, n_cells)
        Neighbour graph; only which entries are not zero counts.
    out_dir : path
        Folder to write.
    obs_keys : sequence of str
        Columns of `obs` to export; all by default.
    centroid_outlier_quantile : float or None
        Between 0.5 and 1: share of a category's cells its centroid is taken from. None: no centroids.
    centroid_min_points : int
        Smallest category with a centroid and outlier quantiles.
    obs_manifest_filename, obs_binary_dirname, var_manifest_filename, var_binary_dirname, \
connectivity_manifest_filename, connectivity_binary_dirname : str
        Names inside the folder; viewers look for the default ones.
    force : bool
        Replace an existing export, as a whole.
    var_quantization, obs_continuous_quantization : 8, 16 or None
        Bits of a stored value; None stores float32.
    obs_categorical_dtype : 'auto', 'uint8' or 'uint16'
        Width of category codes.
    compression : 1-9 or None
        gzip level; None (or 0) writes plain files.
    dataset_name, dataset_description, dataset_id, source_name, source_url, source_citation : str
        For ``dataset_identity.json``.
    X_umap_1d, X_umap_2d, X_umap_3d, X_umap_4d : array, (n_cells, 1|2|3|4)
        Embeddings; at least one. 4D is written, which 0.0.9 refuses, though the viewer may not show it.
    vector_fields : dict of str to array
        ``<id>_<1|2|3>d`` or ``<id>`` to displacements, (n_cells, 1|2|3).
    engine : 'fast' or 'reference'
        ``'reference'`` calls the installed cellucid 0.0.9 with the same arguments.
    memory_budget : str or int
        Largest resident size of the process, such as ``"4GiB"``. Default: what it holds already plus
        half of what it may still use.
    workers : int
        Threads; all usable CPUs by default.
    progress : bool
        Show progress; by default when standard error is a terminal.
    quantizer : 'nearest' or 'truncate'
        ``'truncate'`` gives the codes of 0.0.9 bit for bit.
    make_unique : bool
        Rename keys that would share a file (``-1``, ``-2`` ...) instead of refusing them.
    merge_equal_categories : bool
        Merge categories that read the same as text instead of refusing them.
    created_at : str
        Time stamp to record, for reproducible exports; also taken from ``SOURCE_DATE_EPOCH``.
    strategy : 'auto', 'memory' or 'spill'
        How expression that is stored by cell is regrouped by gene: in memory (as many genes at once as fit), or by
        way of temporary files. ``'auto'`` takes the quicker one that fits. The result is the same.
    spill_dir : path
        Folder for temporary files; by default beside `out_dir`.

    Returns
    -------
    Report
        What was written, how long it took, and what deserves a second look.

    Raises
    ------
    InputError
        (a ValueError) Input or options are refused; nothing was written.
    BudgetError
        (a MemoryError) `memory_budget` is too small; the message says what would do.
    OutputError
        (an OSError) The folder could not be written; it is as it was.
    """
    given = dict(locals())
    if engine == "reference":
        return _reference(given)
    if engine != "fast":
        remedy = "use 'fast' or 'reference'; Dask exports files: atlaswriter.cellucid(path, out, engine='dask')"
        raise InputError(Problem("engine", f"{engine!r} is not known here", remedy))
    options = _options(given)
    resources = Resources.of(given)
    problems = Problems()
    target = problems.attempt(target_path, out_dir, "out_dir")
    report = Report(str(target), "cellucid v1")
    if target is not None:
        check_early(options, target, resources, problems)
    budget = problems.attempt(Budget, resources.memory_budget) or Budget()
    with report.phase("check"):
        atlas = _atlas(given, problems)
        problems.attempt(keep_arrays, atlas, budget, workers or usable_cpus())
        problems.attempt(check_atlas, atlas, options, target, problems)
    problems.raise_if_any()
    assert target is not None  # noqa: S101 - no target is a problem
    return export(Export(atlas, options, target, resources, budget, report))


def _options(given: Mapping[str, Any]) -> Options:
    names = Layout(
        obs_manifest=given["obs_manifest_filename"],
        obs_dir=given["obs_binary_dirname"],
        var_manifest=given["var_manifest_filename"],
        var_dir=given["var_binary_dirname"],
        connectivity_manifest=given["connectivity_manifest_filename"],
        connectivity_dir=given["connectivity_binary_dirname"],
    )
    return Options.of(given, layout=names)


# Arguments that cellucid 0.0.9 does not have.
_OURS = (
    "engine",
    "memory_budget",
    "workers",
    "progress",
    "quantizer",
    "make_unique",
    "merge_equal_categories",
    "created_at",
    "strategy",
    "spill_dir",
)


def _reference(given: Mapping[str, Any]) -> Report:
    """Let the installed cellucid 0.0.9 do the work, and report on what it left."""
    try:
        from importlib.metadata import version

        found = version("cellucid")
    except ImportError:
        found = "no"
    if found != "0.0.9":
        remedy = 'install it with: pip install "cellucid==0.0.9" "pandas<3" (or atlaswriter[reference])'
        raise InputError(Problem("engine='reference'", f"needs cellucid 0.0.9; {found} version is installed", remedy))
    from cellucid import prepare as original

    target = Path(given["out_dir"])
    report = Report(str(target), "cellucid v1 (by cellucid 0.0.9)")
    with report.phase("reference"):
        arguments = {name: value for name, value in given.items() if name not in _OURS}
        if isinstance(given["vector_fields"], Mapping):  # which the original would scale in place
            arguments["vector_fields"] = {name: copy(array) for name, array in given["vector_fields"].items()}
        original(**arguments)
    written = [path for path in target.rglob("*") if path.is_file()]
    report.files, report.bytes_out = len(written), sum(path.stat().st_size for path in written)
    report.close()
    return report


def _atlas(given: Mapping[str, Any], problems: Problems) -> Atlas:
    """The parts of the export, as far as they can be read."""
    embeddings: dict[int, AnyArray] = {}
    for dim in (1, 2, 3, 4):
        name = f"X_umap_{dim}d"
        if given[name] is not None:
            array = problems.attempt(dense_of, given[name], name)
            if array is not None:
                embeddings[dim] = array
    latent = given["latent_space"]
    if latent is None:
        problems.add("latent_space", "is missing", "it is needed for outlier quantiles; pass for example X_pca")
    else:
        latent = problems.attempt(dense_of, latent, "latent_space")
    obs = _obs(given["obs"], given["obs_keys"], problems)
    genes = problems.attempt(_genes, given)
    graph = given["connectivities"]
    if graph is not None:
        graph = problems.attempt(matrix_of, graph, "connectivities")
    n_rows = len(given["obs"]) if hasattr(given["obs"], "columns") else None
    n_cells = next(iter(embeddings.values())).shape[0] if embeddings else n_rows or 0
    if n_rows not in (None, n_cells):
        problems.add("obs", f"has {n_rows} rows", f"the embeddings have {n_cells}")
    atlas = Atlas(n_cells, embeddings, latent, obs, genes, graph)
    atlas.vectors = _vectors(given["vector_fields"], atlas, problems)
    return atlas


def _obs(obs: Any, obs_keys: Any, problems: Problems) -> list[tuple[str, Column]]:
    import pandas as pd

    if not isinstance(obs, pd.DataFrame):
        problems.add("obs", "is missing" if obs is None else f"is a {type(obs).__name__}", "pass a pandas DataFrame")
        return []
    # A name may stand several times; each of its columns is kept for the check of names.
    places: dict[Any, list[int]] = {}
    for place, label in enumerate(obs.columns):
        places.setdefault(label, []).append(place)
    keys = list(places)
    if obs_keys is not None:
        keys = problems.attempt(select, obs_keys, keys, "obs_keys", "columns") or []
    columns = []
    for key in keys:
        for place in places[key]:
            column = problems.attempt(column_from_pandas, obs.iloc[:, place], f"obs[{str(key)!r}]")
            if column is not None:
                columns.append((str(key), column))
    return columns


def _genes(given: Mapping[str, Any]) -> Genes | None:
    expression, var, id_column = given["gene_expression"], given["var"], given["var_gene_id_column"]
    if expression is None:
        return None
    import pandas as pd

    if not isinstance(var, pd.DataFrame):
        raise InputError(Problem("var", "is missing", "pass a DataFrame with one row per gene"))
    matrix = matrix_of(expression, "gene_expression")
    if len(var) != matrix.shape[1]:
        found = f"has {len(var)} rows, gene_expression {matrix.shape[1]} columns"
        raise InputError(Problem("var", found, "there must be one row per gene"))
    if id_column is None or id_column == "index":
        labels = var.index
    elif id_column in var.columns:
        labels = var[id_column]
    else:
        remedy = f"use 'index' or one of {listed(var.columns)}"
        raise InputError(Problem("var_gene_id_column", f"{id_column!r} is not a column of var", remedy))
    if pd.isna(labels).any():
        raise InputError(Problem("var", f"{int(pd.isna(labels).sum())} genes have no identifier", "name every gene"))
    ids, columns = select_genes(labels.astype(str).tolist(), given["gene_identifiers"], "gene_identifiers")
    return Genes(ids, columns, matrix, id_column)


def _vectors(fields: Any, atlas: Atlas, problems: Problems) -> dict[str, dict[int, AnyArray]]:
    if not fields:
        return {}
    if not isinstance(fields, Mapping):
        problems.add("vector_fields", f"is a {type(fields).__name__}", "pass a dict of name to array")
        return {}
    arrays = {}
    for key, value in fields.items():
        if value is not None:
            table = value.reshape(-1, 1) if isinstance(value, np.ndarray) and value.ndim == 1 else value
            array = problems.attempt(dense_of, table, f"vector_fields[{str(key)!r}]")
            if array is not None:
                arrays[str(key)] = array
    return group_vectors(arrays, atlas.embeddings, problems, atlas.warnings)
