"""`cellucid`: from an AnnData, wherever it lives, to a Cellucid folder; what is not named is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.record import Record
from atlaswriter.engine.resources import Resources, check_engine
from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.cellucid import choose
from atlaswriter.formats.cellucid.atlas import Atlas, Export, Genes, group_vectors, keep_arrays
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.selection import select, select_genes
from atlaswriter.formats.cellucid.target import check_early
from atlaswriter.formats.cellucid.validate import check_atlas
from atlaswriter.report import Report
from atlaswriter.sinks.folder import target_path
from atlaswriter.sources.base import AnyArray, Column, Source
from atlaswriter.sources.open import open_source
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    from anndata import AnnData


def cellucid(
    source: AnnData | str | PathLike[str],
    out: str | PathLike[str],
    *,
    layer: str | None = None,
    use_raw: bool = False,
    genes: Sequence[str] | Literal[False] | None = None,
    gene_names: str | None = None,
    obs: Sequence[str] | None = None,
    exclude_obs: Sequence[str] = (),
    embeddings: Mapping[str, str] | Sequence[str] | None = None,
    latent: str | Literal[False] | None = None,
    vector_fields: Sequence[str] | Literal[False] | None = None,
    graph: str | Literal[False] | None = None,
    var_quantization: int | None = 8,
    obs_continuous_quantization: int | None = 8,
    obs_categorical_dtype: Literal["auto", "uint8", "uint16"] = "auto",
    compression: int | None = 6,
    centroid_outlier_quantile: float | None = 0.95,
    centroid_min_points: int = 10,
    quantizer: Literal["nearest", "truncate"] = "nearest",
    make_unique: bool = False,
    merge_equal_categories: bool = False,
    force: bool = False,
    dataset_name: str | None = None,
    dataset_description: str | None = None,
    dataset_id: str | None = None,
    source_name: str | None = None,
    source_url: str | None = None,
    source_citation: str | None = None,
    created_at: str | None = None,
    memory_budget: str | int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    strategy: Literal["auto", "memory", "spill"] = "auto",
    spill_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    engine: Literal["fast", "dask"] = "fast",
    dask: Any = None,
) -> Report:
    """Export an AnnData to a Cellucid folder (layout v1).

    Parameters
    ----------
    source
        An ``.h5ad`` file, a Zarr store (folder or ``.zip``), or an AnnData.
    out
        Folder to write.
    layer, use_raw
        Export a layer, or ``raw.X``, instead of X.
    genes
        Genes to export, in this order; None: all; False: none.
    gene_names
        Column of var (or ``raw.var``) to name genes by; None: the index.
    obs, exclude_obs
        Columns to export (None: all), and columns to leave out.
    embeddings
        ``{"2d": "X_umap", ...}`` or a list of obsm keys, whose columns tell the dimension.
        None: ``X_umap_1d|2d|3d``, ``X_umap``; without these, t-SNE and other known names.
    latent
        obsm key of the space outlier quantiles are measured in; None: scANVI, scVI, Harmony, PCA,
        the first that is there; False, or none there: all quantiles are missing.
    vector_fields
        obsm keys; None: those named ``<field>_umap[_<dim>d]``, such as ``velocity_umap``; False: none.
    graph
        obsp key; None: ``connectivities``; False: none.
    var_quantization, obs_continuous_quantization, obs_categorical_dtype, compression, \
