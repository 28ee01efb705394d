"""SpatialData stores (scverse): Zarr folders of tables, points, shapes and images, read without their library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.annotated import Annotated, chosen, open_annotated, stored_texts, tree_of
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.generic import open_transcripts
from atlaswriter.sources.geometry import GeoParquet, Moved, cells_of
from atlaswriter.sources.images import open_planes
from atlaswriter.sources.ngff import to_system
from atlaswriter.sources.shapes import Floats, moved
from atlaswriter.sources.spatial import Cells, Outlines, Segmentation, Spatial, Transcripts
from atlaswriter.sources.tree import Node

# Elements that are meant where several could be.
_SHAPES = ("cell_boundaries", "cells", "cell_circles")
_IMAGES = ("morphology_focus", "morphology_mip")
_POINTS = ("transcripts",)
_TABLES = ("table",)

# What Celldega calls the instruments, by the reader of spatialdata-io that made the store.
_TECHNOLOGIES = {"merscope": "MERSCOPE", "visium_hd": "Visium-HD"}


@dataclass(frozen=True)
class _Store:
    """The elements of a store.

    Attributes
    ----------
    path
        Its folder.
    root
        Its groups.
    system
        The coordinate system that relates elements.
    """

    path: Path
    root: Node
    system: str

    @property
    def location(self) -> str:
        return str(self.path)

    def names(self, kind: str) -> list[str]:
        """Names of the elements of a kind: ``tables``, ``points``, ``shapes``, ``images`` or ``labels``."""
        return self.root.child(kind).names() if kind in self.root.names() else []

    def folder(self, kind: str, name: str) -> Path:
        """Where an element is, which is inside of the store."""
        return self.path / self.root.child(kind).child(name).path

    def matrix(self, kind: str, name: str) -> Floats:
        """From the coordinates of an element to the coordinate system."""
        node, where = self.root.child(kind).child(name), f"{self.location}: {kind}/{name}"
        with translated_damage(where, "disk"):
            holder, axes = node.raw.attrs, ["x", "y"]
            if kind in {"images", "labels"}:
                holder = holder.get("ome", holder)["multiscales"][0]
                axes = [axis["name"] for axis in holder["axes"]]
            return to_system(holder.get("coordinateTransformations"), axes, self.system, where)


def is_spatialdata(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like a SpatialData store: a Zarr group that holds elements and is no AnnData."""
    root = Path(path)
    is_group = any((root / name).is_file() for name in ("zarr.json", ".zgroup"))
    holds = any((root / kind).is_dir() for kind in ("tables", "table", "points", "shapes", "images"))
    return is_group and holds and not (root / "obs").exists()


def open_spatialdata(
    path: str | os.PathLike[str],
    *,
    table: str | None = None,
    points: str | None = None,
    shapes: str | None = None,
    image: str | None = None,
    clusters: str | None = None,
    layer: str | None = None,
    coordinate_system: str = "global",
    technology: str | None = None,
    workers: int | None = None,
) -> Spatial:
    """Open a SpatialData store.

    Parameters
    ----------
    path
        The folder, as `SpatialData.write` made it.
    table, points, shapes, image
        Names of the elements: AnnData of the cells, transcripts, outlines, image. By default the only one of its
        kind, or the one of a usual name.
    clusters, layer
        Column of obs with labels, and which counts: X by default.
    coordinate_system
        The one in which all elements meet.
    technology
        What Celldega calls the instrument; ``"Xenium"`` unless the store tells more.
    workers
        Threads for reading.

    Returns
    -------
    Spatial
        In the coordinates of the points, mostly microns (those of the shapes or of the coordinate system where there
        are none). Cells are where their shapes have their centre. Circles become polygons.

    Raises
    ------
    InputError
        It is no such store, elements are missing or several could be meant, the table annotates several regions, or
        something is damaged.
    """
    root = Path(path)
    if not root.is_dir():
        found = "is a file: unpack it first" if root.exists() else "there is no such folder"
        raise InputError(Problem(str(root), found, "give the folder of a SpatialData store"))
    with tree_of(root) as tree:
        store = _Store(root, tree, coordinate_system)
        opened = _Opened(store, table, points, shapes, image, workers)
        try:
            return opened.spatial(clusters, layer, technology)
        except BaseException:
            opened.annotated.source.close()
            raise


