"""What a DeepCell Label project must hold, and what it holds, read by zipfile, tifffile and json alone."""

import io
import itertools
import json
import zipfile
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

FRAMES, HEIGHT, WIDTH, CHANNELS, FEATURES = 4, 23, 31, 3, 2
NAMES = ("DAPI", "CD3", "488")
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")

# Cell: first and last frame, row, column, and radius in each feature (0: not there). 2 and 4 divide; 1, 3 and 9, 5 and
# 3, 7 and 8 overlap.
TRACKS = {
    1: (0, 3, 6, 6, (4, 2)),
    2: (0, 1, 6, 16, (4, 2)),
    3: (0, 3, 7, 9, (4, 2)),
    4: (0, 0, 17, 6, (4, 2)),
    5: (2, 3, 6, 14, (3, 2)),
    6: (2, 3, 6, 20, (3, 2)),
    7: (1, 3, 17, 4, (3, 2)),
    8: (1, 3, 17, 9, (3, 2)),
    9: (3, 3, 9, 8, (3, 2)),
    11: (1, 2, 17, 16, (0, 2)),
    300: (0, 3, 17, 25, (4, 2)),
}
DIVISIONS = ((2, (5, 6), 2), (4, (7, 8), 1))
SPOTS = b"x,y,cell_0,cell_1\n6.50000,6.25,1,1\n0,0,0,0\n31,23,0,0\n1.55e1,4,2,\n25.0,17.125,300,300\n"


# ---------------------------------------------------------------- the truth


@dataclass(frozen=True)
class Truth:
    """What a project must hold.

    Attributes
    ----------
    X : (frames, rows, columns, channels)
        Pixels.
    y : integers, (frames, rows, columns, features)
        Values.
    cells
        Rows (cell, value, t, c); None: each value is a cell.
    divisions
        (parent, set of daughters, t).
    types, embeddings, spots
        As in their members; the text of the spots as bytes. None where there are none.
    names
        Of the channels; empty where none are known.
    """

    X: np.ndarray
    y: np.ndarray
    cells: tuple | None = None
    divisions: frozenset = frozenset()
    types: tuple = ()
    embeddings: Any = None
    spots: bytes | None = None
    names: tuple = ()

    @property
    def rows(self):
        """Rows of cells.json."""
        return [dict(zip(("cell", "value", "t", "c"), row, strict=True)) for row in self.cells or ()]

    def only(self, *keep, frames=slice(None), channels=slice(None), features=slice(None)):
        """A part of the pixels, and of all else only what `keep` names."""
        plain = {name: getattr(self, name) if name in keep else default for name, default in _NOTHING.items()}
        return Truth(self.X[frames][..., channels], self.y[frames][..., features], **plain)

    def without_labels(self, *keep, **part):
        """The image; labels are one empty feature."""
        alone = self.only(*keep, **part, features=slice(1))
        return replace(alone, y=np.zeros_like(alone.y))


_NOTHING = {"cells": None, "divisions": frozenset(), "types": (), "embeddings": None, "spots": None, "names": ()}


