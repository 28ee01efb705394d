"""Everything that a DeepCell Label project can be made of, small, each of one known truth (`deepcell_truth`)."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import tifffile
import zarr
from PIL import Image
from tests.deepcell_truth import DIVISIONS, TRACKS, Truth


def lineage():
    """As deepcell-tracking writes it."""
    parents = {daughter: parent for parent, daughters, _ in DIVISIONS for daughter in daughters}
    times = {parent: (list(daughters), t) for parent, daughters, t in DIVISIONS}
    return {
        str(cell): {
            "label": cell,
            "frames": list(range(first, last + 1)),
            "parent": parents.get(cell),
            "daughters": times.get(cell, ([], None))[0],
            "frame_div": times.get(cell, ([], None))[1],
            "capped": cell in times,
        }
        for cell, (first, last, *_) in TRACKS.items()
    }


def divisions_json(given):
    return [
        {"parent": parent, "daughters": sorted(daughters), "t": t} for parent, daughters, t in sorted(given, key=str)
    ]


# ---------------------------------------------------------------- bytes of files


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(save=np.savez, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def tiff(array, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, **{"photometric": "minisblack", **options})
    return out.getvalue()


def ome(movie, axes, names=()):
    """An OME-TIFF of (frames, rows, columns, channels), with its pages in the order of the axes."""
    frames = next(letter for letter in axes if letter in "TZ")
    meta = {"axes": axes, **({"Channel": {"Name": list(names)}} if names else {})}
    return tiff(arranged(movie, axes, frames), ome=True, compression="zlib", metadata=meta)


def imagej(array, axes):
    """An ImageJ hyperstack; only of uint8, uint16 and float32."""
    return tiff(array, imagej=True, metadata={"axes": axes})


def arranged(movie, axes, frames="T"):
    """(frames, rows, columns, channels) with its dimensions in another order."""
    return np.ascontiguousarray(movie.transpose([(frames + "YXC").index(letter) for letter in axes]))


def png(array, mode=None):
    out, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(array))
    (image.convert(mode) if mode else image).save(out, "png")
    return out.getvalue()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    """A zip of members: bytes, or what becomes JSON."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return out.getvalue()


def trk(mode, lineage_name="lineage.json", **members):
    """A tar of arrays and JSON, as deepcell-tracking writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            is_array = isinstance(content, np.ndarray)
            info = tarfile.TarInfo(f"{name}.npy" if is_array else lineage_name)
            data = npy(content) if is_array else json.dumps(content).encode()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tables(m):
    """All members of a project but its images."""
    return {
        "cells.json": m.rows,
        "divisions.json": divisions_json(m.divisions),
        "cellTypes.json": list(m.types),
        "embeddings.json": m.embeddings,
        "spots.csv": m.spots,
    }


def project(m, axes, method=zipfile.ZIP_DEFLATED):
    """A project as others write it."""
    return zipped({"X.ome.tiff": ome(m.X, axes, m.names), "y.ome.tiff": ome(m.y, axes), **tables(m)}, method)


def tracked(m, mode, *, batch=False):
    """A tracking archive of the first channel and feature; with `batch`, one for many movies that holds one."""
    raw, found = m.X[..., :1], m.y[..., :1]
    if batch:
        return trk(mode, "lineages.json", lineages=[lineage()], raw=raw[None], tracked=found[None])
    return trk(mode, lineage=lineage(), raw=raw, tracked=found)


def batches(y, *, feature_major):
    """A zip with a TIFF of each frame and feature, in names that count them."""
    places = [(t, c) for t in range(y.shape[0]) for c in range(y.shape[3])]
    places.sort(key=lambda place: place[1] if feature_major else place[0])
    return zipped({f"movie_batch_{t}_feature_{c}.tiff": tiff(y[t, :, :, c]) for t, c in places})


def request(m):
    """What the client sends to have a project exported."""
    frames, height, width, channels = m.X.shape
    sizes = {"width": width, "height": height, "duration": frames, "numChannels": channels}
    kind = f"{m.X.dtype.name.capitalize()}Array"
    return zipped(
        {
            "dimensions.json": {**sizes, "numFeatures": m.y.shape[3], "dtype": kind},
            "labeled.dat": arranged(m.y, "CTYX").astype("<i4").tobytes(),
            "raw.dat": arranged(m.X, "CTYX").tobytes(),
            "channels.json": list(m.names),
            "spots.csv": m.spots.removesuffix(b"\n"),
            **{name: content for name, content in tables(m).items() if name.endswith("s.json") and name[0] != "e"},
        }
    )


# ---------------------------------------------------------------- folders


def zarr_store(array, version, axes=None, names=()):
    """What writes a Zarr array, or, with axes, an OME-Zarr image; to a zip file if its name says so."""

    def write(path):
        folder = path.with_name(path.name.removesuffix(".zip"))
        root = folder
        if axes:
            scale = {"axes": [{"name": letter.lower()} for letter in axes], "datasets": [{"path": "0"}]}
            described = {"multiscales": [scale], "omero": {"channels": [{"label": name} for name in names]}}
            group = zarr.open_group(str(folder), mode="w", **_version(version))
            group.attrs.update(described if version == 2 else {"ome": {"version": "0.5", **described}})
            root = folder / "0"
        options = {"shape": array.shape, "chunks": tuple(max(1, size // 2) for size in array.shape)}
        zarr.open_array(str(root), mode="w", dtype=array.dtype, **options, **_version(version))[...] = array
        if folder != path:
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                    archive.write(file, file.relative_to(folder))
        return path

    return write


def _version(version):
    return {} if zarr.__version__.startswith("2.") else {"zarr_format": version}


def folder_of(files):
    """What writes a folder of files."""

    def write(path):
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path

    return write


# ---------------------------------------------------------------- every kind


@dataclass(frozen=True)
class Given:
    """Arguments of `deepcell`, and what the project must hold."""

    images: Any
    expected: Truth
    labels: Any = None
    options: dict = field(default_factory=dict)


KINDS: dict[str, Callable[[Path, Truth], Given]] = {}


def made(path, content):
    """Content as an argument: bytes are written to a file, functions called with its path, arrays are as they are."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    return content(path) if callable(content) else content