centroid_outlier_quantile, centroid_min_points, quantizer, make_unique, merge_equal_categories, force, \
dataset_name, dataset_description, dataset_id, source_name, source_url, source_citation, created_at, \
memory_budget, workers, progress, strategy, spill_dir
        As in `atlaswriter.prepare`; values are stored in 8 bits and compressed unless told otherwise.
    resume
        Go on where an interrupted export of the same source with the same options stopped; what is done is proven,
        and anything that was changed is named and refused. If this export is interrupted, what is done stays.
    engine, dask
        ``engine="dask"`` runs the export in tasks on a Dask cluster: `dask` is the address of its scheduler, a
        ``distributed.Client``, or ``"local"`` (also by default, unless there is a client already).

    Returns
    -------
    Report
        What was chosen and written, how long it took, and what deserves a second look.

    Raises
    ------
    InputError, BudgetError, OutputError
        As `atlaswriter.prepare`.
    """
    given = dict(locals())
    check_engine(engine, dask)
    if engine == "dask":
        from atlaswriter.formats.on_dask import export_on_dask

        return export_on_dask("cellucid", given)
    with opened(given) as prepared:
        # Imports numba, which a thread has loaded by now.
        from atlaswriter.formats.cellucid.write import export

        return export(prepared)


@contextmanager
def opened(
    given: Mapping[str, Any], *, load_kernels: bool = True, values: bool = True, tables: bool = True
) -> Iterator[Export]:
    """An export that has been checked; its source is open while the context lasts.

    Parameters
    ----------
    given
        Arguments of `cellucid`.
    load_kernels
        Whether they will be needed.
    values
        Whether numbers are checked: once is enough.
    tables
        Whether anything but expression will be written.
    """
    options = Options.of(given)
    resources = Resources.of(given)
    problems = Problems()
    target = problems.attempt(target_path, given["out"], "out")
    report = Report(str(target), "cellucid v1")
    if target is not None:
        check_early(options, target, resources, problems)
    budget = problems.attempt(Budget, resources.memory_budget) or Budget()
    with report.phase("open"):
        source = open_source(given["source"], workers=resources.workers)
        made_of = record(given)  # before anything is read: a change from now on is one that a later run notices
    # numba takes a moment to load, and longer to compile on a new machine: meanwhile the data is looked at.
    stop = Event()
    loading = Thread(target=_prepare_kernels, args=(source, given, options, stop), daemon=True)
    try:
        if load_kernels and not problems.found:
            loading.start()
        with report.phase("read"):
            report.contents["source"] = source.location
            atlas = _atlas(source, given, problems, report)
            if tables:
                problems.attempt(keep_arrays, atlas, budget, resources.workers or usable_cpus())
            problems.attempt(check_atlas, atlas, options, target, problems, values=values, frames=tables)
        problems.raise_if_any()
        assert target is not None  # noqa: S101 - no target is a problem
        with report.phase("kernels"):
            if loading.is_alive():
                loading.join()
        yield Export(atlas, options, target, resources, budget, report, made_of)
    finally:
        stop.set()
        if loading.is_alive():
            loading.join()
        source.close()


def record(given: Mapping[str, Any]) -> Record | None:
    """What an export with these arguments is made of; None where its source is in memory."""
    source = given["source"]
    if not isinstance(source, str | PathLike):
        return None
    return Record.of("cellucid", {name: value for name, value in given.items() if name != "source"}, [source])


def _prepare_kernels(source: Source, given: Mapping[str, Any], options: Options, stop: Event) -> None:
    from atlaswriter.engine.warmup import warm_up
    from atlaswriter.formats.cellucid.warmup import typical_atlas, wanted_kernels

    genes, graph = given["genes"] is not False, given["graph"] is not False
    with suppress(InputError):  # said where the source is read
        graph = graph and bool(source.obsp())
    warm_up(wanted_kernels(typical_atlas(source.n_cells, genes=genes, graph=graph), options), stop)


def _atlas(source: Source, given: Mapping[str, Any], problems: Problems, report: Report) -> Atlas:
    shapes = source.obsm()
    chosen = problems.attempt(choose.embeddings, shapes, given["embeddings"]) or {}
    latent_key = problems.attempt(choose.latent, shapes, given["latent"])
    vector_keys = problems.attempt(choose.vectors, shapes, given["vector_fields"], chosen.values()) or []
    graph_key = problems.attempt(choose.graph, source.obsp(), given["graph"])
    embeddings = {dim: problems.attempt(source.obsm_array, key) for dim, key in chosen.items()}
    latent = None if latent_key is None else problems.attempt(source.obsm_array, latent_key)
    obs = _obs(source, given["obs"], given["exclude_obs"], problems)
    genes = None if given["genes"] is False else problems.attempt(_genes, source, given)
    graph = None if graph_key is None else problems.attempt(source.obsp_matrix, graph_key)
    vectors = {key: problems.attempt(source.obsm_array, key) for key in vector_keys}
    atlas = Atlas(source.n_cells, _found(embeddings), latent, obs, genes, graph)
    atlas.vectors = group_vectors(_found(vectors), atlas.embeddings, problems, atlas.warnings)
    if latent_key is None:
        atlas.warnings.append("no latent space: outlier quantiles are missing (name one with latent=, --latent)")
    report.contents |= {
        "expression": "none" if genes is None else _expression_name(given),
        "chosen embeddings": [f"{key} ({dim}D)" for dim, key in chosen.items()],
        "latent space": latent_key or "none",
        "graph": graph_key or "none",
    }
    return atlas


def _found(arrays: Mapping[Any, AnyArray | None]) -> dict[Any, AnyArray]:
    return {key: array for key, array in arrays.items() if array is not None}


def _expression_name(given: Mapping[str, Any]) -> str:
    if given["layer"] is not None:
        return f"layer {given['layer']}"
    return "raw.X" if given["use_raw"] else "X"


def _obs(source: Source, chosen: Any, excluded: Any, problems: Problems) -> list[tuple[str, Column]]:
    known = source.obs_columns()
    keys = known if chosen is None else problems.attempt(select, chosen, known, "obs", "columns") or []
    out = problems.attempt(select, excluded, known, "exclude_obs", "columns") or []
    columns = []
    for key in keys:
        if key not in out:
            column = problems.attempt(source.obs, key)
            if column is not None:
                columns.append((key, column))
    return columns


def _genes(source: Source, given: Mapping[str, Any]) -> Genes | None:
    layer, raw, names_column = given["layer"], given["use_raw"], given["gene_names"]
    if layer is not None and raw:
        raise InputError(Problem("layer, use_raw", "both are given", "choose one matrix"))
    problems = Problems()
    names = problems.attempt(source.gene_names, names_column, raw=raw)
    chosen = None if names is None else problems.attempt(select_genes, names, given["genes"], "genes")
    if layer is not None and layer not in source.layers():
        problems.add("layer", f"{layer!r} does not exist", f"there are {listed(source.layers()) or 'none'}")
    problems.raise_if_any()
    assert chosen is not None  # noqa: S101 - no choice is a problem
    ids, columns = chosen
    matrix = source.expression(layer=layer, raw=raw)
    if matrix is None:
        if given["genes"] is not None:
            raise InputError(Problem("genes", "there is no expression matrix", f"layers: {listed(source.layers())}"))
        return None
    return Genes(ids, columns, matrix, names_column or "index")
