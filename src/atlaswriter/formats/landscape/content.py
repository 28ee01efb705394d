"""What the tables of LandscapeFiles hold, column by column as the front-end chooses them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from atlaswriter.findings import ReadError
from atlaswriter.formats.landscape import columns, layout
from atlaswriter.formats.landscape.columns import Array, Names, ParquetFile, read_table
from atlaswriter.formats.landscape.header import Header
from atlaswriter.sources.untrusted import locate, read_bytes

_CHANNEL_KEY = "image_data"


class Cells(NamedTuple):
    """Cells in the order of their ids.

    Attributes
    ----------
    names
        Of each cell.
    x_px, y_px
        float64, centres in pixels of the full image.
    """

    names: list[str]
    x_px: Array
    y_px: Array


class Genes(NamedTuple):
    """Genes in the order of their ids: names, statistics (float64) by column, colours ``#rrggbb``."""

    names: list[str]
    statistics: dict[str, Array]
    colors: list[str]


class Labels(NamedTuple):
    """Clusters: names, colours ``#rrggbb``, numbers of cells (int64)."""

    names: list[str]
    colors: list[str]
    counts: Array


class Counts(NamedTuple):
    """Cells with counts of one gene: ids (int64), counts (float64 or int64)."""

    cells: Array
    values: Array


class Transcripts(NamedTuple):
    """Transcripts of one tile: ids of their genes (int64, -1 where unknown), positions in pixels (float64)."""

    genes: Array
    x_px: Array
    y_px: Array


class Outlines(NamedTuple):
    """Outlines of the cells of one tile.

    Attributes
    ----------
    cells
        int64, ids; -1 where unknown.
    offsets
        int64, one more than there are cells: where the vertices of each begin.
    xy_px
        float64, ``(n_vertices, 2)``, pixels; the first vertex of a ring comes again as its last.
    n_rings
        int64, number of rings of each; the front-end draws one.
    """

    cells: Array
    offsets: Array
    xy_px: Array
    n_rings: Array


def cells_of(table: pa.Table, where: str) -> Cells:
    """Content of the table of cells."""
    names = columns.texts(columns.column(table, layout.CELL_KEYS, where), where)
    xy = columns.points(columns.column(table, layout.GEOMETRY[::-1], where), where)
    return Cells(names, xy[:, 0], xy[:, 1])


def genes_of(table: pa.Table, where: str) -> Genes:
    """Content of the table of genes."""
    names = columns.texts(columns.column(table, (layout.INDEX,), where), where)
    statistics = {
        key: columns.numbers(columns.column(table, (key,), where), where)
        for key in layout.GENE_STATISTICS
        if key in table.column_names or key != layout.GENE_STATISTICS[-1]
    }
    return Genes(names, statistics, columns.texts(columns.column(table, ("color",), where), where))


def counts_of(table: pa.Table, gene: str, cells: Names, where: str) -> Counts:
    """Content of the counts of one gene."""
    named = layout.count_column(table.column_names, gene)
    if named is None:
        raise ReadError("columns", where, "has no column of counts")
    ids = cells.find(columns.column(table, layout.COUNT_KEYS, where), where)
    values = columns.column(table, (named,), where)
    read = columns.integers if pa.types.is_integer(values.type) else columns.numbers
    return Counts(ids, read(values, where))


def clusters_of(table: pa.Table, where: str) -> tuple[list[str], list[str | None]]:
    """Names of the cells, and the cluster of each; None where the front-end takes it as missing."""
    names = columns.texts(columns.column(table, layout.CLUSTER_KEYS, where), where)
    labels = columns.optional_column(table, ("cluster",), where)
    found = [None if label is None or str(label) == "nan" else str(label) for label in labels.to_pylist()]
    return names, found


def labels_of(table: pa.Table, where: str) -> Labels:
    """Content of the table of clusters."""
    names = columns.texts(columns.column(table, layout.LABEL_KEYS, where), where)
    colors = columns.texts(columns.column(table, ("color",), where), where)
    return Labels(names, colors, columns.integers(columns.column(table, ("count",), where), where))


def signatures_of(table: pa.Table, where: str) -> tuple[list[str], dict[str, Array]]:
    """Genes, and by cluster the mean count of each: float64."""
    genes = columns.texts(columns.column(table, (layout.INDEX,), where), where)
    labels = [name for name in table.column_names if name != layout.INDEX]
    return genes, {name: columns.numbers(columns.column(table, (name,), where), where) for name in labels}


def transcripts_of(table: pa.Table, genes: Names, where: str) -> Transcripts:
    """Content of a tile of transcripts."""
    ids = genes.find(columns.column(table, ("name",), where), where)
    xy = columns.points(columns.column(table, layout.GEOMETRY[::-1], where), where)
    return Transcripts(ids, xy[:, 0], xy[:, 1])


