"""The largest resident size of whole DeepCell Label runs stays under the budget, whatever the number of frames.

Movies are written frame by frame; each run is a process of its own, which says what it took.
"""

import hashlib
import io
import json
import re
import shutil
import zipfile
from itertools import product

import numpy as np
import pytest
import tifffile

MIB = 1 << 20
# What two processes that load the same libraries hold may differ by some pages.
MARGIN = 4 * MIB
SIDE, TILE = 1024, 256
FRAMES = {"small": 16, "large": 48}


# ---------------------------------------------------------------- movies, written frame by frame


def image(t, side=SIDE):
    return np.random.default_rng(t).integers(0, 256, (side, side), np.uint8).astype(np.uint16) << 4


def masks(t, side=SIDE, step=32):
    """A cell in each square."""
    numbers = np.arange(1, (side // step) ** 2 + 1, dtype=np.int32).reshape(side // step, -1)
    numbers = np.roll(numbers, t, axis=0).repeat(step, axis=0).repeat(step, axis=1)
    numbers[:, ::step] = 0
    return numbers


def header(shape, dtype):
    out = io.BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, described)
    return out.getvalue()


def zip_of(path, method, members):
    """Members as the pieces of their content."""
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, pieces in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)


def npz(path, n, method=zipfile.ZIP_DEFLATED, features=1):
    shape = n, SIDE, SIDE
    labels = (masks(t).repeat(features, axis=1) if features > 1 else masks(t) for t in range(n))
    y = shape if features == 1 else (*shape, features)
    members = {
        "X.npy": (part for parts in ([header(shape, "<u2")], map(image, range(n))) for part in parts),
        "y.npy": (part for parts in ([header(y, "<i4")], labels) for part in parts),
    }
    zip_of(path, method, members)


def stored_npz(path, n):
    npz(path, n, zipfile.ZIP_STORED)


