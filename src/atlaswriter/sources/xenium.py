"""Output folders of the Xenium Analyzer and of Xenium Ranger, versions 1 to 4."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.clusterings import GRAPH_BASED, Clusterings, read_clusters
from atlaswriter.sources.images import keyed, open_planes
from atlaswriter.sources.outlines import VertexOutlines, ZarrOutlines
from atlaswriter.sources.shapes import affine, read_affine
from atlaswriter.sources.spatial import Cells, Clusters, Counts, Outlines, Plane, Segmentation, Spatial, Transcripts
from atlaswriter.sources.tables import check_columns, numbers, open_table, read_all, reading
from atlaswriter.sources.tenx import open_counts
from atlaswriter.sources.zarrzip import ZarrZip
from atlaswriter.units import usable_cpus

_MANIFEST, _ZARR = "experiment.xenium", "cells.zarr.zip"
_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
_OUTLINES = ("cell_boundaries.parquet", "cell_boundaries.csv.gz", "cell_boundaries.csv")
_TRANSCRIPTS = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
_COUNTS = (
    *("cell_feature_matrix.h5", "cell_feature_matrix.zarr.zip"),
    *("cell_feature_matrix", "cell_feature_matrix.tar.gz"),
)
_TRANSFORMS = ("micron_to_image_transform.csv", "xenium_transform.csv")

# In the manifest, images that are in focus everywhere before the stack along z.
_IMAGE_KEYS = ("morphology_focus_filepath", "morphology_mip_filepath", "morphology_filepath")
_IMAGES = ("morphology_focus.ome.tif", "morphology_mip.ome.tif", "morphology.ome.tif")
_CHANNELS = ("dapi", "bound", "rna", "prot")

# Bytes of the manifest, at most.
_MOST_JSON = 1 << 20


def open_xenium(
    path: str | os.PathLike[str], *, clusters: str | os.PathLike[str] | None = None, workers: int | None = None
) -> Spatial:
    """Open an output folder of Xenium.

    Parameters
    ----------
    path
        The folder. Of each kind of content the file that is read fastest is taken: Parquet before CSV before Zarr,
        and the HDF5 matrix before Zarr before Matrix Market.
    clusters
        Name of a clustering of the folder, such as ``"gene_expression_kmeans_5_clusters"``, or path of a table whose
        first two columns are cell and cluster; the graph-based clustering by default.
    workers
        Threads for reading; all usable CPUs by default.

    Returns
    -------
    Spatial
        In microns. Outlines, transcripts, clusters or an image that the folder does not have are told in `warnings`.

    Raises
    ------
    InputError
        There is no table of cells, no matrix or no transform, or something is damaged; all at once.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == _MANIFEST else folder
    if not folder.is_dir():
        raise InputError(Problem(str(folder), "is no folder", "give the output folder of Xenium"))
    expected = (_MANIFEST, _ZARR, *_CELLS, *_TRANSCRIPTS)
    if not any((folder / name).exists() for name in expected):
        found = f"is no output folder of Xenium: it holds none of {listed(expected)}"
        raise InputError(Problem(str(folder), found, "give the folder that holds experiment.xenium"))
    with ExitStack() as stack:
        return _Folder(folder, workers or usable_cpus(), stack).open(clusters)


