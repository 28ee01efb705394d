"""Xenium output folders of any size, written batch by batch, as `atlaswriter landscape` and celldega 0.27.0 read them.

Cells stand on a jittered lattice, each of a type with its own abundance of genes, in the order of the file. Seven of
ten transcripts lie in a cell, a fifth has a quality below 20, and the matrix counts the others that lie in cells.
Positions are microns. Equal arguments give equal contents.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import tifffile

from atlaswriter.bench.sampling import Array
from atlaswriter.bench.settings import CELL_TRANSCRIPTS, PIXELS

PIXEL_UM = 0.2125
VERTICES = 12
_TYPES, _INSIDE, _LOW_QUALITY, _GOOD_QV = 12, 0.7, 0.2, 20
# Transcripts of a batch, about, and cells whose outlines are made together: part of the contents, as each draws anew.
_BATCH, _CELL_BATCH = 1 << 20, 1 << 16
_TILE = 1024
# How instruments spell the number of a cell.
_DIGITS = np.frombuffer(b"abcdefghijklmnop", np.uint8)
_SPREAD = 2_654_435_761  # odd: the numbers of no two cells are equal
_OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYZCT" Type="uint16" SizeX="{side}" SizeY="{side}" SizeC="1" SizeZ="1" SizeT="1" '
    'PhysicalSizeX="{pixel}" PhysicalSizeY="{pixel}"><Channel ID="Channel:0" Name="DAPI" SamplesPerPixel="1"/>'
    '<TiffData FirstC="0" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


def make_bundle(
    folder: Path, transcripts: int, genes: int, *, seed: int = 0, originals: bool = False
) -> dict[str, Any]:
    """Write a bundle into a new folder.

    Parameters
    ----------
    folder
        Must not exist.
    transcripts
        Rows of ``transcripts.parquet``; there is a cell for every hundred, and four pixels for each.
    genes
        Features of the panel, all of them genes.
    seed
        Of all random numbers.
    originals
        Whether to write the text files as well, which only the original reads.

    Returns
    -------
    dict
        ``transcripts``, ``cells``, ``genes``, ``nonzeros`` of the matrix, ``vertices``, ``pixels``, ``input_bytes``.
    """
    folder.mkdir(parents=True)
    tissue = _Tissue(transcripts, genes, seed)
    _write_cells(folder, tissue, originals)
    _write_outlines(folder, tissue)
    nonzeros = _write_transcripts(folder, tissue, originals)
    _write_image(folder, tissue)
    _write_transform(folder)
    manifest = {
        "num_cells": tissue.n_cells,
        "pixel_size": PIXEL_UM,
        "analysis_sw_version": "xenium-3.0.0.0",
        "images": {"morphology_focus_filepath": "morphology_focus/morphology_focus_0000.ome.tif"},
    }
    (folder / "experiment.xenium").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return {
        "transcripts": transcripts,
        "cells": tissue.n_cells,
        "genes": genes,
        "nonzeros": nonzeros,
        "vertices": tissue.n_cells * (VERTICES + 1),
        "pixels": tissue.side_px**2,
        "input_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


class _Tissue:
    """Where cells are, of which type, and how many transcripts belong to each."""

    def __init__(self, transcripts: int, genes: int, seed: int) -> None:
        self.n_cells = max(1, transcripts // CELL_TRANSCRIPTS)
        self.side_px = max(256, round((transcripts * PIXELS) ** 0.5))
        self.side_um = self.side_px * PIXEL_UM
        self.seed = seed
        random = np.random.default_rng([seed, self.n_cells])
        lattice = int(np.ceil(self.n_cells**0.5))
        self.pitch_um = self.side_um / lattice
        places = np.column_stack(np.divmod(np.arange(self.n_cells), lattice)[::-1]) + 0.5
        self.xy_um = (places + random.uniform(-0.15, 0.15, places.shape)) * self.pitch_um
        patches = np.sin(places * (7 / lattice)).sum(1) * _TYPES / 4 + random.normal(0, 0.7, self.n_cells)
        self.types = np.floor(patches).astype(np.int64) % _TYPES
        self.names = _names(self.n_cells)
        self.features = pa.array([f"GENE{number}" for number in range(genes)])
        # The k-th most frequent gene of a type is another one in each type.
        self.rank_shares = np.cumsum(np.sort(random.lognormal(0, 1.6, genes))[::-1])
        self.rank_shares /= self.rank_shares[-1]
        self.gene_of_rank = np.stack([random.permutation(genes) for _ in range(_TYPES)])
        shares = np.cumsum(random.gamma(3, 1, self.n_cells))
        self.starts = np.r_[0, np.floor(shares / shares[-1] * transcripts)].astype(np.int64)
        self.starts[-1] = transcripts

    def batches(self) -> Iterator[tuple[int, int]]:
        """Ranges of cells with some 2^20 transcripts each."""
        cuts = np.searchsorted(self.starts, np.arange(0, self.starts[-1], _BATCH), side="left")
        return pairwise([*np.unique(np.minimum(cuts, self.n_cells - 1)).tolist(), self.n_cells])

    def radius_um(self, first: int, last: int) -> Array:
        """(cells, VERTICES): how far the outline is from the centre."""
        random = np.random.default_rng([self.seed, 1, first])
        radius: Array = self.pitch_um * random.uniform(0.3, 0.46, (last - first, VERTICES))
        return radius


def _names(n_cells: int) -> pa.Array:
    """Names such as ``aaafkbcd-1``, in no order."""
    numbers = np.arange(1, n_cells + 1, dtype=np.uint64) * np.uint64(_SPREAD)
    text = np.empty((n_cells, 10), np.uint8)
    for place in range(8):
        text[:, place] = _DIGITS[(numbers >> np.uint64(28 - 4 * place)).astype(np.int64) & 15]
    text[:, 8:] = np.frombuffer(b"-1", np.uint8)
    return pa.array(text.view("S10")[:, 0]).cast(pa.string())


def _write_cells(folder: Path, tissue: _Tissue, originals: bool) -> None:
    x, y = tissue.xy_um.T
    table = pa.table({"cell_id": tissue.names, "x_centroid": x, "y_centroid": y})
    pq.write_table(table, folder / "cells.parquet")
    if originals:
        with _zipped(folder / "cells.csv.gz") as file:
            pacsv.write_csv(table, file)
    where = folder / "analysis" / "clustering" / "gene_expression_graphclust"
    where.mkdir(parents=True)
    clusters = pa.table({"Barcode": tissue.names, "Cluster": tissue.types + 1})
    pacsv.write_csv(clusters, where / "clusters.csv", pacsv.WriteOptions(quoting_style="none"))


def _zipped(path: Path) -> gzip.GzipFile:
    """A gzip file without a clock, to be written."""
    return gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)


def _write_outlines(folder: Path, tissue: _Tissue) -> None:
    schema = pa.schema([("cell_id", pa.string()), ("vertex_x", pa.float32()), ("vertex_y", pa.float32())])
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    around = np.column_stack([np.cos(angle), np.sin(angle)])
    with pq.ParquetWriter(folder / "cell_boundaries.parquet", schema) as writer:
        for first, last in pairwise([*range(0, tissue.n_cells, _CELL_BATCH), tissue.n_cells]):
            rings = tissue.xy_um[first:last, None] + tissue.radius_um(first, last)[..., None] * around
            x, y = np.concatenate([rings, rings[:, :1]], axis=1).reshape(-1, 2).astype(np.float32).T
            owners = tissue.names.take(pa.array(np.repeat(np.arange(first, last), VERTICES + 1)))
            writer.write_table(pa.table([owners, pa.array(x), pa.array(y)], schema=schema))


def _write_transcripts(folder: Path, tissue: _Tissue, originals: bool) -> int:
    """Transcripts and the matrix that counts them; its non-zeros."""
    kinds = {"transcript_id": pa.uint64(), "cell_id": pa.string(), "feature_name": pa.string()}
    kinds |= dict.fromkeys(("x_location", "y_location", "qv"), pa.float32())
    schema = pa.schema(kinds.items())
    owners = pa.concat_arrays([tissue.names, pa.array(["UNASSIGNED"])])
    with ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(folder / "transcripts.parquet", schema))
        matrices: list[_Matrix] = [stack.enter_context(_Hdf5(folder, tissue))]
        if originals:
            matrices.append(stack.enter_context(_Mex(folder, tissue)))
        nonzeros = 0
        for first, last in tissue.batches():
            cell, gene, xy, qv = _draw(tissue, first, last)
            numbers = np.arange(tissue.starts[first], tissue.starts[last], dtype=np.uint64)
            columns = [numbers, owners.take(pa.array(cell)), tissue.features.take(pa.array(gene)), *xy, qv]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
            counted = (cell < tissue.n_cells) & (qv >= _GOOD_QV)
            keys = (cell[counted] - first) * len(tissue.features) + gene[counted]
            counts = np.bincount(keys, minlength=(last - first) * len(tissue.features))
            rows, columns_of = np.divmod(np.flatnonzero(counts), len(tissue.features))
            for matrix in matrices:
                matrix.add(first, last, rows, columns_of, counts[counts > 0])
            nonzeros += rows.size
    return nonzeros


def _draw(tissue: _Tissue, first: int, last: int) -> tuple[Array, Array, list[Array], Array]:
    """Transcripts of some cells: cell (or the number of cells for none), gene, x and y, quality."""
    random = np.random.default_rng([tissue.seed, 2, first])
    near = np.repeat(np.arange(first, last), np.diff(tissue.starts[first : last + 1]))
    inside = random.random(near.size) < _INSIDE
    angle = random.uniform(0, 2 * np.pi, near.size)
    far = np.where(inside, 0.3 * np.sqrt(random.random(near.size)), random.uniform(0.46, 0.8, near.size))
    xy = tissue.xy_um[near] + (far * tissue.pitch_um)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    rank = np.searchsorted(tissue.rank_shares, random.random(near.size))
    gene = tissue.gene_of_rank[tissue.types[near], rank]
    low = random.random(near.size) < _LOW_QUALITY
    qv = (random.uniform(20, 40, near.size) - 20 * low).astype(np.float32)
    edge = PIXEL_UM / 4
    x, y = np.clip(xy, edge, tissue.side_um - edge).astype(np.float32).T
    return np.where(inside, near, tissue.n_cells), gene, [x, y], qv


class _Matrix:
    """A count matrix, cells × genes, that grows by cells; use as a context."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, first: int, last: int, rows: Array, columns: Array, counts: Array) -> None:
        """Append cells `first` to `last`; `rows` count from `first`."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what ends the file."""
        raise NotImplementedError


