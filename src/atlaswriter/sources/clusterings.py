"""Cluster labels of cells: tables, and the analysis of 10x Genomics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array
from atlaswriter.sources.packed import tar_files
from atlaswriter.sources.spatial import Clusters
from atlaswriter.sources.tables import open_table, read_all, reading
from atlaswriter.sources.zarrzip import ZarrZip

# The clustering that every analysis has.
GRAPH_BASED = "gene_expression_graphclust"

_FOLDER, _TAR, _ZARR = "analysis/clustering", "analysis.tar.gz", "analysis.zarr.zip"

# Bytes of a table of clusters, at most.
_MOST_CSV = 1 << 30


def read_clusters(path: Path, where: str = "") -> Clusters:
    """Clusters of a table in any file that `open_table` reads: its first two columns are cell and cluster."""
    where = where or str(path)
    columns = open_table(path, where).columns[:2]
    if len(columns) < 2:
        raise InputError(Problem(where, "has fewer than two columns", "give a table of cell and cluster"))
    return _labelled(read_all(open_table(path, where, columns), columns), where)


class Clusterings:
    """The clusterings of a folder, its tar file, or its Zarr store.

    Parameters
    ----------
    folder
        Holds the analysis.
    cells
        Called for the names of cells, string, in the order by which Zarr stores count them.

    Attributes
    ----------
    known
        Names of clusterings that were seen by `find`.
    """

    PLACES = (_FOLDER, _TAR, _ZARR)

    def __init__(self, folder: Path, cells: Callable[[], pa.StringArray]) -> None:
        self._folder, self._cells = folder, cells
        self.known: set[str] = set()

    def find(self, name: str) -> Clusters | None:
        """One clustering; None if there is none of that name."""
        return self._in_folder(name) or self._in_tar(name) or self._in_zarr(name)

    def _in_folder(self, name: str) -> Clusters | None:
        self.known |= {path.parent.name for path in self._folder.glob(f"{_FOLDER}/*/clusters.csv")}
        if name not in self.known:
            return None
        where = f"{_FOLDER}/{name}/clusters.csv"
        with reading(where), (self._folder / where).open("rb") as file:
            return _of_csv(file.read(_MOST_CSV), where)

    def _in_tar(self, name: str) -> Clusters | None:
        """From the packed folder, which is read in place."""
        path = self._folder / _TAR
        if not path.exists():
            return None
        with reading(_TAR):
            for place, content in tar_files(path):
                parts = PurePosixPath(place).parts
                if len(parts) > 2 and (parts[-3], parts[-1]) == ("clustering", "clusters.csv"):
                    self.known.add(parts[-2])
                    if parts[-2] == name:
                        return _of_csv(content.read(_MOST_CSV), f"{_TAR}/{place}")
        return None

    def _in_zarr(self, name: str) -> Clusters | None:
        """From lists of the cells of each cluster."""
        path = self._folder / _ZARR
        if not path.exists():
            return None
        with ZarrZip(path, _ZARR) as store:
            root = store.root.child("cell_groups")
            groupings, labels = root.attribute("grouping_names"), root.attribute("group_names")
            if not isinstance(groupings, list) or not isinstance(labels, list) or len(groupings) != len(labels):
                raise _damaged("it does not name its clusters")
            self.known |= {str(grouping) for grouping in groupings}
            if name not in groupings:
                return None
            place = groupings.index(name)
            indices, starts = (
                store.array(f"cell_groups/{place}/{part}", None).read().astype(np.int64)
                for part in ("indices", "indptr")
            )
        if not isinstance(labels[place], list):
            raise _damaged("it does not name its clusters")
        return self._by_number(indices, starts, [_short(label) for label in labels[place]])

    def _by_number(self, indices: Array, starts: Array, labels: list[str]) -> Clusters:
        cells = self._cells()
        if starts.size == len(labels):
            # Some programs leave out where the last cluster ends.
            starts = np.append(starts, indices.size)
        sizes = np.diff(starts)
        if sizes.size != len(labels) or starts[0] != 0 or np.any(sizes < 0) or starts[-1] != indices.size:
            raise _damaged("sizes of clusters do not fit the cells")
        if indices.size and not 0 <= indices.min() <= indices.max() < len(cells):
            raise _damaged(f"it has a cell {indices.max()} of {len(cells)}")
        codes = np.repeat(np.arange(len(labels)), sizes)
        named = pa.array(labels, pa.string()).take(pa.array(codes))
        return _labelled([cells.take(pa.array(indices)), named], _ZARR)


def _short(label: object) -> str:
    """Zarr stores have "Cluster 1" for what tables call "1"."""
    return str(label).removeprefix("Cluster ")


def _damaged(found: str) -> InputError:
    return InputError(Problem(_ZARR, f"damaged clusters: {found}", "write it again from its source"))


def _of_csv(content: bytes, where: str) -> Clusters:
    types = {"Barcode": pa.string(), "Cluster": pa.string()}
    with reading(where):
        table = pacsv.read_csv(
            pa.BufferReader(content),
            read_options=pacsv.ReadOptions(use_threads=False),
            convert_options=pacsv.ConvertOptions(null_values=[], column_types=types, include_columns=list(types)),
        )
    return _labelled([column.combine_chunks() for column in table.columns], where)


def _labelled(columns: Sequence[pa.StringArray], where: str) -> Clusters:
    """Cells and clusters, those without a name being none."""
    cells, labels = columns
    return Clusters(cells, pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels), where=where)