def outlines_of(table: pa.Table, cells: Names, where: str) -> Outlines:
    """Content of a tile of outlines."""
    ids = cells.find(columns.column(table, ("name",), where), where)
    n_rings, offsets, xy = columns.rings(columns.column(table, layout.GEOMETRY, where), where)
    return Outlines(ids, offsets, xy, n_rings)


def image_of(table: pa.Table, where: str) -> bytes:
    """The encoded image tile in a row group."""
    found = columns.column(table, (_CHANNEL_KEY,), where)
    if len(found) != 1 or not isinstance(found[0].as_py(), bytes):
        raise ReadError("groups.image", where, f"a row group has {len(found):,} rows of {found.type}, not one image")
    content: bytes = found[0].as_py()
    return content


def transform_of(root: Path, name: str) -> Array:
    """The 3 × 3 matrix in a file: numbers separated by spaces or commas."""
    content = read_bytes(locate(root, name), name)
    try:
        rows = [line.replace(",", " ").split() for line in content.decode().splitlines() if line.strip()]
        matrix = np.array([[float(value) for value in row] for row in rows])
    except ValueError as error:
        raise ReadError("transform", name, f"is no matrix ({error})") from None
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ReadError("transform", name, f"is no 3 × 3 matrix of finite numbers, but {matrix.shape}")
    return matrix


class Tiles:
    """Where the tiles of one part are: in loose files, or in row groups.

    Parameters
    ----------
    root, header
        The folder and its parameters.
    loose, grouped
        Folder of loose files, and of files of row groups; the latter is the name of the part.
    file_of
        Loose file of a tile.
    """

    def __init__(
        self, root: Path, header: Header, loose: str, grouped: str, file_of: Callable[[int, int], str]
    ) -> None:
        self.root, self.header = root, header
        self.loose, self.part, self.file_of = loose, grouped, file_of
        self.chunks = header.chunks(grouped)

    def rows(self) -> dict[tuple[int, int], int]:
        """Number of rows of each tile that is there, by column and row of the tile, sorted."""
        if self.chunks is None:
            found = {}
            for tile in self._loose_files():
                with ParquetFile(self.root, self.file_of(*tile)) as file:
                    found[tile] = sum(file.rows)
            return found
        n_y = self._n_y
        found, index = {}, 0
        for path in self.chunks.paths:
            with ParquetFile(self.root, path) as file:
                found |= {divmod(index + group, n_y): n_rows for group, n_rows in enumerate(file.rows) if n_rows}
                index += len(file.rows)
        return found

    def table(self, i: int, j: int) -> tuple[pa.Table, str] | None:
        """Content of one tile, and the file that it is in; None for an empty one."""
        if self.chunks is None:
            name = self.file_of(i, j)
            return (read_table(self.root, name), name) if locate(self.root, name).exists() else None
        grid = self.header.grid
        if grid is None or not (0 <= i < grid.n_x and 0 <= j < grid.n_y):
            return None
        path, group = self.chunks.place(i * grid.n_y + j)
        return read_table(self.root, path, group), path

    @property
    def _n_y(self) -> int:
        return self.header.grid.n_y if self.header.grid else 1

    def _loose_files(self) -> list[tuple[int, int]]:
        folder = locate(self.root, self.loose)
        try:
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        except OSError as error:
            raise ReadError("file.unreadable", self.loose, f"cannot be listed ({error})") from None
        return sorted(tile for name in names if (tile := layout.tile_of(name)) is not None)


def transcript_tiles(root: Path, header: Header) -> Tiles:
    """Where transcripts are."""
    return Tiles(root, header, layout.transcripts_dir(), layout.transcripts_dir(True), layout.transcript_tile)


def outline_tiles(root: Path, header: Header, segmentation: str | None) -> Tiles:
    """Where the outlines of cells are."""
    folder = layout.outlines_dir(segmentation)
    return Tiles(root, header, folder, folder, partial(layout.outline_tile, segmentation=segmentation))


def counts_places(header: Header, genes: Names, segmentation: str | None) -> dict[str, tuple[str, int | None]]:
    """File of each gene's counts, and its row group there; None for a loose file, which need not be there."""
    part = layout.cbg_dir(segmentation)
    chunks = header.chunks(part)
    if chunks is None:
        return {gene: (layout.cbg_file(gene, segmentation), None) for gene in genes.names}
    groups = header.gene_groups(part)
    return {gene: chunks.place(groups[gene]) for gene in genes.names if gene in groups}


def stated_grid(file: ParquetFile) -> dict[str, Any]:
    """The grid of tiles in the metadata of a file of row groups; empty where there is none."""
    found = file.stated("tile_grid_info")
    return found if isinstance(found, dict) else {}
