"""Reading a Cellucid export folder back, value for value as the viewer decodes it.

Reads what cellucid 0.0.9, the R package of the same era and this package write. The R package
writes lists of one element without their brackets; those are taken as lists.
"""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import Problem, UnknownNameError, look_up
from atlaswriter.findings import ReadError
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid import rules_entries as entries
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.rules_entries import Category, Edges, Values
from atlaswriter.formats.cellucid.rules_files import Array, read_array
from atlaswriter.report import html_table
from atlaswriter.sources.untrusted import count, load_json, locate

if TYPE_CHECKING:
    import pandas as pd


def open_export(directory: str | PathLike[str], *, layout: Layout | None = None) -> Export:
    """Open an export folder; files are read when they are asked for.

    Parameters
    ----------
    directory
        Folder with ``dataset_identity.json``.
    layout
        File and folder names, when they were changed at export.

    Returns
    -------
    Export

    Raises
    ------
    FormatError
        The folder is not an export of layout ``v1``, or something in it is damaged. Every method
        of the result raises it too, for the file that it reads.
    """
    return Export(directory, layout or Layout())


def dequantise(codes: Array, low: float, high: float) -> Array:
    """Values of uint8 or uint16 codes as the viewer computes them.

    ``float32(low + code * step)`` with ``step = (high - low) / top`` in double arithmetic and one
    rounding; the missing code gives NaN. (Rule: viewer of cellucid 0.0.9.)

    Parameters
    ----------
    codes
        uint8 or uint16, ``(n,)``.
    low, high
        Bounds from the manifest.

    Returns
    -------
    numpy.ndarray
        float32, ``(n,)``.
    """
    bits = 8 * codes.itemsize
    top, missing = names.TOP[bits], names.MISSING[bits]
    # A table of all codes costs less than the arithmetic once there are more cells than codes.
    tabled = codes.size > missing
    levels = np.arange(missing + 1) if tabled else codes
    with np.errstate(over="ignore", invalid="ignore"):
        values: Array = (low + levels.astype(np.float64) * ((high - low) / top)).astype(np.float32)
    values[levels == missing] = np.nan
    return values[codes] if tabled else values