def images(name, content, expected=Truth.without_labels, **options):
    """A kind of images."""
    KINDS[name] = lambda folder, m: Given(made(folder / name, content(m)), expected(m), options=options)


def segmentation(name, content, expected=Truth.only, **options):
    """A kind of labels, given beside an array."""

    def given(folder, m):
        expect = expected(m)
        return Given(expect.X, expect, made(folder / name, content(m)), options)

    KINDS[name] = given


def alone(**part):
    """What a project of a part of the image holds."""
    return lambda m: m.without_labels(**part)


def named(m):
    """What a project of the image holds, with names of the channels."""
    return m.without_labels("names")


def some(*keep, **part):
    """What a project of a part of everything holds."""
    return lambda m: m.only(*keep, **part)


def grey(m):
    """First frame, as uint8."""
    return (m.X[0].astype(np.float64) % 256).astype(np.uint8)


def picture(convert):
    """What a project of a PNG of the first frame holds, whose pixels are (rows, columns, channels)."""
    return lambda m: replace(m.without_labels(frames=slice(1)), X=convert(grey(m))[None])


FIRST_CHANNEL, FIRST_FRAME = {"channels": slice(1)}, {"frames": slice(1)}
FIRST = {"channels": slice(1), "features": slice(1)}

# NumPy's files
images("npz_X_y.npz", lambda m: npz(X=m.X, y=m.y), Truth.only)
images("npz_deflated.npz", lambda m: npz(np.savez_compressed, y=m.y, X=m.X), Truth.only)
images("npz_X.npz", lambda m: npz(X=m.X))
images("npz_unnamed.npz", lambda m: npz(arr_0=m.X, arr_1=m.y))
images("npz_3d.npz", lambda m: npz(X=m.X[..., 0]), alone(**FIRST_CHANNEL))
images("npz_axes.npz", lambda m: npz(X=arranged(m.X, "CTYX"), y=m.y), Truth.only, axes="CZYX")
images("zip_npz.zip", lambda m: zipped({"movie.npz": npz(X=m.X, y=m.y)}), Truth.only)
images("zip_npz_unnamed.zip", lambda m: zipped({"movie.npz": npz(a=m.X)}))
images("npy.npy", lambda m: npy(m.X))
images("npy_fortran.npy", lambda m: npy(np.asfortranarray(m.X)))
images("npy_big_endian.npy", lambda m: npy(m.X.astype(m.X.dtype.newbyteorder(">"))))
# TIFFs
images("tiff_YX.tiff", lambda m: tiff(m.X[0, :, :, 0]), alone(**FIRST_FRAME, **FIRST_CHANNEL))
images("tiff_ZYX.tiff", lambda m: tiff(m.X[..., 0]), alone(**FIRST_CHANNEL), axes="ZYX")
images("tiff_CYX.tiff", lambda m: tiff(arranged(m.X, "TCYX")[0]), alone(**FIRST_FRAME), axes="CYX")
images("tiff_YXC.tiff", lambda m: tiff(m.X[0]), alone(**FIRST_FRAME), axes="YXC")
images("tiff_BXYC.tiff", lambda m: tiff(m.X), axes="BXYC")
images("tiff_CXYB.tiff", lambda m: tiff(arranged(m.X, "CYXT")), axes="CXYB")
for _axes in ("ZYXC", "CZYX", "ZCYX", "YXZC"):
    images(f"tiff_{_axes}.tiff", lambda m, axes=_axes: tiff(arranged(m.X, axes, "Z")), axes=_axes)
