"""Small Xenium output bundles of which everything is known: what tests read, and compare with what was written.

Positions are microns; the image's pixels are 0.2125 µm. Cells are named in random order, so that order of names and
order of rows differ. A fifth of the transcripts have a quality below 20; the matrix counts the others, in cells.
"""

import gzip
import json
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import tifffile

PIXEL = 0.2125
CHANNELS = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin", "Fifth")
GENE = "Gene Expression"
LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # how instruments spell a cell's number
CONTROLS = {  # features without biology: type in the matrix by name
    "NegControlProbe_00042": "Negative Control Probe",
    "NegControlCodeword_0500": "Negative Control Codeword",
    "UnassignedCodeword_0001": "Unassigned Codeword",
    "DeprecatedCodeword_0007": "Deprecated Codeword",
    "Intergenic_Region_7": "Genomic Control",
}


@dataclass(frozen=True)
class Truth:
    """What a bundle holds; rows are in the order of its files."""

    folder: Path
    cells: list[str]  # names, as text
    xy: np.ndarray  # (n_cells, 2) centroids, microns
    rings: list[np.ndarray]  # outline of each cell: float32 (n, 2), microns, closed
    clusters: list[str | None]
    features: list[str]
    types: list[str]
    counts: np.ndarray  # int32 (n_cells, n_features)
    gene: np.ndarray  # of each transcript: its feature
    points: np.ndarray  # and float32 (n, 2), microns
    qv: np.ndarray
    owner: np.ndarray  # and its cell, or -1
    pixels: np.ndarray  # uint16 (channels, height, width)
    matrix: np.ndarray  # float32 (4, 4): microns to pixels
    lut: tuple[int, ...]  # "Suggested LUT max" of each channel, or nothing

    def px(self, microns: np.ndarray) -> np.ndarray:
        """Microns (n, 2) as float64 pixels; the factor is the number that the transform file spells."""
        to = np.array([[float(str(value)) for value in row] for row in self.matrix])
        return np.asarray(microns, np.float64) @ to[:2, :2].T + to[:2, 3]


