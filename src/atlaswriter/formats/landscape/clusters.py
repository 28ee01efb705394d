"""Clusters of cells: labels, sizes and colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.cells import CellIds, refuse_repeats, refuse_strangers
from atlaswriter.formats.landscape.colors import wheel
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.parquet import INDEX
from atlaswriter.sources.spatial import Cells, Clusters

# More labels are none of clusters, and nobody could tell their colours apart.
_MOST_LABELS = 10_000
# What the original writes where there are none: one cluster of all cells.
_ONLY, _ONLY_COLOR = "0", "#1f77b4"


@dataclass(frozen=True)
class CellClusters:
    """The cluster of each cell.

    Attributes
    ----------
    labels
        Largest cluster first; of equal ones that whose first cell comes first.
    colors
        ``"#rrggbb"`` of each.
    codes
        int32 (n_cells,): position in `labels`, -1 where a cell has none.
    unknown
        Cells named by the clusters that the table of cells does not have.
    known
        Whether the data set has clusters; else all cells are in one.
    """

    labels: list[str]
    colors: list[str]
    codes: NDArray[np.int32]
    unknown: int = 0
    known: bool = True

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Cells of each cluster, int64 (n_labels,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.labels))

    @classmethod
    def of(cls, clusters: Clusters | None, cells: CellIds, named: Cells) -> CellClusters:
        """Clusters of cells by id; `named` are the same cells as the data set has them.

        Raises
        ------
        InputError
            A cell is in several clusters, or none of them is known.
        """
        if clusters is None:
            return cls([_ONLY], [_ONLY_COLOR], np.zeros(cells.n_cells, np.int32), known=False)
        ids = cells.ids_of(clusters.cells)
        encoded = clusters.labels.dictionary_encode()
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        kept = ids >= 0
        refuse_repeats(ids, clusters.cells, clusters.where)
        refuse_strangers(ids, clusters.cells, clusters.where, named)
        codes = np.full(cells.n_cells, -1, np.int32)
        codes[ids[kept]] = places[kept]
        if len(encoded.dictionary) > _MOST_LABELS:
            found = f"holds {len(encoded.dictionary):,} different labels"
            raise InputError(Problem(clusters.where, found, "choose labels of clusters"))
        labels = encoded.dictionary.to_pylist()
        order = _by_size(codes)
        rank = np.full(len(labels) + 1, -1, np.int32)
        rank[order] = np.arange(order.size, dtype=np.int32)
        names = [labels[k] for k in order]
        colors = [clusters.colors.get(name) or wheel(k / len(names), name) for k, name in enumerate(names)]
        return cls(names, colors, rank[codes], int((ids == CellIds.UNKNOWN).sum()))

    def write(self, job: Job, cells: CellIds, segmentation: str | None = None) -> None:
        """Write both tables."""
        job.sink.make_dir(layout.clusters_dir(segmentation))
        labels = pa.array(self.labels, pa.string())
        chosen = labels.take(pa.array(self.codes, mask=self.codes < 0))
        table = job.style.table({"cluster": chosen, layout.INDEX: cells.names}, index=INDEX)
        job.write_table(layout.cluster_file(segmentation), table)
        counts = pa.array(self.sizes, pa.int64())
        meta = {"color": pa.array(self.colors, pa.string()), "count": counts, layout.INDEX: labels}
        job.write_table(layout.meta_cluster_file(segmentation), job.style.table(meta, index=INDEX))


def _by_size(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Labels that occur, the most frequent first, then by first cell."""
    present, firsts, counts = np.unique(codes, return_index=True, return_counts=True)
    used = present >= 0
    present, firsts, counts = present[used], firsts[used], counts[used]
    return present[np.lexsort((firsts, -counts))].astype(np.int64)