images("tiff_pages.tiff", lambda m: tiff(m.X[..., 0], metadata=None), alone(**FIRST_CHANNEL))
images("tiff_samples.tiff", lambda m: tiff(m.X, photometric="rgb"))
images("tiff_planes.tiff", lambda m: tiff(arranged(m.X, "TCYX"), photometric="rgb", planarconfig="separate"))
images("tiff_big.tiff", lambda m: tiff(m.X[..., 0], bigtiff=True), alone(**FIRST_CHANNEL), axes="ZYX")
images("tiff_motorola.tiff", lambda m: tiff(m.X[..., 0], byteorder=">"), alone(**FIRST_CHANNEL), axes="ZYX")
images("tiff_tiles.tiff", lambda m: tiff(m.X[..., 0], tile=(16, 16)), alone(**FIRST_CHANNEL), axes="ZYX")
images("imagej_TYX.tiff", lambda m: imagej(m.X[..., 0], "TYX"), alone(**FIRST_CHANNEL))
images("imagej_TCYX.tiff", lambda m: imagej(arranged(m.X, "TCYX"), "TCYX"))
for _axes in ("ZCYX", "TCYX", "CZYX", "CTYX"):
    images(f"ome_{_axes}.ome.tiff", lambda m, axes=_axes: ome(m.X, axes, m.names), named)
images("ome_axes.ome.tiff", lambda m: ome(m.X, "TCYX"), axes="TCYX")
images("zip_tiff.zip", lambda m: zipped({"a.tiff": ome(m.X, "TCYX")}))
images("zip_tiffs.zip", lambda m: zipped({f"c{c}.tif": tiff(m.X[..., c]) for c in (2, 0, 1)}))
images(
    "folder.frames",
    lambda m: folder_of({f"t{9 + t}.tif": tiff(m.X[t, :, :, 0]) for t in range(len(m.X))}),
    alone(**FIRST_CHANNEL),
)
# PNGs
images("png_L.png", lambda m: png(grey(m)[..., 0]), picture(lambda p: p[..., :1]))
images("png_RGB.png", lambda m: png(grey(m)), picture(lambda p: p))
images("png_RGBA.png", lambda m: png(np.dstack([grey(m), grey(m)[..., 0]])), picture(lambda p: p))
images("png_LA.png", lambda m: png(grey(m)[..., :2], "LA"), picture(lambda p: p[..., :1]))
images(
    "png_P.png",
    lambda m: png(grey(m), "P"),
    picture(lambda p: np.array(Image.fromarray(p).convert("P").convert("RGB"))),
)
images(
    "png_1.png",
    lambda m: png(grey(m)[..., 0] > 99),
    picture(lambda p: np.where(p[..., :1] > 99, 255, 0).astype(np.uint8)),
)
images(
    "png_16.png",
    lambda m: png(grey(m)[..., 0].astype(np.uint16) * 257),
    picture(lambda p: p[..., :1].astype(np.uint16) * 257),
)
images("zip_png.zip", lambda m: zipped({"a.png": png(grey(m))}), picture(lambda p: p))
# Zarr, arrays
for _suffix in (".zarr", ".zarr.zip"):
    for _version_ in (2, 3):
        _name = f"v{_version_}{_suffix}"
        images(f"array_{_name}", lambda m, v=_version_: zarr_store(arranged(m.X, "TCYX"), v), axes="TCYX")
        images(
            f"ome_{_name}",
            lambda m, v=_version_: zarr_store(arranged(m.X, "TCYX"), v, "TCYX", m.names),
            named,
        )
images("array_zarr", lambda m: lambda path: zarr.open(str(zarr_store(m.X, 2)(path)), mode="r"))
images("array_numpy", lambda m: m.X)
images("array_fortran", lambda m: np.asfortranarray(m.X))
images("array_big_endian", lambda m: m.X.astype(m.X.dtype.newbyteorder(">")))
images("array_view", lambda m: np.repeat(m.X, 2, axis=2)[:, :, ::2][::-1][::-1])
images("array_dask", lambda m: da.from_array(m.X, chunks=(3, 10, 16, 2)))
# Tracking archives
_tracks = {"expected": lambda m: m.only("divisions", **FIRST)}
images("movie.trk", lambda m: tracked(m, "w:gz"), **_tracks)
images("movie_plain.trk", lambda m: tracked(m, "w"), **_tracks)
images("movie_batch.trks", lambda m: tracked(m, "w:gz", batch=True), **_tracks)
# Projects
for _axes in ("ZCYX", "CZYX", "TCYX"):
    images(f"project_{_axes}.zip", lambda m, axes=_axes: project(m, axes), lambda m: m)