def make_bundle(
    folder: Path,
    *,
    seed: int = 0,
    n_cells: int = 120,
    n_genes: int = 25,
    n_transcripts: int = 5000,
    image: tuple[int, int] = (300, 420),
    channels: int = 2,
    n_clusters: int = 4,
    controls: bool = True,
    names: Sequence[str] = (),
    version: Literal["1", "3", "4"] = "3",
    parquet: bool = True,
    transform: Literal["zarr", "csv", "none"] = "zarr",
    translation: tuple[float, float] = (0, 0),
    matrix: Literal["mex", "h5", "zarr", "none"] = "mex",
    tar: bool = False,
    layout: Literal["multi", "single", "root", "none"] = "multi",
    codec: Literal["zlib", "jpeg2000", "none"] = "zlib",
    levels: int = 1,
    lut: bool = False,
    extent: tuple[float, float] | None = None,
    row_group: int = 1000,
) -> Truth:
    """Write a bundle into a new folder.

    `image` is height and width in pixels, with `levels` halved copies; `layout`: one OME-TIFF a channel, one of all
    channels, one beside the tables as in version 1. `names` are those of the first genes. Version 1 has integer cell
    ids and binary feature names, 4 other names of images. `parquet` False: only ``.csv.gz``. `transform`: in
    ``cells.zarr.zip``, a CSV, or only the pixel size; `translation` is in pixels. `tar` packs `analysis` and a MEX
    matrix. Transcripts end at `extent` pixels, and one is exactly there, in x and in y.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    size = np.array(image[::-1]) * PIXEL
    to = np.diag(np.array([1 / PIXEL, 1 / PIXEL, 1, 1], np.float32))
    to[:2, 3] = translation
    prefix = rng.choice(2**32 - 1, n_cells, replace=False)
    cells = [f"{number:08x}".translate(LETTERS) + "-1" for number in prefix]
    if version == "1":
        cells = [str(i + 1) for i in rng.permutation(n_cells)]
    ids = np.column_stack([prefix, np.ones(n_cells)]).astype("<u4")
    margin = min(3.5, float(size.min()) / 4)
    xy = rng.uniform(margin, size - margin, (n_cells, 2)).round(6)
    rings = [_ring(rng, center, margin * 0.9) for center in xy]
    share = np.arange(n_clusters, 0, -1) / np.arange(n_clusters + 1).sum()
    kind = rng.choice(n_clusters, n_cells, p=share)
    label = rng.permutation(n_clusters) + 1
    clusters = [None if i % 40 == 7 else str(label[k]) for i, k in enumerate(kind)]
    genes = [*names, *(f"{'BDFGKLMNPRST'[i % 12]}{'xyz'[i % 3]}{i}" for i in rng.permutation(1000))][:n_genes]
    features = [*genes, *(CONTROLS if controls else ())]
    types = [GENE] * n_genes + [*CONTROLS.values()] * controls
    owner = np.where(rng.random(n_transcripts) < 0.7, rng.integers(0, n_cells, n_transcripts), -1)
    inside = xy[owner] + rng.normal(0, margin / 5, (n_transcripts, 2))
    end = size if extent is None else np.float32(extent) / to[0, 0]
    anywhere = rng.uniform(0, end, (n_transcripts, 2))
    owner[((inside < 0) | (inside > end)).any(1)] = -1
    points = np.where(owner[:, None] >= 0, inside, anywhere).round(4).astype(np.float32)
    if extent is not None:
        points[n_transcripts // 2, 0], points[n_transcripts // 3, 1] = end
    weight = rng.lognormal(0, 1, (n_clusters + 1, len(features)))
    weight[:, n_genes:] *= 0.05
    weight[:, [n_genes - 1, *[-1] * controls]] = 0  # never seen
    weight = (weight / weight.sum(1, keepdims=True)).cumsum(1)
    profile = weight[np.where(owner >= 0, kind[owner], n_clusters)]
    gene = np.minimum((rng.random(n_transcripts)[:, None] > profile).sum(1), len(features) - 1)
    qv = rng.uniform(20, 40, n_transcripts) - 20 * (rng.random(n_transcripts) < 0.2)
    counts = np.zeros((n_cells, len(features)), np.int32)
    good = (owner >= 0) & (qv >= 20)
    np.add.at(counts, (owner[good], gene[good]), 1)
    pixels = np.stack([_paint(rng, image, xy / PIXEL, channel) for channel in range(channels)])
    known = (cells, xy, rings, clusters, features, types, counts, gene, points, qv.astype(np.float32), owner)
    truth = Truth(folder, *known, pixels, to, (2600, 1500, 1800, 1700, 900)[:channels] if lut else ())
    _write_tables(truth, version, parquet, row_group)
    _write_matrix(truth, matrix, ids)
    rows = [f"{cell},{label}" for cell, label in zip(cells, clusters, strict=True) if label is not None]
    where = folder / "analysis" / "clustering" / "gene_expression_graphclust"
    where.mkdir(parents=True)
    (where / "clusters.csv").write_text("\n".join(["Barcode,Cluster", *rows]) + "\n")
    for path in folder.glob("*/") if tar else ():
        with tarfile.open(f"{path}.tar.gz", "w:gz") as file:
            file.add(path, path.name)
        shutil.rmtree(path)
    if transform == "zarr":
        _write_zarr(folder / "cells.zarr.zip", {"masks/homogeneous_transform": to, "cell_id": ids})
    elif transform == "csv":
        lines = (" ".join(str(value) for value in row[[0, 1, 3]]) for row in to[[0, 1, 3]])
        (folder / "micron_to_image_transform.csv").write_text("\n".join(lines) + "\n")
    files = [] if layout == "none" else _write_images(truth, version, layout, codec, levels)
    manifest = {"num_cells": n_cells, "pixel_size": PIXEL, "analysis_sw_version": f"xenium-{version}.0.0.0"}
    manifest["images"] = {"morphology_focus_filepath": files[0]} if files else {}
    (folder / "experiment.xenium").write_text(json.dumps(manifest, indent=2))
    return truth


def _ring(rng: np.random.Generator, center: np.ndarray, radius: float) -> np.ndarray:
    """A closed star-shaped ring; its area's centroid is near `center`, not on it."""
    angle = np.linspace(0, 2 * np.pi, rng.integers(6, 14), endpoint=False)
    far = radius * rng.uniform(0.6, 1, angle.size)
    ring = center + far[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.vstack([ring, ring[:1]]).round(4).astype(np.float32)


def _paint(rng: np.random.Generator, image: tuple[int, int], centers: np.ndarray, channel: int) -> np.ndarray:
    """Soft blobs at cells over a background, with a corner that was never scanned."""
    y, x = np.arange(image[0])[:, None], np.arange(image[1])
    far_x, far_y = (
        np.exp(-((at - to[:, None]) ** 2) / (18 + 8 * channel)) for at, to in zip((x, y.T), centers.T, strict=True)
    )
    light = 60 + 25 * channel + 20 * np.sin(x / 40 + channel) * np.cos(y / 33)
    light += (far_y.T * rng.uniform(200, 2600, len(centers))) @ far_x
    light[: image[0] // 5, : image[1] // 6] = 0
    return light.astype(np.uint16)


def _write_tables(truth: Truth, version: str, parquet: bool, row_group: int) -> None:
    """Cells, outlines and transcripts."""
    integer = version == "1"
    names = np.array([int(cell) for cell in truth.cells] + [-1]) if integer else np.array([*truth.cells, "UNASSIGNED"])
    text = pa.array(truth.features, pa.binary() if integer and parquet else pa.string())
    x, y = np.concatenate(truth.rings).T
    rows = np.repeat(np.arange(len(truth.cells)), [len(ring) for ring in truth.rings])
    center_x, center_y = truth.xy.T
    tables = {
        "cells": {"cell_id": names[:-1], "x_centroid": center_x, "y_centroid": center_y},
        "cell_boundaries": {"cell_id": names[rows], "vertex_x": x, "vertex_y": y},
        "transcripts": {
            "transcript_id": np.arange(truth.gene.size, dtype=np.uint64) + 2**48,
            "cell_id": names[truth.owner],
            "feature_name": text.take(pa.array(truth.gene)),
            **dict(zip(("x_location", "y_location"), truth.points.T, strict=True)),
            "qv": truth.qv,
        },
    }
    for name, columns in tables.items():
        table = pa.table({key: pa.array(values) for key, values in columns.items()})
        if parquet:
            pq.write_table(table, truth.folder / f"{name}.parquet", row_group_size=row_group)
        if not parquet or name == "cells":
            with gzip.open(truth.folder / f"{name}.csv.gz", "wb") as file:
                pacsv.write_csv(table, file)


def _write_matrix(truth: Truth, kind: str, cell_ids: np.ndarray) -> None:
    """Counts in one of the layouts; stored by cell, but by feature in Zarr."""
    stem = truth.folder / "cell_feature_matrix"
    ids = [name if name in CONTROLS else f"ENSG{i:011d}" for i, name in enumerate(truth.features)]
    counts, (n_cells, n_features) = truth.counts, truth.counts.shape
    cell, feature = np.nonzero(counts)
    if kind == "mex":
        stem.mkdir()
        lines = [f"{f + 1} {c + 1} {counts[c, f]}" for c, f in zip(cell, feature, strict=True)]
        head = ["%%MatrixMarket matrix coordinate integer general", "%made up", f"{n_features} {n_cells} {cell.size}"]
        rows = ["\t".join(row) for row in zip(ids, truth.features, truth.types, strict=True)]
        for name, text in {"matrix.mtx": head + lines, "barcodes.tsv": truth.cells, "features.tsv": rows}.items():
            with gzip.open(stem / f"{name}.gz", "wt", encoding="utf-8") as file:
                file.write("\n".join(text) + "\n")
    elif kind == "h5":
        with h5py.File(stem.with_suffix(".h5"), "w") as file:
            ends = np.bincount(cell, minlength=n_cells).cumsum()
            numbers = {"data": counts[cell, feature], "indices": feature, "indptr": np.append(0, ends)}
            texts = {"barcodes": truth.cells, "features/id": ids, "features/name": truth.features}
            texts["features/feature_type"] = truth.types
            encoded = {name: np.array([text.encode() for text in found]) for name, found in texts.items()}
            for name, values in {**numbers, **encoded, "shape": np.array([n_features, n_cells], np.int32)}.items():
                file[f"matrix/{name}"] = values
    elif kind == "zarr":
        feature, cell = np.nonzero(counts.T)
        ends = np.bincount(feature, minlength=n_features).cumsum()
        numbers = {"data": counts[cell, feature], "indices": cell, "indptr": np.append(0, ends), "cell_id": cell_ids}
        arrays = {f"cell_features/{name}": values.astype("<u4") for name, values in numbers.items()}
        tags = {"feature_keys": truth.features, "feature_ids": ids, "feature_types": truth.types}
        tags |= {"number_cells": n_cells, "number_features": n_features, "major_version": 3, "minor_version": 0}
        _write_zarr(stem.with_suffix(".zarr.zip"), arrays, {"cell_features": tags})


def _write_zarr(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any] | None = None) -> None:
    """Zarr 2 arrays, one chunk each, uncompressed, with the groups above them."""
    plain = {"compressor": None, "filters": None, "fill_value": 0, "order": "C", "zarr_format": 2}
    with zipfile.ZipFile(path, "w") as file:
        for group in sorted({str(parent) for name in arrays for parent in Path(name).parents}):
            file.writestr(f"{group}/.zgroup".removeprefix("./"), '{"zarr_format": 2}')
        for group, content in (attributes or {}).items():
            file.writestr(f"{group}/.zattrs", json.dumps(content))
        for name, array in arrays.items():
            shape = {"shape": array.shape, "chunks": array.shape, "dtype": array.dtype.str}
            file.writestr(f"{name}/.zarray", json.dumps({**plain, **shape}))
            file.writestr(f"{name}/{'.'.join('0' * array.ndim)}", array.tobytes())


def _write_images(truth: Truth, version: str, layout: str, codec: str, levels: int) -> list[str]:
    """The image with smaller copies of itself; paths of the files."""
    home, stem = truth.folder / "morphology_focus", "morphology_focus_000"
    stains = [f"_{channel.lower().replace('/', '_')}" if version == "4" else "" for channel in CHANNELS]
    files = [f"{'ch000' if version == '4' else stem}{i}{stains[i]}.ome.tif" for i in range(len(truth.pixels))]
    if layout == "root":
        home, files = truth.folder, ["morphology_focus.ome.tif"]
    elif layout == "single":
        files = files[:1]
    home.mkdir(exist_ok=True)
    how: dict[str, Any] = {"tile": (256, 256), "photometric": "minisblack", "metadata": None}
    if codec == "jpeg2000":
        how |= {"compression": codec, "compressionargs": {"level": 0, "reversible": True}}
    elif codec == "zlib":
        how |= {"compression": codec, "predictor": True}
    for i, name in enumerate(files):
        planes = truth.pixels[i : i + 1] if layout == "multi" else truth.pixels
        with tifffile.TiffWriter(home / name) as file:
            for p, plane in enumerate(planes):
                file.write(plane, subifds=levels, description=None if p else _ome(truth, files, i), **how)
                for step in 2 ** np.arange(1, levels + 1):
                    file.write(plane[::step, ::step], subfiletype=1, **how)
    return [str((home / name).relative_to(truth.folder)) for name in files]


def _ome(truth: Truth, files: list[str], own: int) -> str:
    """OME-XML that names the channels and says which file, or which page of the only file, holds each."""
    n, height, width = truth.pixels.shape
    uuid = [f"urn:uuid:00000000-0000-0000-0000-{i:012d}" for i in range(len(files))]
    channel = "".join(f'<Channel ID="Channel:{i}" Name="{CHANNELS[i]}" SamplesPerPixel="1"/>' for i in range(n))
    data = "".join(
        f'<TiffData FirstC="{c}" FirstT="0" FirstZ="0" IFD="{page}" PlaneCount="1">'
        f'<UUID FileName="{files[file]}">{uuid[file]}</UUID></TiffData>'
        for c, (file, page) in enumerate((i, 0) if len(files) > 1 else (0, i) for i in range(n))
    )
    notes = "".join(
        f'<MapAnnotation ID="Annotation:{i}"><Value><M K="Long name">{CHANNELS[i]}</M>'
        f'<M K="Suggested LUT max">{bound}</M></Value></MapAnnotation>'
        for i, bound in enumerate(truth.lut)
    )
    return (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid[own]}"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" SizeY="{height}" SizeC="{n}" '
        f'SizeZ="1" SizeT="1" PhysicalSizeX="{PIXEL}" PhysicalSizeY="{PIXEL}">{channel}{data}</Pixels></Image>'
        f"<StructuredAnnotations>{notes}</StructuredAnnotations></OME>"
    )
