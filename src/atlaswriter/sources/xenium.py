"""Output folders of the Xenium Analyzer and of Xenium Ranger."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.outlines import VertexOutlines
from atlaswriter.sources.spatial import Cells, Clusters, Segmentation, Spatial, Transcripts
from atlaswriter.sources.tables import ParquetTable, read_all
from atlaswriter.sources.tenx import open_h5


def open_xenium(path: str | os.PathLike[str], *, workers: int | None = None) -> Spatial:
    """Thin."""
    import zarr

    folder = Path(path)
    with zarr.storage.ZipStore(str(folder / "cells.zarr.zip"), mode="r") as store:
        m = np.asarray(zarr.open_group(store, mode="r")["masks/homogeneous_transform"][()])
    m = np.array([[float(str(v)) for v in row] for row in m])
    to_px = np.array([[m[0, 0], m[0, 1], m[0, 3]], [m[1, 0], m[1, 1], m[1, 3]], [0, 0, 1.0]])
    names, x, y = read_all(ParquetTable(folder / "cells.parquet", text=["cell_id"]), ["cell_id", "x_centroid", "y_centroid"])
    cells = Cells(names, x.to_numpy(), y.to_numpy(), "cells.parquet")
    counts, close = open_h5(folder / "cell_feature_matrix.h5", "cell_feature_matrix.h5", workers or 1)
    import pyarrow.csv as pacsv, pyarrow as pa
    t = pacsv.read_csv(folder / "analysis/clustering/gene_expression_graphclust/clusters.csv", convert_options=pacsv.ConvertOptions(column_types={"Barcode": pa.string(), "Cluster": pa.string()})).combine_chunks()
    clusters = Clusters(t["Barcode"].combine_chunks(), t["Cluster"].combine_chunks())
    outlines = VertexOutlines(ParquetTable(folder / "cell_boundaries.parquet", text=["cell_id"]), "cell_id", "vertex_x", "vertex_y")
    transcripts = Transcripts(ParquetTable(folder / "transcripts.parquet"), "feature_name", "x_location", "y_location", "qv")
    return Spatial(str(folder), "Xenium", to_px, Segmentation(cells, counts, clusters, outlines), transcripts, close=close)