class _Opened:
    """What was chosen of a store."""

    def __init__(
        self,
        store: _Store,
        table: str | None,
        points: str | None,
        shapes: str | None,
        image: str | None,
        workers: int | None,
    ) -> None:
        self._store, self._where = store, store.location
        # The first releases called the group by its singular.
        self._tables = next((kind for kind in ("tables", "table") if store.names(kind)), "tables")
        problems = Problems()

        def choose(given: str | None, kind: str, obvious: Sequence[str], what: str) -> str | None:
            return problems.attempt(chosen, given, store.names(kind), obvious, what, self._where)

        name = choose(table, self._tables, _TABLES, "table")
        self.points = choose(points, "points", _POINTS, "points")
        self.image = choose(image, "images", _IMAGES, "image")
        if not store.names(self._tables):
            found = f"has no tables; it holds {listed(store.root.names()) or 'nothing'}"
            problems.add(self._where, found, "give a SpatialData store with a table of cells")
        problems.raise_if_any()
        self._table = store.root.child(self._tables).child(str(name))
        self.region, self._instance = self._annotates()
        # Circles stand for cells whose boundaries may be there as well.
        first = _SHAPES[:1] if self._is_circles(self.region) else ()
        self.shapes = choose(shapes, "shapes", [*first, *([self.region] if self.region else []), *_SHAPES], "shapes")
        problems.raise_if_any()
        self.warnings: list[str] = []
        self.annotated = self._annotated(store.folder(self._tables, str(name)), workers)

    def _annotates(self) -> tuple[str | None, str | None]:
        """The element that the table's cells are in, and the column of obs that names them there."""
        region, instance = self._table.attribute("region"), self._table.attribute("instance_key")
        regions = region if isinstance(region, list) else [region] if isinstance(region, str) else []
        if len(regions) > 1:
            remedy = "save the cells of one region as a store of their own"
            raise InputError(Problem(self._where, f"its table annotates several regions: {listed(regions)}", remedy))
        return (str(regions[0]) if regions else None), (instance if isinstance(instance, str) else None)

    def _annotated(self, folder: Path, workers: int | None) -> Annotated:
        if self._instance is None:
            return open_annotated(folder, workers=workers)
        names = stored_texts(self._table.child("obs").child(self._instance), f"obs['{self._instance}']")
        return replace(open_annotated(folder, workers=workers), names=names)

    def _is_circles(self, name: str | None) -> bool:
        return name in self._store.names("shapes") and "radius" in self._geometries(str(name)).columns

    def _geometries(self, name: str) -> GeoParquet:
        file, where = self._store.folder("shapes", name) / "shapes.parquet", f"{self._where}: shapes/{name}"
        if not file.is_file():
            remedy = "read and write the store with a current spatialdata"
            raise InputError(Problem(where, "has no shapes.parquet", remedy))
        return GeoParquet(file, by_index=True, where=where)

    @cached_property
    def base(self) -> Floats:
        """From the coordinates of the data set to the coordinate system."""
        for kind, name in (("points", self.points), ("shapes", self.shapes)):
            if name is not None:
                return self._store.matrix(kind, name)
        return np.eye(3)

    def _to_base(self, kind: str, name: str) -> Floats:
        return np.linalg.inv(self.base) @ self._store.matrix(kind, name)

    def spatial(self, clusters: str | None, layer: str | None, technology: str | None) -> Spatial:
        """The data set."""
        annotated = self.annotated
        counts = annotated.counts(layer)
        labels = None if clusters is None else annotated.clusters(clusters)
        segmentation = Segmentation(self._cells(), counts, labels, self._outlines())
        planes, to_px = [], self.base
        if self.image is not None:
            planes = open_planes(self._store.folder("images", self.image))
            to_px = np.linalg.inv(self._store.matrix("images", self.image)) @ self.base
        reader = str(self._store.root.attribute("spatialdata_io_reader"))
        return Spatial(
            self._where,
            technology or _TECHNOLOGIES.get(reader, "Xenium"),
            to_px,
            segmentation,
            self._transcripts(),
            planes,
            warnings=self.warnings,
            close=annotated.source.close,
        )

    def _transcripts(self) -> Transcripts | None:
        if self.points is None:
            return None
        attributes: Any = self._store.root.child("points").child(self.points).attribute("spatialdata_attrs")
        feature = attributes.get("feature_key") if isinstance(attributes, dict) else None
        return open_transcripts(self._store.folder("points", self.points) / "points.parquet", feature, "x", "y")

    def _outlines(self) -> Outlines | None:
        if self.shapes is None:
            return None
        outlines, matrix = self._geometries(self.shapes), self._to_base("shapes", self.shapes)
        return outlines if np.allclose(matrix, np.eye(3), rtol=0, atol=1e-12) else Moved(outlines, matrix)

    def _cells(self) -> Cells:
        """Cells where the shapes that they annotate, or their outlines, have their centre."""
        names, candidates = self.annotated.names, dict.fromkeys([self.region, self.shapes])
        for element in candidates:
            if element in self._store.names("shapes"):
                known, x, y = self._geometries(str(element)).centers()
                places = pc.index_in(names, known)
                if not places.null_count:
                    rows = places.to_numpy()
                    x, y = moved(self._to_base("shapes", str(element)), x[rows], y[rows])
                    return cells_of(names, x, y, f"shapes/{element}")
                missing = f"{places.null_count:,} of {len(names):,} cells are not in shapes/{element}"
                self.warnings.append(f"{self._where}: {missing}")
        return self._stored_positions()

    def _stored_positions(self) -> Cells:
        found = self.annotated.positions()
        if found is None:
            remedy = "name the shapes that the table annotates"
            raise InputError(Problem(self._where, "its cells have neither shapes nor positions", remedy))
        x, y, where = found
        self.warnings.append(f"{self._where}: cells are placed by {where}, taken for coordinates of the data set")
        return cells_of(self.annotated.names, x, y, where)