class _Hdf5(_Matrix):
    """``cell_feature_matrix.h5``."""

    def __init__(self, folder: Path, tissue: _Tissue) -> None:
        self._file = h5py.File(folder / "cell_feature_matrix.h5", "w")
        self._group = self._file.create_group("matrix")
        names = [name.encode() for name in tissue.features.to_pylist()]
        self._group["barcodes"] = np.array([name.encode() for name in tissue.names.to_pylist()])
        self._group["shape"] = np.array([len(names), tissue.n_cells], np.int32)
        features = self._group.create_group("features")
        features["id"] = features["name"] = np.array(names)
        features["feature_type"] = np.array([b"Gene Expression"] * len(names))
        for name, dtype in (("data", np.int32), ("indices", np.int64)):
            self._group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 16,), compression=1)
        self._ends = [np.zeros(1, np.int64)]

    def add(self, first: int, last: int, rows: Array, columns: Array, counts: Array) -> None:
        """Append cells."""
        begin = int(self._ends[-1][-1])
        for name, values in (("data", counts), ("indices", columns)):
            array = self._group[name]
            array.resize((begin + values.size,))
            array[begin:] = values
        self._ends.append(begin + np.bincount(rows, minlength=last - first).cumsum())

    def close(self) -> None:
        """Write where each cell begins."""
        self._group["indptr"] = np.concatenate(self._ends)
        self._file.close()