images("project_stored.zip", lambda m: project(m, "CZYX", zipfile.ZIP_STORED), lambda m: m)
images("project_no_y.zip", lambda m: zipped({"X.ome.tiff": ome(m.X, "ZCYX", m.names)}), named)
images(
    "project_no_cells.zip",
    lambda m: zipped({"X.ome.tiff": ome(m.X, "CZYX"), "y.ome.tiff": ome(m.y, "ZCYX"), "spots.csv": m.spots}),
    lambda m: m.only("spots"),
)
# Labels in zips
segmentation("labels_y.zip", lambda m: zipped({"y.npy": npy(m.y)}))
segmentation("labels_any.zip", lambda m: zipped({"some/mask.npy": npy(m.y)}))
segmentation("labels_npz.zip", lambda m: zipped({"a.npz": npz(np.savez_compressed, X=m.X, y=m.y)}))
segmentation("labels_tiff.zip", lambda m: zipped({"mask.tiff": tiff(m.y[..., 0])}), some(features=slice(1)))
segmentation("labels_ome.zip", lambda m: zipped({"mask.ome.tif": ome(m.y, "CZYX")}))
segmentation("labels_tiffs.zip", lambda m: zipped({f"f{c}.tif": tiff(m.y[..., c]) for c in (1, 0)}))
segmentation("labels_features.zip", lambda m: batches(m.y, feature_major=True))
segmentation("labels_batches.zip", lambda m: batches(m.y, feature_major=False))
segmentation(
    "labels_png.zip",
    lambda m: zipped({"a.png": png(m.y[0, :, :, 0].astype(np.uint16))}),
    some(frames=slice(1), features=slice(1)),
)
segmentation("labels_lineage.zip", lambda m: zipped({"y.npy": npy(m.y), "lineage.json": lineage()}), some("divisions"))
for _axes in ("ZCYX", "CZYX", "TCYX"):
    segmentation(
        f"labels_{_axes}.zip",
        lambda m, axes=_axes: zipped({"y.ome.tiff": ome(m.y, axes), **tables(m)}),
        lambda m: replace(m, names=()),
    )
segmentation(
    "labels_twice.zip",
    lambda m: zipped({"y.npy": npy(m.y), "lineage.json": lineage(), **tables(m)}),
    lambda m: replace(m, names=()),
)
segmentation("labels_spots.zip", lambda m: zipped({"y.npy": npy(m.y), "found.csv": m.spots}), some("spots"))
segmentation("labels.trk", lambda m: tracked(m, "w:gz"), some("divisions", features=slice(1)))
segmentation("labels_project.zip", lambda m: project(m, "CZYX"), lambda m: replace(m, names=()))
# Labels on their own
segmentation("labels.npz", lambda m: npz(y=m.y))
segmentation("labels_X_y.npz", lambda m: npz(X=m.X, y=m.y))
segmentation("labels.npy", lambda m: npy(m.y))
segmentation("labels_fortran.npy", lambda m: npy(np.asfortranarray(m.y.astype(">i8"))))
segmentation("labels_3d.npy", lambda m: npy(m.y[..., 0].astype(np.uint16)), some(features=slice(1)))
segmentation("labels_CTYX.npy", lambda m: npy(arranged(m.y, "CTYX")))
segmentation("labels_YXTC.npy", lambda m: npy(arranged(m.y, "YXTC")), label_axes="YXTC")
segmentation("labels.tiff", lambda m: tiff(m.y[..., 0]), some(features=slice(1)))
segmentation("labels.ome.tiff", lambda m: ome(m.y.astype(np.uint16), "TCYX"))
segmentation(
    "labels.png", lambda m: png(m.y[0, :, :, 1].astype(np.uint16)), some(frames=slice(1), features=slice(1, 2))
)
segmentation(
    "labels.frames",
    lambda m: folder_of({f"{t}.tif": tiff(m.y[t, :, :, 0]) for t in range(len(m.y))}),
    some(features=slice(1)),
)
segmentation("labels_v2.zarr", lambda m: zarr_store(m.y, 2))
segmentation("labels_v3.zarr.zip", lambda m: zarr_store(arranged(m.y, "TCYX"), 3, "TCYX"))
segmentation("labels_array", lambda m: m.y.astype(np.uint32))
segmentation("labels_dask", lambda m: da.from_array(m.y, chunks=(2, 9, 31, 1)))
segmentation(
    "labels_bool",
    lambda m: m.y[..., 0] > 0,
    lambda m: replace(m.only(features=slice(1)), y=(m.y[..., :1] > 0).astype(np.int32)),
)
segmentation("none", lambda m: None, Truth.without_labels)
