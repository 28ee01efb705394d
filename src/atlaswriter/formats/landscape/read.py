"""Reading LandscapeFiles back, as Celldega's front-end reads them.

Reads what celldega 0.27.0 and this package write, in loose tiles and in row groups, and older sets
that have names where today's have ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import look_up
from atlaswriter.findings import ReadError
from atlaswriter.formats.landscape import content, imageread, layout
from atlaswriter.formats.landscape.columns import Array, Names, read_table
from atlaswriter.formats.landscape.content import Cells, Counts, Genes, Labels, Outlines, Transcripts
from atlaswriter.formats.landscape.header import Channel, Header
from atlaswriter.formats.landscape.imageread import Pyramid
from atlaswriter.report import html_table
from atlaswriter.sources.untrusted import load_json, locate

if TYPE_CHECKING:
    import pandas as pd


def open_export(directory: str | PathLike[str], *, segmentation: str | None = None) -> Landscape:
    """Open LandscapeFiles; files are read when they are asked for.

    Parameters
    ----------
    directory
        Folder with ``landscape_parameters.json``.
    segmentation
        Name of another segmentation, one of `Landscape.segmentations`; None for the default one.

    Returns
    -------
    Landscape

    Raises
    ------
    FormatError
        The folder does not hold LandscapeFiles, or something in it is damaged. Every method of
        the result raises it too, for the file that it reads.
    UnknownNameError
        There is no such segmentation.
    """
    return Landscape(directory, segmentation)


class Landscape:
    """LandscapeFiles, read lazily; made by `open_export`.

    Positions are pixels of the full image, x to the right and y down from its corner. The id of a
    cell is its position in `cells`, that of a gene its position in `genes`. A method given a name
    that there is not raises `UnknownNameError`; one that finds its file damaged, `FormatError`.

    Attributes
    ----------
    path
        The folder.
    parameters
        Content of ``landscape_parameters.json``.
    segmentation
        Name of the segmentation that is read; None for the default one.
    """

    def __init__(self, directory: str | PathLike[str], segmentation: str | None = None) -> None:
        self.path = Path(directory)
        self._root = self.path.resolve()
        if not self._root.is_dir():
            raise ReadError("folder.missing", str(self.path), "is not a folder", "give the folder of an export")
        self.parameters: dict[str, Any] = load_json(self._root, layout.PARAMETERS)
        self._header = Header(self.parameters)
        self.segmentation = segmentation
        if segmentation is not None:
            look_up({name: name for name in self.segmentations}, segmentation, "segmentation")

    @property
    def technology(self) -> str:
        """Such as ``"Xenium"``; decides how the front-end shows the data."""
        return self._header.technology

    @property
    def segmentations(self) -> list[str]:
        """Names of the segmentations besides the default one."""
        return self._header.segmentations

    @property
    def row_groups(self) -> bool:
        """Whether tiles are row groups of few files instead of files of their own."""
        return self._header.row_groups

    @property
    def tile_size(self) -> int:
        """Edge of a data tile, pixels."""
        return self._header.tile_size

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._cell_names)

    @property
    def n_genes(self) -> int:
        """Number of genes, control probes and codewords included."""
        return len(self._gene_names)

    @property
    def genes(self) -> list[str]:
        """Names of the genes by id."""
        return list(self._gene_names.names)

    @cached_property
    def _cells(self) -> Cells:
        name = layout.cell_metadata_file(self.segmentation)
        return content.cells_of(read_table(self._root, name), name)

    @cached_property
    def _genes(self) -> Genes:
        name = layout.meta_gene_file(self.segmentation)
        return content.genes_of(read_table(self._root, name), name)

    @cached_property
    def _cell_names(self) -> Names:
        return Names(self._cells.names)

    @cached_property
    def _gene_names(self) -> Names:
        return Names(self._genes.names)

    @cached_property
    def _labels(self) -> Labels:
        name = layout.meta_cluster_file(self.segmentation)
        return content.labels_of(read_table(self._root, name), name)

    @cached_property
    def _transcripts(self) -> content.Tiles:
        return content.transcript_tiles(self._root, self._header)

    @cached_property
    def _outlines(self) -> content.Tiles:
        return content.outline_tiles(self._root, self._header, self.segmentation)

    @cached_property
    def _counts(self) -> dict[str, tuple[str, int | None]]:
        return content.counts_places(self._header, self._gene_names, self.segmentation)

    def cells(self) -> Cells:
        """Names (list of str) and centres ``x_px``, ``y_px`` (float64, ``(n_cells,)``) of the cells by id."""
        return self._cells

    def meta_gene(self) -> pd.DataFrame:
        """Statistics of each gene over all cells: float64 ``mean std max non-zero``, and ``color``, by name."""
        import pandas as pd

        found = self._genes
        return pd.DataFrame({**found.statistics, "color": found.colors}, index=pd.Index(found.names, name="gene"))

    def gene(self, gene: str) -> Counts:
        """Cells that have counts of a gene.

        Returns
        -------
        cells
            int64, ids, rising.
        values
            int64, counts of these cells; float64 where they are stored as such.
        """
        look_up(self._gene_names.ids, gene, "gene")
        place = self._counts.get(gene)
        if place is None or not locate(self._root, place[0]).exists():
            return Counts(np.empty(0, np.int64), np.empty(0, np.int64))
        return content.counts_of(read_table(self._root, *place), gene, self._cell_names, place[0])

    def gene_dense(self, gene: str) -> Array:
        """Counts of one gene in every cell, ``(n_cells,)``, dtype as of `gene`."""
        cells, values = self.gene(gene)
        dense = np.zeros(self.n_cells, values.dtype)
        if cells.size and not 0 <= cells.min() <= cells.max() < self.n_cells:
            raise ReadError("counts.cells", layout.cbg_dir(self.segmentation), f"{gene!a} has cells that are not there")
        dense[cells] = values
        return dense

    def clusters(self) -> pd.Series[Any]:
        """Cluster of each cell by its name, in the order of ids: str, or None where there is none."""
        import pandas as pd

        name = layout.cluster_file(self.segmentation)
        cells, labels = content.clusters_of(read_table(self._root, name), name)
        known = dict(zip(cells, labels, strict=True))
        names = pd.Index(self._cells.names, name="cell")
        return pd.Series([known.get(cell) for cell in names], names, object, name="cluster")

    def cluster_colors(self) -> dict[str, str]:
        """Colour ``#rrggbb`` of each cluster, the largest cluster first."""
        return dict(zip(self._labels.names, self._labels.colors, strict=True))

    def cluster_counts(self) -> dict[str, int]:
        """Number of cells of each cluster, as its table states it."""
        return dict(zip(self._labels.names, self._labels.counts.tolist(), strict=True))

    def signatures(self) -> pd.DataFrame | None:
        """Mean count of each gene (rows) in each cluster (columns), float64; None where there are none."""
        import pandas as pd

        name = layout.signatures_file(self.segmentation)
        if not locate(self._root, name).exists():
            return None
        genes, means = content.signatures_of(read_table(self._root, name), name)
        return pd.DataFrame(means, index=pd.Index(genes, name="gene"))

    @property
    def transform(self) -> Array | None:
        """From microns to pixels: float64 ``(3, 3)``, for ``[x_um, y_um, 1]``; None where it is not stored."""
        there = [name for name in layout.TRANSFORMS if locate(self._root, name).exists()]
        return content.transform_of(self._root, there[0]) if there else None

    def transcript_tiles(self) -> list[tuple[int, int]]:
        """Column and row of each tile with transcripts, sorted."""
        return list(self.transcript_counts())

    def transcript_counts(self) -> dict[tuple[int, int], int]:
        """Number of transcripts by tile, from the footers of the files."""
        return {tile: n for tile, n in self._transcripts.rows().items() if n}

    def outline_tiles(self) -> list[tuple[int, int]]:
        """Column and row of each tile with outlines of cells, sorted."""
        return list(self.outline_counts())

    def outline_counts(self) -> dict[tuple[int, int], int]:
        """Number of outlines by tile, from the footers of the files."""
        return {tile: n for tile, n in self._outlines.rows().items() if n}

    def transcripts(self, i: int, j: int) -> Transcripts:
        """Transcripts of tile (i, j), which holds ``floor(x / tile_size) == i``; none where it is empty.

        Returns
        -------
        genes
            int64, ids; -1 for names that `genes` does not have.
        x_px, y_px
            float64.
        """
        found = self._transcripts.table(i, j)
        if found is None:
            return Transcripts(np.empty(0, np.int64), np.empty(0), np.empty(0))
        return content.transcripts_of(found[0], self._gene_names, found[1])

    def outlines(self, i: int, j: int) -> Outlines:
        """Outlines of the cells of tile (i, j), whole, whose centre of area it holds.

        Returns
        -------
        cells
            int64, ids; -1 for names that `cells` does not have.
        offsets
            int64: vertices of the k-th are ``xy_px[offsets[k]:offsets[k + 1]]``, the first again as last.
        xy_px
            float64, ``(n_vertices, 2)``.
        n_rings
            int64, number of rings of each; the front-end takes their vertices for one.
        """
        found = self._outlines.table(i, j)
        if found is None:
            none = np.empty(0, np.int64)
            return Outlines(none, np.zeros(1, np.int64), np.empty((0, 2)), none)
        return content.outlines_of(found[0], self._cell_names, found[1])

    @property
    def channels(self) -> dict[str, Channel]:
        """Channels of the image by name: label and colour."""
        return {channel.name: channel for channel in self._header.channels}

    def image(self, channel: str) -> Pyramid:
        """Size of a channel's image: ``width``, ``height``, ``tile_size``, and ``levels``, coarsest first."""
        look_up(self.channels, channel, "channel")
        return imageread.read_pyramid(self._root, channel)

    def image_tile(self, channel: str, level: int, column: int, row: int) -> Array:
        """One tile of an image: uint8 ``(height, width, 3)``."""
        pyramid = self.image(channel)
        look_up(dict.fromkeys(range(len(pyramid.levels))), level, f"level of {channel!r}")
        n_columns, n_rows = pyramid.n_tiles(level)
        look_up(dict.fromkeys(range(n_columns)), column, f"column of level {level}")
        look_up(dict.fromkeys(range(n_rows)), row, f"row of level {level}")
        encoded, where = imageread.read_tile(self._root, self._header, channel, level, column, row)
        return imageread.decode(encoded, self._header.image_format, where)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("technology", self.technology),
            ("cells", f"{self.n_cells:,}"),
            ("genes", f"{self.n_genes:,}"),
            ("channels", _listed(self.channels)),
            ("segmentation", self.segmentation or layout.DEFAULT_SEGMENTATION),
            ("segmentations", ", ".join([layout.DEFAULT_SEGMENTATION, *self.segmentations])),
            ("tiles", f"{self.tile_size} px, {'row groups' if self.row_groups else 'loose files'}"),
        ]

    def __repr__(self) -> str:
        return "\n".join([f"Landscape {self.path}", *(f"    {name}: {value}" for name, value in self._rows())])

    def _repr_html_(self) -> str:
        return html_table([("landscape", str(self.path)), *self._rows()])


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