class _Mex(_Matrix):
    """``cell_feature_matrix/``; its head, which says how many lines follow, is put before them at the end."""

    def __init__(self, folder: Path, tissue: _Tissue) -> None:
        self._folder = folder / "cell_feature_matrix"
        self._folder.mkdir()
        genes = tissue.features.to_pylist()
        for name, lines in (
            ("barcodes", tissue.names.to_pylist()),
            ("features", [f"{gene}\t{gene}\tGene Expression" for gene in genes]),
        ):
            with _zipped(self._folder / f"{name}.tsv.gz") as file:
                file.write(("\n".join(lines) + "\n").encode())
        self._shape, self._lines = (len(genes), tissue.n_cells), 0
        self._body = _zipped(self._folder / "body.gz")

    def add(self, first: int, last: int, rows: Array, columns: Array, counts: Array) -> None:
        """Append cells."""
        del last
        table = pa.table({"gene": columns + 1, "cell": rows + first + 1, "count": counts})
        pacsv.write_csv(table, self._body, pacsv.WriteOptions(include_header=False, delimiter=" "))
        self._lines += counts.size

    def close(self) -> None:
        """Put head and lines together: two members of one gzip file."""
        self._body.close()
        body = self._folder / "body.gz"
        head = f"%%MatrixMarket matrix coordinate integer general\n{self._shape[0]} {self._shape[1]} {self._lines}\n"
        with (self._folder / "matrix.mtx.gz").open("wb") as file, body.open("rb") as lines:
            file.write(gzip.compress(head.encode(), mtime=0))
            while block := lines.read(1 << 20):
                file.write(block)
        body.unlink()