class Export:
    """An export folder, read lazily; made by `open_export`.

    Arrays that come straight from a file are read-only. A method given a name that the export
    does not have raises `UnknownNameError`; one that finds its file damaged raises `FormatError`.

    Attributes
    ----------
    path
        The folder.
    identity
        Content of ``dataset_identity.json``.
    n_cells
        Number of cells.
    """

    def __init__(self, directory: str | PathLike[str], layout: Layout) -> None:
        self.path = Path(directory)
        self._root = self.path.resolve()
        self._layout = layout
        if not self._root.is_dir():
            raise ReadError("folder.missing", str(self.path), "is not a folder", "give the folder of an export")
        self.identity: dict[str, Any] = load_json(self._root, names.IDENTITY)
        entries.require_version(self.identity)
        stats = entries.as_dict(self.identity.get("stats"), "stats", names.IDENTITY)
        self.n_cells = count(stats.get("n_cells"), "n_cells", names.IDENTITY)

    @cached_property
    def _obs_manifest(self) -> dict[str, Any]:
        manifest = load_json(self._root, self._layout.obs_manifest)
        entries.require_format(manifest, "_format", names.MANIFEST_FORMAT, self._layout.obs_manifest)
        return manifest

    @cached_property
    def _continuous(self) -> dict[str, Values]:
        where = self._layout.obs_manifest
        fields = entries.as_list(self._obs_manifest.get("_continuousFields"))
        if not fields:
            return {}
        schemas = entries.as_dict(self._obs_manifest.get("_obsSchemas"), "_obsSchemas", where)
        schema = entries.value_schema(entries.as_dict(schemas.get("continuous"), "schema", where), where)
        return dict(entries.value_entry(field, schema, self.n_cells, where) for field in fields)

    @cached_property
    def _categorical(self) -> dict[str, Category]:
        where = self._layout.obs_manifest
        schemas = entries.as_dict(self._obs_manifest.get("_obsSchemas"), "_obsSchemas", where)
        schema = entries.as_dict(schemas.get("categorical"), "schema", where)
        fields = entries.as_list(self._obs_manifest.get("_categoricalFields"))
        return dict(entries.category_entry(field, schema, self.n_cells, where) for field in fields)

    @cached_property
    def _genes(self) -> dict[str, Values]:
        where = self._layout.var_manifest
        if not locate(self._root, where).exists():
            return {}
        manifest = load_json(self._root, where)
        entries.require_format(manifest, "_format", names.MANIFEST_FORMAT, where)
        schema = entries.value_schema(entries.as_dict(manifest.get("_varSchema"), "_varSchema", where), where)
        fields = entries.as_list(manifest.get("fields"))
        return dict(entries.value_entry(field, schema, self.n_cells, where) for field in fields)

    @cached_property
    def _edges(self) -> Edges | None:
        where = self._layout.connectivity_manifest
        if not locate(self._root, where).exists():
            return None
        return entries.edges_entry(load_json(self._root, where), where)

    @property
    def _embeddings(self) -> dict[str, Any]:
        return entries.as_dict(self.identity.get("embeddings"), "embeddings", names.IDENTITY)

    @property
    def genes(self) -> list[str]:
        """Ids of the genes, in the order of the manifest."""
        return list(self._genes)

    @property
    def dimensions(self) -> list[int]:
        """Dimensions that have points, rising."""
        return entries.dimensions(self._embeddings, names.IDENTITY)

    @property
    def continuous_keys(self) -> list[str]:
        """Names of the continuous obs fields."""
        return list(self._continuous)

    @property
    def categorical_keys(self) -> list[str]:
        """Names of the categorical obs fields."""
        return list(self._categorical)

    @property
    def obs_keys(self) -> list[str]:
        """Names of all obs fields, the continuous ones first."""
        return self.continuous_keys + self.categorical_keys

    @property
    def vector_fields(self) -> dict[str, list[int]]:
        """Dimensions of each vector field."""
        fields = entries.vector_entries(self.identity)
        return {field: entries.dimensions(entry, names.IDENTITY) for field, entry in fields.items()}

    @property
    def n_edges(self) -> int | None:
        """Number of edges, None without a graph."""
        return None if self._edges is None else self._edges.sources.shape[0]

    def points(self, dim: int | None = None) -> Array:
        """Normalised points of one embedding.

        Parameters
        ----------
        dim
            1 to 4; by default the one that the viewer shows first.

        Returns
        -------
        numpy.ndarray
            float32, ``(n_cells, dim)``.
        """
        if dim is None:
            dim = names.default_dimension(self.dimensions)
        look_up({one: one for one in self.dimensions}, dim, "dimension")
        return read_array(self._root, entries.points_payload(self._embeddings, dim, self.n_cells))

    def vectors(self, field: str, dim: int) -> Array:
        """One vector field in the coordinates of the points: float32, ``(n_cells, dim)``."""
        entry = look_up(entries.vector_entries(self.identity), field, "vector field")
        look_up({one: one for one in self.vector_fields[field]}, dim, f"dimension of {field!r}")
        return read_array(self._root, entries.vectors_payload(field, entry, dim, self.n_cells))

    def gene(self, gene: str) -> Array:
        """Expression of one gene: float32, ``(n_cells,)``, NaN where missing."""
        return self._decoded(self.gene_entry(gene))

    def gene_entry(self, gene: str) -> Values:
        """How one gene is stored: file, dtype, bounds, step."""
        return look_up(self._genes, gene, "gene")

    def obs(self, key: str) -> pd.Series[Any]:
        """One obs field.

        Returns
        -------
        pandas.Series
            float32 with NaN for missing, or categorical with all categories of the export in
            their order. Codes past the last category are missing, as in the viewer; categories
            with equal labels are one.
        """
        import pandas as pd

        entry = self.obs_entry(key)
        if isinstance(entry, Values):
            return pd.Series(self._decoded(entry), name=key)
        labels = list(dict.fromkeys(entry.categories))
        position = {label: code for code, label in enumerate(labels)}
        table = np.full(names.MISSING[8 * np.dtype(entry.codes.dtype).itemsize] + 1, -1, np.int32)
        known = entry.categories[: len(table)]
        table[: len(known)] = [position[label] for label in known]
        table[entry.missing : entry.missing + 1] = -1
        return pd.Series(pd.Categorical.from_codes(table[self.codes(key)], pd.Index(labels)), name=key)

    def obs_entry(self, key: str) -> Values | Category:
        """How one obs field is stored."""
        fields: dict[str, Values | Category] = {**self._continuous, **self._categorical}
        return look_up(fields, key, "obs field")

    def codes(self, key: str) -> Array:
        """Content of an obs field's file before decoding: ``(n_cells,)``, uint8, uint16 or float32."""
        entry = self.obs_entry(key)
        return read_array(self._root, entry.payload if isinstance(entry, Values) else entry.codes)

    def outliers(self, key: str) -> Array:
        """Outlier quantiles of a categorical field: float32, ``(n_cells,)``, NaN where there is none."""
        return self._decoded(look_up(self._categorical, key, "categorical field").outliers)

    def centroids(self, key: str, dim: int) -> pd.DataFrame:
        """Label positions of a categorical field.

        Returns
        -------
        pandas.DataFrame
            Indexed by category; coordinates ``x``, ``y``, ``z``, ``w`` as far as there are, in
            the coordinates of the points, and ``n_points``.
        """
        import pandas as pd

        entry = look_up(self._categorical, key, "categorical field")
        look_up({one: one for one in self.dimensions}, dim, "dimension")
        where = self._layout.obs_manifest
        found = entries.centroid_entries(entry.centroids.get(str(dim)), dim, key, where)
        frame = pd.DataFrame([centroid.position for centroid in found], columns=list("xyzw"[:dim]), dtype=float)
        frame.index = pd.Index([centroid.category for centroid in found], name=key)
        frame["n_points"] = [centroid.n_points for centroid in found]
        return frame

    def edges(self) -> tuple[Array, Array]:
        """Both ends of the neighbour graph's edges.

        Returns
        -------
        sources, destinations
            Zero-based cells in the stored dtype (uint16, uint32 or uint64), ``(n_edges,)``, with
            source < destination, sorted. ``scipy.sparse.coo_array`` takes them as they are; cast
            before doing arithmetic with them.
        """
        if self._edges is None:
            raise UnknownNameError(Problem("edges", f"{self.path} has no neighbour graph", "look at n_edges first"))
        return read_array(self._root, self._edges.sources), read_array(self._root, self._edges.destinations)

    def _decoded(self, values: Values) -> Array:
        stored = read_array(self._root, values.payload)
        return stored if values.bounds is None else dequantise(stored, *values.bounds)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("cells", f"{self.n_cells:,}"),
            ("genes", f"{len(self.genes):,}"),
            ("dimensions", ", ".join(map(str, self.dimensions))),
            ("continuous", ", ".join(self.continuous_keys) or "none"),
            ("categorical", ", ".join(self.categorical_keys) or "none"),
            ("vector fields", ", ".join(self.vector_fields) or "none"),
            ("edges", "none" if self.n_edges is None else f"{self.n_edges:,}"),
        ]

    def __repr__(self) -> str:
        return "\n".join([f"Export {self.path}", *(f"    {name}: {value}" for name, value in self._rows())])

    def _repr_html_(self) -> str:
        return html_table([("export", str(self.path)), *self._rows()])