def npz_of_features(path, n):
    npz(path, n // 4, features=8)


def tiff(path, n, frame=image, side=SIDE, **options):
    """An OME-TIFF; its tiles one by one."""

    def parts(t):
        pixels = frame(t, side)
        if "tile" not in options:
            return [pixels]
        corners = product(range(0, side, TILE), repeat=2)
        return [pixels[top : top + TILE, left : left + TILE] for top, left in corners]

    tifffile.imwrite(
        path,
        (part for t in range(n) for part in parts(t)),
        shape=(n, side, side),
        dtype=frame(0, side).dtype,
        ome=True,
        metadata={"axes": "TYX"},
        photometric="minisblack",
        **{"compression": "zlib", "compressionargs": {"level": 1}, **options},
    )


def strips(path, n):
    tiff(path, n, rowsperstrip=16)


def one_strip(path, n):
    """Each page is a strip: none of it can be read alone."""
    tiff(path, n, rowsperstrip=SIDE)


def tiles(path, n):
    tiff(path, n, tile=(TILE, TILE))


def project(path, n):
    for name, frame in (("X", image), ("y", masks)):
        tiff(path.with_name(name), n, frame, rowsperstrip=64)
    rows = ({"cell": cell, "value": cell, "t": t, "c": 0} for t in range(n) for cell in range(1, (SIDE // 32) ** 2 + 1))
    content = [b"[", b",".join(json.dumps(row).encode() for row in rows), b"]"]
    files = {f"{name}.ome.tiff": [path.with_name(name).read_bytes()] for name in "Xy"}
    zip_of(path, zipfile.ZIP_DEFLATED, {**files, "cells.json": content})


def request(path, n):
    sizes = {"width": SIDE, "height": SIDE, "duration": n, "numChannels": 1, "numFeatures": 1, "dtype": "Uint16Array"}
    rows = [{"cell": cell, "value": cell, "t": t, "c": 0} for t in range(n) for cell in range(1, (SIDE // 32) ** 2 + 1)]
    members = {
        "dimensions.json": [json.dumps(sizes).encode()],
        "labeled.dat": map(masks, range(n)),
        "raw.dat": map(image, range(n)),
        "cells.json": [json.dumps(rows).encode()],
    }
    zip_of(path, zipfile.ZIP_DEFLATED, members)


# ---------------------------------------------------------------- running


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """Gives the path of a movie, made on first use; all are deleted at the end."""
    folder, known = tmp_path_factory.mktemp("movies"), {}

    def get(make, n, **options):
        key = make.__name__, n, json.dumps(options)
        if key not in known:
            known[key] = folder / f"movie-{len(known)}"
            known[key].mkdir()
            make(known[key] / "given", n, **options)
        return known[key] / "given"

    yield get
    shutil.rmtree(folder)


def project_of(export, images, *labels, write="deepcell", **options):
    """What the process says of a run, and `digest` of the project."""
    labels = [str(path) for path in labels]
    found = export(write, images, labels=labels, suffix=".zip", options={"workers": 2, **options})
    path = found["out"]
    return {**found, "digest": hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None}


def smallest(export, *given, **options):
    """The first budget that is not refused, beginning with 1 byte and going on with what each refusal says would do."""
    budget = 1
    for _ in range(6):
        found = project_of(export, *given, memory_budget=budget, **options)
        if "refused" not in found:
            return budget, found
        named = int(re.search(r"smallest budget that works is about (\d+)MiB", found["refused"])[1]) * MIB
        assert named + MARGIN > budget
        budget = named + MARGIN
    pytest.fail(f"no budget works: {found['refused']}")


CASES = {
    "npz, stored": (stored_npz, {}),
    "npz, deflated": (npz, {}),
    "npz, 8 features": (npz_of_features, {}),
    "tiles": (tiles, {}),
    "one strip a page": (one_strip, {"image_dtype": "keep", "workers": 1}),
    "project": (project, {"image_dtype": "keep"}),
    "request": (request, {"write": "deepcell_export"}),
}


@pytest.mark.parametrize("case", CASES)
def test_peak_stays_under_the_smallest_budget(case, process, movies, record_property):
    """Three times the frames fit into it too, though their pixels alone are larger than what is left of it."""
    make, options = CASES[case]
    with process() as export:
        budget, large = smallest(export, movies(make, FRAMES["large"]), **options)
    with process() as export:
        small = project_of(export, movies(make, FRAMES["small"]), memory_budget=budget, **options)
    peaks = {"budget": budget, "small": small["peak"], "large": large["peak"]}
    record_property("peaks", {name: size // MIB for name, size in peaks.items()})
    assert "refused" not in small
    assert max(small["peak"], large["peak"]) <= budget
    assert abs(large["said"] - large["peak"]) < MIB
    # Of 64 to 192 MiB more pixels; what grows are the rows of the cells, 19 MiB with 8 features.
    assert large["peak"] - small["peak"] < 40 * MIB


@pytest.mark.parametrize("make", [strips, one_strip])
def test_one_huge_frame(make, process, tmp_path_factory, record_property):
    """A page that is one strip must be decoded as a whole: its memory is drawn, and the smallest budget is larger."""
    path = tmp_path_factory.mktemp("huge") / "given"
    side = 5120
    tiff(path, 1, side=side, rowsperstrip=side if make is one_strip else 16)
    with process() as export:
        budget, found = smallest(export, path)
    record_property("peaks", {"budget": budget // MIB, "peak": found["peak"] // MIB})
    assert found["peak"] <= budget
    assert (budget > 240 * MIB + side * side * 2) == (make is one_strip)
    path.unlink()


def test_many_cells(process, movies, record_property):
    """Their rows are held, and drawn from the budget: 65,536 in each of 12 frames."""
    with process() as export:
        budget, found = smallest(export, movies(crowded, 12))
        roomy = project_of(export, movies(crowded, 12), memory_budget="4GiB", workers=1)
    record_property("peaks", {"budget": budget // MIB, "peak": found["peak"] // MIB})
    assert found["peak"] <= budget
    assert roomy["digest"] == found["digest"]


def crowded(path, n):
    labels = (masks(t, step=4) for t in range(n))
    members = {"X.npy": [header((n, SIDE, SIDE), "u1"), *([bytes(SIDE * SIDE)] * n)]}
    members["y.npy"] = (part for parts in ([header((n, SIDE, SIDE), "<i4")], labels) for part in parts)
    zip_of(path, zipfile.ZIP_STORED, members)