def pixels(dtype, shape=(FRAMES, HEIGHT, WIDTH, CHANNELS)):
    """Noise over the whole range of a dtype, beside something smooth; each channel has another range."""
    rng, dtype = np.random.default_rng(3), np.dtype(dtype)
    if dtype.kind == "f":
        X = (rng.normal(0, 1e3, shape) * np.arange(1, shape[-1] + 1)).astype(dtype)
        X[0, 0, :4, 0] = -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).min
    else:
        limits = np.iinfo(dtype)
        X = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True) // dtype.type(1)
        X[..., 1] = np.clip(X[..., 1], 3, 100)
        X[0, 0, :2, 0] = limits.min, limits.max
    X[:, HEIGHT // 2 :, WIDTH // 2 :] = np.arange(shape[-1])
    return X


def labels():
    """Values, int32 (frames, rows, columns, features), and shuffled rows that tell their cells."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    y, found = np.zeros((FRAMES, HEIGHT, WIDTH, FEATURES), np.int32), []
    for t, c in np.ndindex(FRAMES, FEATURES):
        held = np.zeros((HEIGHT, WIDTH), np.int64)
        for bit, (first, last, row, column, radii) in enumerate(TRACKS.values()):
            if first <= t <= last and radii[c]:
                held[(rows - row) ** 2 + (columns - column) ** 2 <= radii[c] ** 2] |= 1 << bit
        free = max(TRACKS) + 1
        # In the other order in the second feature, so that the same value means other cells there.
        for combination in np.unique(held[held > 0])[:: 1 - 2 * c].tolist():
            cells = [cell for bit, cell in enumerate(TRACKS) if combination >> bit & 1]
            value, free = (cells[0], free) if len(cells) == 1 else (free, free + 1)
            y[t, :, :, c][held == combination] = value
            found += [(cell, value, t, c) for cell in cells]
    return y, tuple(found[at] for at in np.random.default_rng(5).permutation(len(found)))


@cache
def truth(dtype="uint16"):
    """Everything that a project can hold."""
    y, cells = labels()
    colours = ("#58b5e1", "#E1587D")
    types = [
        {"id": 4 - c, "cells": sorted({row[0] for row in cells if row[3] == c}), "color": colours[c], "name": name}
        for c, name in enumerate(("T-Zelle µ", 'a "b" & <c>'))
    ]
    return Truth(
        pixels(dtype),
        y,
        cells,
        frozenset((parent, frozenset(daughters), t) for parent, daughters, t in DIVISIONS),
        tuple({**one, "feature": c} for c, one in enumerate(types)),
        np.random.default_rng(6).normal(size=(max(TRACKS) + 1, 2)).tolist(),
        SPOTS,
        NAMES,
    )


# ---------------------------------------------------------------- what a project holds

MEMBERS = ["X.ome.tiff", "y.ome.tiff", "spots.csv", "divisions.json", "cellTypes.json", "cells.json", "embeddings.json"]


@dataclass(frozen=True)
class Project:
    """A project as others read it.

    Attributes
    ----------
    X, y : (frames, rows, columns, channels or features)
        Pixels.
    names
        Of the channels; None for those without one.
    members
        Names in the order of the zip.
    tables
        Content of each JSON member.
    spots
        Text of ``spots.csv``; None if it is not there.
    """

    X: np.ndarray
    y: np.ndarray
    names: list
    members: list
    tables: dict
    spots: bytes | None


def read_project(path):
    """Read a project zip without the package."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name) for name in archive.namelist()}
        for info in archive.infolist():
            is_image = info.filename.endswith(".ome.tiff")
            assert info.compress_type == (zipfile.ZIP_STORED if is_image else zipfile.ZIP_DEFLATED)
    X, names = _read_ome(content["X.ome.tiff"])
    y, _ = _read_ome(content["y.ome.tiff"])
    parsed = {name: json.loads(data) for name, data in content.items() if name.endswith(".json")}
    return Project(X, y, names, list(content), parsed, content.get("spots.csv"))


def _read_ome(content):
    """Pixels of an OME-TIFF, frames first and channels last, and names of its channels."""
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        assert opened.is_ome
        assert len(opened.series) == 1
        (described,) = ET.fromstring(opened.ome_metadata).iterfind("{*}Image/{*}Pixels")
        series = opened.series[0]
        axes = series.get_axes(squeeze=False)
        found = series.asarray(squeeze=False)
    assert (described.get("DimensionOrder"), described.get("SizeT")) == ("XYZCT", "1")
    sizes = dict(zip(axes, found.shape, strict=True))
    assert {axis for axis, size in sizes.items() if size > 1} <= set("CZYX")
    names = [channel.get("Name") for channel in described.iterfind("{*}Channel")]
    assert len(names) == sizes["C"]
    order = [axes.index(axis) for axis in "ZYXC"]
    others = [place for place in range(found.ndim) if place not in order]
    shape = [sizes[axis] for axis in "ZYXC"]
    return found.transpose(*others, *order).reshape(shape), names


# ---------------------------------------------------------------- comparisons


def meanings(cells):
    """Cells of each value, by frame and feature; `cells` are rows (cell, value, t, c)."""
    found = {}
    for cell, value, t, c in cells:
        found.setdefault((t, c), {}).setdefault(value, set()).add(cell)
    return found


def own_cells(y):
    """Rows of labels whose values are cells: (cell, value, t, c)."""
    return [
        (value, value, t, c)
        for t, c in np.ndindex(y.shape[0], y.shape[3])
        for value in np.unique(y[t, :, :, c]).tolist()
        if value
    ]


def assert_same_meaning(y, cells, expected_y, expected_cells):
    """Every pixel shows the same cells in both."""
    assert y.shape == expected_y.shape
    found, expected = meanings(cells), meanings(expected_cells)
    for t, c in np.ndindex(y.shape[0], y.shape[3]):
        pairs = np.stack([y[t, :, :, c].ravel(), expected_y[t, :, :, c].ravel()]).astype(np.int64)
        for value, other in np.unique(pairs, axis=1).T.tolist():
            shown = found.get((t, c), {}).get(value, set())
            assert shown == expected.get((t, c), {}).get(other, set()), (t, c, value, other)
            assert bool(value) == bool(shown), "pixels of a project that has been made anew show cells, or are 0"


def assert_canonical(project):
    """What the page promises of labels, and what keeps them safe in the original's hands."""
    rows = [(row["t"], row["c"], row["value"], row["cell"]) for row in project.tables["cells.json"]]
    assert all(set(row) == {"cell", "value", "t", "c"} for row in project.tables["cells.json"])
    assert len(set(rows)) == len(rows)
    places = [row[:3] for row in rows]
    assert sum(a != b for a, b in itertools.pairwise(places)) + bool(places) == len(set(places))
    assert project.y.dtype == np.int32
    in_frame = {}
    for (t, c), values in meanings([(cell, value, t, c) for t, c, value, cell in rows]).items():
        assert set(values) == set(np.unique(project.y[t, :, :, c]).tolist()) - {0}
        largest = max(max(cells) for cells in values.values())
        for value, cells in values.items():
            assert cells == {value} if len(cells) == 1 else value > largest
            assert in_frame.setdefault((t, value), cells) == cells, "a value means the same in all features"


def assert_holds(path, expected, *, keep=True):
    """A project holds everything that it must, and nothing else.

    Parameters
    ----------
    path
        The zip file.
    expected : Truth
        What it must hold.
    keep
        Whether pixels are stored as they are.
    """
    project = read_project(path)
    X = expected.X if keep else as_uint8(expected.X)
    assert project.X.dtype == X.dtype.newbyteorder("=")
    assert project.X.shape == X.shape
    # The bits: -0.0 and every NaN too.
    assert np.ascontiguousarray(project.X).tobytes() == np.ascontiguousarray(X, project.X.dtype).tobytes()
    assert project.names == list(expected.names or [None] * X.shape[3])
    found = [(row["cell"], row["value"], row["t"], row["c"]) for row in project.tables["cells.json"]]
    wanted = own_cells(expected.y) if expected.cells is None else expected.cells
    assert_same_meaning(project.y, found, expected.y, wanted)
    assert_canonical(project)
    divisions = project.tables["divisions.json"]
    assert {(one["parent"], frozenset(one["daughters"]), one["t"]) for one in divisions} == expected.divisions
    assert len(divisions) == len(expected.divisions)
    assert project.tables["cellTypes.json"] == list(expected.types)
    assert project.tables["embeddings.json"] == expected.embeddings
    assert project.spots == expected.spots
    assert project.members == [name for name in MEMBERS if name != "spots.csv" or expected.spots is not None]


def as_uint8(X):
    """Pixels as the client shows them: each channel from its smallest to its largest value, over all frames."""
    if X.dtype == np.uint8:
        return X
    out = np.zeros(X.shape, np.uint8)
    for channel in range(X.shape[-1]):
        values = X[..., channel].astype(np.float64)
        finite = values[np.isfinite(values)]
        if finite.size and finite.min() < finite.max():
            low, high = finite.min(), finite.max()
            share = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
            out[..., channel] = np.floor(share * 255 + 0.5)
    return out
