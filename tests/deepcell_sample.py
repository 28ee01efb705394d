"""A small project of known content, written by hand in any page order and compression."""

import json
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from tests.deepcell_projects import ome_xml, tiff, write_project

CHANNELS, FRAMES, FEATURES, HEIGHT, WIDTH = 2, 3, 2, 13, 17
NAMES = ['DAPI & "blue"', "CD45 <membrane>"]
IMAGES = ("X.ome.tiff", "y.ome.tiff")


def _image():
    return np.random.default_rng(6).integers(0, 60_000, (CHANNELS, FRAMES, HEIGHT, WIDTH)).astype(np.uint16)


def _labels():
    """Cell 1, which divides into 2 and 3 in frame 2, and cell 4; value 5 is where 1 and 4 overlap."""
    y = np.zeros((FEATURES, FRAMES, HEIGHT, WIDTH), np.int32)
    for feature, shrink in ((0, 0), (1, 1)):
        inside = slice(2 + shrink, 11 - shrink)
        for t in (0, 1):
            y[feature, t, inside, 2:9] = 1
            y[feature, t, inside, 7:14] = 4
            y[feature, t, inside, 7:9] = 5
        y[feature, 2, inside, 2:5] = 2
        y[feature, 2, inside, 5:8] = 3
        y[feature, 2, inside, 8:14] = 4
    return y


MEANING = {1: (1,), 2: (2,), 3: (3,), 4: (4,), 5: (1, 4)}


def _rows():
    y, rows = _labels(), []
    for t in range(FRAMES):
        for c in range(FEATURES):
            for value in np.unique(y[c, t])[1:].tolist():
                rows += [{"cell": cell, "value": value, "t": t, "c": c} for cell in MEANING[value]]
    return rows


@dataclass
class Sample:
    """What a project holds; X and y are channels (features) × frames × rows × columns."""

    X: np.ndarray = field(default_factory=_image)
    y: np.ndarray = field(default_factory=_labels)
    names: list = field(default_factory=lambda: list(NAMES))
    cells: list = field(default_factory=_rows)
    divisions: list = field(default_factory=lambda: [{"parent": 1, "daughters": [2, 3], "t": 2}])
    types: list = field(
        default_factory=lambda: [
            {"id": 1, "cells": [1, 4], "color": "#58b5e1", "name": "T cell", "feature": 0},
            {"id": 2, "cells": [2], "color": "#E1587D", "name": "B cell", "feature": 1},
        ]
    )
    embeddings: list | None = field(default_factory=lambda: [[0, 0]] + [[cell, cell / 4] for cell in range(1, 5)])
    spots: str | None = "x,y,cell_0,gene\n3.5,4.25,1,CD3E\n16.0,0.5,0,MS4A1\n9,12.125,4,CD3E\n"

    def copy(self):
        return deepcopy(self)

    def images(self, order="CZYX", *, big=False, rows=7, predictor=False, frames_on="Z"):
        """Content of both images, pages in one of the two orders."""
        found = []
        for array, names in ((self.X, self.names), (self.y, None)):
            pages = array if order == "CZYX" else array.swapaxes(0, 1)
            axes = {"CZYX": f"XY{frames_on}CT", "ZCYX": f"XYC{frames_on}T"}[order]
            axes = axes if frames_on == "Z" else axes.removesuffix("T") + "Z"
            xml = ome_xml(array.shape, array.dtype, names, axes, frames_on)
            pages = pages.reshape(-1, *array.shape[2:])
            found.append(tiff(pages, xml, big=big, rows=rows, predictor=predictor))
        return dict(zip(IMAGES, found, strict=True))

    def members(self, order="CZYX", **options):
        """All members by name."""
        tables = {
            "divisions.json": self.divisions,
            "cellTypes.json": self.types,
            "cells.json": self.cells,
            "embeddings.json": self.embeddings,
        }
        spots = {} if self.spots is None else {"spots.csv": self.spots}
        return {
            **self.images(order, **options),
            **spots,
            **{name: json.dumps(content) for name, content in tables.items()},
        }

    def write(self, path, order="CZYX", *, stored=IMAGES, zip64=False, **options):
        """The zip."""
        return write_project(path, self.members(order, **options).items(), stored=stored, zip64=zip64)


def damaged(path, members, **changes):
    """A zip of other members; None leaves one out."""
    given = {**members, **changes}
    return write_project(path, [(name, content) for name, content in given.items() if content is not None], stored=())