def _write_image(folder: Path, tissue: _Tissue) -> None:
    """A nucleus at every place of the lattice, over noise."""
    side, tile = tissue.side_px, _TILE if tissue.side_px >= _TILE else 256
    (folder / "morphology_focus").mkdir()
    tiles = (_painted(tissue, y, x, tile) for y in range(0, side, tile) for x in range(0, side, tile))
    with tifffile.TiffWriter(folder / "morphology_focus" / "morphology_focus_0000.ome.tif") as writer:
        writer.write(
            tiles,
            shape=(side, side),
            dtype=np.uint16,
            tile=(tile, tile),
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            predictor=True,
            metadata=None,
            description=_OME.format(side=side, pixel=PIXEL_UM),
        )


def _painted(tissue: _Tissue, y: int, x: int, tile: int) -> Array:
    random = np.random.default_rng([tissue.seed, 3, y, x])
    step = 2 * np.pi * PIXEL_UM / tissue.pitch_um
    waves = [1 - np.cos(step * (np.arange(first, first + tile) + 0.5)) for first in (y, x)]
    light = 100 + random.integers(0, 48, (tile, tile)) + 500 * waves[0][:, None] * waves[1]
    painted: Array = light.astype(np.uint16)
    return painted


def _write_transform(folder: Path) -> None:
    """From microns to pixels, as a Zarr array."""
    matrix = np.diag([1 / PIXEL_UM, 1 / PIXEL_UM, 1, 1]).astype("<f4")
    array = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "<f4", "order": "C", "fill_value": 0}
    with zipfile.ZipFile(folder / "cells.zarr.zip", "w") as file:
        for group in ("", "masks/"):
            file.writestr(f"{group}.zgroup", '{"zarr_format": 2}')
        file.writestr("masks/homogeneous_transform/.zarray", json.dumps({**array, "compressor": None, "filters": None}))
        file.writestr("masks/homogeneous_transform/0.0", matrix.tobytes())