class _Folder:
    """What is found in a folder on the way."""

    def __init__(self, folder: Path, workers: int, stack: ExitStack) -> None:
        self._folder, self._workers, self._stack = folder, workers, stack
        self._problems = Problems()
        self._warnings: list[str] = []
        self._absent: list[Problem] = []
        self._manifest: dict[str, Any] = self._problems.attempt(self._read_manifest) or {}
        self._zarr = self._problems.attempt(self._open_zarr, _ZARR)

    def open(self, clusters: str | os.PathLike[str] | None) -> Spatial:
        """Everything, or all problems together."""
        attempt = self._problems.attempt
        to_px = attempt(self._transform)
        cells = attempt(self._cells)
        counts = attempt(self._counts)
        transcripts = attempt(self._transcripts)
        outlines = attempt(self._outlines)
        planes = attempt(self._planes)
        groups = attempt(self._clusters, clusters)
        if self._problems.found:
            raise InputError([*self._problems.found, *self._absent])
        self._warnings += [f"{problem.where} {problem.found}" for problem in self._absent]
        assert to_px is not None and cells is not None  # noqa: S101, PT018 - else there was a problem
        return Spatial(
            location=str(self._folder),
            technology="Xenium",
            to_px=to_px,
            segmentation=Segmentation(cells, counts, groups, outlines),
            transcripts=transcripts,
            planes=planes or [],
            warnings=self._warnings,
            close=self._stack.pop_all().close,
        )

    def _first(self, names: tuple[str, ...]) -> Path | None:
        return next((self._folder / name for name in names if (self._folder / name).exists()), None)

    def _missing(self, what: str, names: tuple[str, ...]) -> InputError:
        found = f"holds no {what}: looked for {listed(names)}"
        return InputError(Problem(str(self._folder), found, "copy the whole output folder"))

    def _warn(self, what: str, names: tuple[str, ...]) -> None:
        """Note what the export works without; it is missing too where something else stands in the way."""
        self._absent += self._missing(what, names).problems

    def _read_manifest(self) -> dict[str, Any]:
        path = self._folder / _MANIFEST
        if not path.exists():
            return {}
        with reading(_MANIFEST), path.open("rb") as file:
            content = json.loads(file.read(_MOST_JSON))
            return dict(content)

    def _open_zarr(self, name: str) -> ZarrZip | None:
        path = self._folder / name
        return self._stack.enter_context(ZarrZip(path, name, self._workers)) if path.exists() else None

    def _transform(self) -> NDArray[np.float64]:
        """Microns to pixels."""
        if self._zarr is not None and self._zarr.has("masks/homogeneous_transform"):
            matrix = self._zarr.array("masks/homogeneous_transform", 4, 4).read()
            # Row and column 2 are those of z.
            return affine(_as_spelled(matrix)[np.ix_([0, 1, 3], [0, 1, 3])], f"{_ZARR}/masks/homogeneous_transform")
        path = self._first(_TRANSFORMS)
        if path is not None:
            return read_affine(path)
        size = self._manifest.get("pixel_size")
        if isinstance(size, int | float) and size > 0:
            # Rounded as the instrument rounds its matrix.
            scale = _as_spelled(np.array([1 / size], np.float32))[0]
            return affine(np.diag([scale, scale, 1.0]), f"{_MANIFEST}: pixel_size")
        looked = (f"masks/homogeneous_transform in {_ZARR}", *_TRANSFORMS, f"pixel_size in {_MANIFEST}")
        raise self._missing("transform from microns to pixels", looked)

    def _cells(self) -> Cells:
        path = self._first(_CELLS)
        if path is not None:
            columns = ["cell_id", "x_centroid", "y_centroid"]
            names, x, y = read_all(open_table(path, path.name, columns[:1]), columns)
            return Cells(names, numbers(x, columns[1], path.name), numbers(y, columns[2], path.name), path.name)
        if self._zarr is None or not self._zarr.has("cell_summary"):
            raise self._missing("table of cells", (*_CELLS, f"cell_summary in {_ZARR}"))
        node = self._zarr.array("cell_summary", None, None)
        names = node.attribute("column_names") or []
        centroid = [f"cell_centroid_{axis}" for axis in "xy"]
        if not set(centroid) <= set(names):
            raise InputError(Problem(f"{_ZARR}/cell_summary", f"has no columns {listed(centroid)}", "write it again"))
        summary = node.read()
        x, y = (np.ascontiguousarray(summary[:, names.index(name)], np.float64) for name in centroid)
        cells = self._zarr.cell_names()
        if len(cells) != len(x):
            found = f"{len(cells):,} cells have names, {len(x):,} have a position"
            raise InputError(Problem(_ZARR, found, "write it again from its source"))
        return Cells(cells, x, y, _ZARR)

    def _counts(self) -> Counts:
        path = self._first(_COUNTS)
        if path is None:
            raise self._missing("matrix of cells and features", _COUNTS)
        counts, close = open_counts(path, path.name, self._workers)
        self._stack.callback(close)
        return counts

    def _transcripts(self) -> Transcripts | None:
        path = self._first(_TRANSCRIPTS)
        if path is None:
            self._warn("transcripts", _TRANSCRIPTS)
            return None
        columns = ["feature_name", "x_location", "y_location"]
        table = open_table(path, path.name, columns[:1])
        check_columns(table, columns)
        return Transcripts(table, columns[0], columns[1], columns[2], "qv" if "qv" in table.columns else None)

    def _outlines(self) -> Outlines | None:
        path = self._first(_OUTLINES)
        if path is not None:
            columns = ["cell_id", "vertex_x", "vertex_y"]
            table = open_table(path, path.name, columns[:1])
            check_columns(table, columns)
            return VertexOutlines(table, *columns)
        if self._zarr is not None and self._zarr.has("polygon_sets/1"):
            return ZarrOutlines(self._zarr, "polygon_sets/1", self._zarr.cell_names())
        self._warn("outlines of cells", (*_OUTLINES, f"polygon_sets/1 in {_ZARR}"))
        return None

    def _planes(self) -> list[Plane]:
        files = self._images()
        if not files:
            self._warn("image", ("morphology_focus/*.ome.tif", *_IMAGES))
            return []
        return keyed(open_planes(files, warn=self._warnings.append), _CHANNELS)

    def _images(self) -> list[Path]:
        """Files of the image."""
        stated = self._manifest.get("images")
        paths = [str(stated.get(key, "")) for key in _IMAGE_KEYS] if isinstance(stated, dict) else []
        for path in (self._folder / name for name in paths if _is_inside(name)):
            if path.is_file():
                # One channel a file.
                several = [] if path.parent == self._folder else _sorted_images(path.parent)
                return several or [path]
        several = _sorted_images(self._folder / "morphology_focus")
        one = self._first(_IMAGES)
        return several or ([] if one is None else [one])

    def _clusters(self, wanted: str | os.PathLike[str] | None) -> Clusters | None:
        """Labels of cells; None, with a warning, if there are none and nobody asked for them."""
        if wanted is not None and Path(wanted).is_file():
            return read_clusters(Path(wanted))
        clusterings = Clusterings(self._folder, self._names_by_number)
        found = clusterings.find(GRAPH_BASED if wanted is None else str(wanted))
        if found is None and wanted is not None:
            there = listed(sorted(clusterings.known), 30)
            remedy = f"choose one of {there}" if there else "the folder has none: give a table"
            raise InputError(Problem("clusters", f"there is no clustering and no file {str(wanted)!r}", remedy))
        if found is None:
            self._warn(f"clusters ({GRAPH_BASED})", Clusterings.PLACES)
        return found

    def _names_by_number(self) -> pa.StringArray:
        """Names of cells in the order that files in Zarr count them."""
        has_ids = self._zarr is not None and self._zarr.has("cell_id")
        return self._zarr.cell_names() if self._zarr is not None and has_ids else self._cells().names


def _is_inside(name: str) -> bool:
    """Whether a name leads only downwards."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _sorted_images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ome.tif"))


def _as_spelled(matrix: NDArray[np.generic]) -> NDArray[np.float64]:
    """Numbers as they are written with the fewest digits of their own precision.

    Celldega 0.27.0 writes the matrix of float32 as text, and reads that: 4.7058825 where float32 holds
    4.705882549285889. All its positions are multiples of the former.
    """
    return np.array([float(str(value)) for value in matrix.ravel()]).reshape(matrix.shape)
