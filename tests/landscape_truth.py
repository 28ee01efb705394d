"""LandscapeFiles as plain numbers: read back with pyarrow and Pillow alone, and worked out from a bundle's truth.

Positions are whole hundredths of a pixel here, so that nothing is compared with a tolerance.
"""

import colorsys
import hashlib
import io
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.bundles import CONTROLS, Truth

INDEX = "__index_level_0__"
ASKABLE = str.maketrans(dict.fromkeys("/\\?#%", "_"))
NO_SIGNATURE = ("Unassigned", "NegControl", "DeprecatedCodeword")
KEYS = ("dapi", "bound", "rna", "prot")
IMAGE_TILE = 512


# --- what a folder holds


def files(folder):
    """Bytes of every file by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fingerprint(folder):
    """Everything about a tree that a program could have changed: names, contents, sizes, times, permissions."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        state = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        # Reading may move the time of access.
        found[str(path.relative_to(folder))] = (content, state.st_size, state.st_mtime_ns, state.st_mode, state.st_ino)
    return found


def hundredths(values):
    """Stored pixels as whole hundredths; anything that is not the number nearest to a hundredth fails."""
    values = np.asarray(values)
    found = np.rint(values.astype(np.float64) * 100).astype(np.int64)
    # float32: the multiple of 1/128 that lies nearest, from which the hundredth comes back.
    meant = found / 100.0 if values.dtype == np.float64 else np.rint(found / 100.0 * 128) / 128
    np.testing.assert_array_equal(meant.astype(values.dtype), values)
    return found


def flat(column, depth):
    """Values of a column of lists so many levels deep, and the offsets of each level."""
    array, ends = column.combine_chunks(), []
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    for _ in range(depth):
        assert array.null_count == 0
        assert pa.types.is_list(array.type)
        ends.append(np.asarray(array.offsets) - np.asarray(array.offsets)[:1])
        array = array.flatten()
    assert array.null_count == 0
    return array.to_numpy(zero_copy_only=False), ends


class Written:
    """One export, loose tiles or row groups.

    Attributes
    ----------
    transcripts
        By tile: int64 (n, 3): gene id, x, y, in the order of the file.
    outlines
        By tile: list of (cell id, int64 (n, 2)), in the order of the file.
    """

    def __init__(self, folder, segmentation=None):
        self.folder = Path(folder)
        self.end = "" if segmentation is None else f"_{segmentation}"
        self.parameters = json.loads((self.folder / "landscape_parameters.json").read_text("utf-8"))
        self.row_groups = self.parameters["use_row_groups"]
        self.tile_size = self.parameters["tile_size"]
        self.transcripts = {tile: self._points(table) for tile, table in self._tiles("transcripts", "")}
        self.outlines = {tile: self._rings(table) for tile, table in self._tiles("cell_segmentation", self.end)}

    def table(self, name):
        return pq.read_table(self.folder / name)

    def _tiles(self, part, end):
        if self.row_groups:
            yield from self._grouped(part)
            return
        stem = {"transcripts": "transcript_tiles/transcripts", "cell_segmentation": f"{part}{end}/cell"}[part]
        folder = (self.folder / stem).parent
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            i, j = (int(number) for number in path.stem.removeprefix(f"{stem.split('/')[1]}_tile_").split("_"))
            assert path.name == f"{stem.split('/')[1]}_tile_{i}_{j}.parquet"
            file = pq.ParquetFile(path)
            assert file.metadata.num_row_groups == 1
            assert file.metadata.num_rows > 0, "the front-end breaks at empty tiles"
            yield (i, j), file.read()

    def _grouped(self, part):
        entry, grid = self.parameters["row_group_files"].get(part), self.parameters["tile_grid"]
        if entry is None:
            return
        n_y, each = grid["num_tiles_y"], entry["max_row_groups_per_file"]
        n_groups = grid["num_tiles_x"] * n_y
        assert entry["total_row_groups"] == n_groups
        assert sorted(path.name for path in (self.folder / entry["directory"]).iterdir()) == sorted(entry["files"])
        assert len(entry["files"]) == -(-n_groups // each)
        for number, name in enumerate(entry["files"]):
            file = pq.ParquetFile(self.folder / entry["directory"] / name)
            assert file.metadata.num_row_groups == min(each, n_groups - number * each)
            for group in range(file.metadata.num_row_groups):
                i, j = divmod(number * each + group, n_y)
                if not file.metadata.row_group(group).num_rows:
                    continue
                table = file.read_row_group(group)
                assert set(table["tile_x"].to_pylist()) == {i}
                assert set(table["tile_y"].to_pylist()) == {j}
                yield (i, j), table

    @staticmethod
    def _points(table):
        xy, (ends,) = flat(table["geometry"], 1)
        assert (np.diff(ends) == 2).all()
        names = table["name"].to_numpy().astype(np.int64)
        return np.column_stack([names, hundredths(xy).reshape(-1, 2)])

    @staticmethod
    def _rings(table):
        xy, (polygons, rings, vertices) = flat(table["GEOMETRY"], 3)
        assert (np.diff(polygons) == 1).all(), "exactly one ring"
        assert (np.diff(vertices) == 2).all()
        points = hundredths(xy).reshape(-1, 2)
        ids = table["name"].to_numpy().astype(np.int64)
        return [(int(cell), points[a:b]) for cell, a, b in zip(ids, rings[:-1], rings[1:], strict=True)]

    @property
    def cells(self):
        """Names, and hundredths (n, 2), by id."""
        table = self.table(f"cell_metadata{self.end}.parquet")
        xy, (ends,) = flat(table["geometry"], 1)
        assert (np.diff(ends) == 2).all()
        return table["name"].to_pylist(), hundredths(xy).reshape(-1, 2)

    @property
    def genes(self):
        """Names by id."""
        return self.table(f"meta_gene{self.end}.parquet")[INDEX].to_pylist()

    @property
    def counts(self):
        """By gene: (cell ids, values)."""
        found = {}
        if self.row_groups:
            entry = self.parameters["row_group_files"].get(f"cbg{self.end}")
            for gene, group in (entry or {"gene_to_row_group": {}})["gene_to_row_group"].items():
                number, inner = divmod(group, entry["max_row_groups_per_file"])
                file = pq.ParquetFile(self.folder / entry["directory"] / entry["files"][number])
                table = file.read_row_group(inner)
                assert set(table["gene"].to_pylist()) == {gene}
                found[gene] = table["cell_id"].to_numpy().astype(np.int64), table["expression"].to_numpy()
            return found
        for path in (self.folder / f"cbg{self.end}").iterdir():
            table = pq.read_table(path)
            gene = path.name.removesuffix(".parquet")
            assert table.column_names == [gene, INDEX]
            found[gene] = table[INDEX].to_numpy().astype(np.int64), table[gene].to_numpy()
        return found

    @property
    def clusters(self):
        """Label of each cell, and (label, colour, count) of each cluster in order."""
        table = self.table(f"cell_clusters{self.end}/cluster.parquet")
        meta = self.table(f"cell_clusters{self.end}/meta_cluster.parquet")
        assert table[INDEX].to_pylist() == self.cells[0]
        rows = zip(*(meta[name].to_pylist() for name in (INDEX, "color", "count")), strict=True)
        return table["cluster"].to_pylist(), list(rows)

    def image(self, channel, *, grey=True):
        """Levels of a channel, coarsest first: uint8 (height, width), put together of tiles, which are all there.

        Loss may tint them (`grey` False): the mean counts, as in the front-end.
        """
        info = (self.folder / "pyramid_images" / f"{channel}.dzi").read_text()
        height, width = (int(info.split(f'{key}="')[1].split('"')[0]) for key in ("Height", "Width"))
        top = math.ceil(math.log2(max(width, height))) if max(width, height) > 1 else 0
        assert self.parameters["max_pyramid_zoom"] == top
        levels, seen = [], 0
        for level in range(top + 1):
            w, h = (-(-size // 2 ** (top - level)) for size in (width, height))
            out = np.zeros((h, w), np.uint8)
            for column in range(-(-w // IMAGE_TILE)):
                for row in range(-(-h // IMAGE_TILE)):
                    tile = self._image_tile(channel, level, column, row)
                    rows, columns = (slice(k * IMAGE_TILE, (k + 1) * IMAGE_TILE) for k in (row, column))
                    here = out[rows, columns]
                    assert tile.shape == (*here.shape, 3)
                    assert (tile == tile[..., :1]).all() or not grey
                    here[...] = np.rint(tile.mean(2))
                    seen += 1
            levels.append(out)
        if not self.row_groups:
            there = list((self.folder / "pyramid_images" / f"{channel}_files").rglob("*.webp"))
            assert len(there) == seen
        return levels

    def _image_tile(self, channel, level, column, row):
        if not self.row_groups:
            path = self.folder / f"pyramid_images/{channel}_files/{level}/{column}_{row}.webp"
            return np.asarray(Image.open(path).convert("RGB"))
        entry = self.parameters["row_group_files"]["images"][channel]
        info = entry["zoom_info"][str(level)]
        group = info["row_group_offset"] + column * info["num_tiles_y"] + row
        number, inner = divmod(group, entry["max_row_groups_per_file"])
        table = pq.ParquetFile(self.folder / entry["directory"] / entry["files"][number]).read_row_group(inner)
        (found,) = table.to_pylist()
        assert (found["zoom"], found["tile_x"], found["tile_y"]) == (level, column, row)
        return np.asarray(Image.open(io.BytesIO(found["image_data"])).convert("RGB"))


# --- what a bundle should become


def spelled(matrix):
    """float64 (3, 3) of a truth's matrix: numbers as their shortest text says."""
    return np.array([[float(str(value)) for value in row] for row in matrix])[np.ix_([0, 1, 3], [0, 1, 3])]


def pixels_of(to_px, points):
    """float64 (n, 2), summed in this order."""
    x, y = np.asarray(points).astype(np.float64).reshape(-1, 2).T
    return np.column_stack([row[0] * x + row[1] * y + row[2] for row in to_px[:2]])


def centroid(ring):
    """Of the area inside a ring of floats (n, 2), by the usual formula in exact fractions of its corner."""
    x, y = (np.append(axis, axis[0]) - axis[0] for axis in np.asarray(ring, np.float64).T)
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    if not cross.sum():
        return None
    middle = np.array([((axis[:-1] + axis[1:]) * cross).sum() / (3 * cross.sum()) for axis in (x, y)])
    return middle + np.asarray(ring, np.float64)[0]


def wheel(share, name=""):
    """A colour of the original's wheel."""
    if "Blank" in name:
        return "#FFFFFF"
    return "#" + "".join(f"{int(part * 255):02x}" for part in colorsys.hsv_to_rgb(share, 0.65, 0.9))


def eight_bit(pixels, brightest=None):
    """What the front-end is meant to show: float32 all the way, cut off."""
    if brightest is None:
        sample = pixels[::8, ::8]
        brightest = np.percentile(sample[sample > 0], 99.9) if sample.any() else 65535 / 5
    limit = np.float32(5 * brightest)
    return (np.clip(pixels.astype(np.float32), 0, limit) / limit * np.float32(255)).astype(np.uint8)


def pyramid(level):
    """Every level, coarsest first."""
    found = [level]
    while max(level.shape) > 1:
        odd = np.pad(level, [(0, size % 2) for size in level.shape], mode="edge").astype(int)
        level = ((odd[::2, ::2] + odd[1::2, ::2] + odd[::2, 1::2] + odd[1::2, 1::2] + 2) >> 2).astype(np.uint8)
        found.append(level)
    return found[::-1]


@dataclass
class Meant:
    """What a bundle should become; rows and options as of `Truth` and `atlaswriter.landscape`."""

    truth: Truth
    to_px: np.ndarray | None = None
    tile_size: int = 250
    min_qv: float | None = None
    drop_controls: bool = False
    genes: list[str] | None = None
    region: tuple[float, float, float, float] | None = None
    image_max: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        truth = self.truth
        self.to_px = spelled(truth.matrix) if self.to_px is None else np.asarray(self.to_px, np.float64)
        self.rows, self.columns = (slice(0, size) for size in truth.pixels.shape[1:])
        self.size = None
        if self.region is not None:
            x0, y0, x1, y1 = self.region
            corners = pixels_of(self.to_px, [(x0, y0), (x1, y0), (x0, y1), (x1, y1)])
            size = truth.pixels.shape[:0:-1]
            low = np.clip(np.floor(corners.min(0)).astype(int), 0, size)
            high = np.clip(np.ceil(corners.max(0)).astype(int), 0, size)
            self.columns, self.rows = (slice(a, b) for a, b in zip(low, high, strict=True))
            self.size = high - low
            self.to_px = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]]) @ self.to_px
        wanted = [
            k
            for k, name in enumerate(truth.features)
            if (self.genes is None or name in self.genes) and not (self.drop_controls and name in CONTROLS)
        ]
        unique = []
        for name in truth.features:
            again = sum(other == name or other.startswith(f"{name}_") for other in unique)
            unique.append(f"{name}_{again}" if name in unique else name)
        names = [unique[k].translate(ASKABLE) for k in wanted]
        assert len(set(names)) == len(names)
        self.gene_names = sorted(names)
        self.gene_columns = [wanted[names.index(name)] for name in self.gene_names]
        self.colors = [wheel(k / len(truth.features), unique[k]) for k in self.gene_columns]
        # Transcripts of a name that comes again are those of the first feature.
        first = [truth.features.index(name) for name in truth.features]
        self.gene_ids = np.array([self.gene_columns.index(k) if k in self.gene_columns else -1 for k in first])
        self._cells()

    def _cells(self):
        px = np.rint(pixels_of(self.to_px, self.truth.xy) * 100) / 100
        kept = range(len(px)) if self.size is None else np.flatnonzero(((px >= 0) & (px < self.size)).all(1))
        self.cell_rows = sorted(kept, key=lambda k: self.truth.cells[k].encode())
        self.cells = [self.truth.cells[k] for k in self.cell_rows]
        self.cell_xy = np.rint(px[self.cell_rows] * 100).astype(np.int64)

    def transcripts(self):
        """By tile: int64 (n, 3), in the order of the source."""
        truth = self.truth
        px = pixels_of(self.to_px, truth.points)
        keep = self.gene_ids[truth.gene] >= 0
        if self.min_qv is not None:
            keep &= truth.qv >= self.min_qv
        if self.size is not None:
            keep &= ((px >= 0) & (px < self.size)).all(1)
        xy = np.rint(px * 100).astype(np.int64)[keep]
        rows = np.column_stack([self.gene_ids[truth.gene][keep], xy])
        tiles = xy // (100 * self.tile_size)
        found = {}
        for tile in {tuple(tile) for tile in tiles.tolist()}:
            found[tile] = rows[(tiles == tile).all(1)]
        return found

    def outlines(self):
        """By tile: cell ids and rings, ascending."""
        found = {}
        for cell, row in enumerate(self.cell_rows):
            px = pixels_of(self.to_px, self.truth.rings[row])
            middle = centroid(px)
            tile = tuple(np.floor(middle / self.tile_size).astype(int).tolist())
            found.setdefault(tile, []).append((cell, np.rint(px * 100).astype(np.int64)))
        return found

    def counts(self):
        """int64 (cells, genes), by ids."""
        return self.truth.counts[np.ix_(self.cell_rows, self.gene_columns)].astype(np.int64)

    def clusters(self):
        """As of `Written.clusters`."""
        labels = [self.truth.clusters[row] for row in self.cell_rows]
        sizes = Counter(label for label in labels if label is not None)
        order = sorted(sizes, key=lambda label: (-sizes[label], labels.index(label)))
        return labels, [(label, wheel(k / len(order)), sizes[label]) for k, label in enumerate(order)]

    def statistics(self):
        """float64 (genes, 4): mean, std, max, non-zero."""
        counts = self.counts().astype(np.float64)
        return np.column_stack([counts.mean(0), counts.std(0), counts.max(0), (counts > 0).mean(0)])

    def signatures(self):
        """Names of genes, and mean counts of clusters by label, in order."""
        labels = np.array([str(label) for label in self.clusters()[0]])
        genes = [k for k, name in enumerate(self.gene_names) if not any(part in name for part in NO_SIGNATURE)]
        counts = self.counts()[:, genes]
        known = sorted(label for label, _, _ in self.clusters()[1])
        return [self.gene_names[k] for k in genes], {label: counts[labels == label].mean(0) for label in known}

    def image(self, channel):
        """Levels of a channel, by number."""
        own = self.image_max.get(KEYS[channel]) or (self.truth.lut[channel] if self.truth.lut else None)
        return pyramid(eight_bit(self.truth.pixels[channel][self.rows, self.columns], own))


def assert_lossless(folder, meant, *, images=True):
    """Everything of an export is what was meant, and nothing else is there."""
    found = Written(folder)
    names, xy = found.cells
    assert names == meant.cells
    np.testing.assert_array_equal(xy, meant.cell_xy)
    assert found.genes == meant.gene_names
    points = meant.transcripts()
    if found.row_groups:
        points = {tile: rows for tile, rows in points.items() if min(tile) >= 0}
    assert found.transcripts.keys() == points.keys()
    for tile, rows in points.items():
        np.testing.assert_array_equal(found.transcripts[tile], rows)
    rings = meant.outlines()
    if found.row_groups:
        rings = {tile: rows for tile, rows in rings.items() if min(tile) >= 0}
    assert found.outlines.keys() == rings.keys()
    for tile, expected in rings.items():
        assert [cell for cell, _ in found.outlines[tile]] == [cell for cell, _ in expected]
        for (_, ring), (_, other) in zip(found.outlines[tile], expected, strict=True):
            np.testing.assert_array_equal(ring, other)
    assert_counts(found, meant)
    assert_tables(found, meant)
    assert_parameters(found, meant)
    for channel in range(len(meant.truth.pixels)) if images else ():
        for ours, other in zip(found.image(KEYS[channel]), meant.image(channel), strict=True):
            np.testing.assert_array_equal(ours, other)
    return found


def assert_counts(found, meant):
    """A file, or a row group, for every gene that was counted, its cells ascending."""
    counts, expected = found.counts, meant.counts()
    assert set(counts) == {name for name, column in zip(meant.gene_names, expected.T, strict=True) if column.any()}
    for name, column in zip(meant.gene_names, expected.T, strict=True):
        if column.any():
            cells, values = counts[name]
            np.testing.assert_array_equal(cells, np.flatnonzero(column))
            np.testing.assert_array_equal(values, column[column > 0])


def assert_tables(found, meant):
    """Statistics, clusters and signatures."""
    table = found.table("meta_gene.parquet")
    assert table.column_names == ["mean", "std", "max", "non-zero", "color", INDEX]
    ours = np.column_stack([table[name].to_numpy() for name in ("mean", "std", "max", "non-zero")])
    np.testing.assert_allclose(ours, meant.statistics(), rtol=1e-12, atol=1e-14)
    assert table["color"].to_pylist() == meant.colors
    assert found.clusters == meant.clusters()
    genes, means = meant.signatures()
    table = found.table("df_sig.parquet")
    assert table.column_names == [*means, INDEX]
    assert table[INDEX].to_pylist() == genes
    for label, values in means.items():
        np.testing.assert_allclose(table[label].to_numpy(), values, rtol=1e-12, atol=0)


def assert_parameters(found, meant):
    """What the front-end starts from, and both files of the transform."""
    told = found.parameters
    n_channels = len(meant.truth.pixels)
    assert (told["technology"], told["tile_size"], told["use_int_index"]) == ("Xenium", meant.tile_size, True)
    assert [info["name"] for info in told["image_info"]] == list(KEYS[:n_channels])
    assert [info["button_name"] for info in told["image_info"]] == [key.upper() for key in KEYS[:n_channels]]
    assert told["image_format"] == ".webp"
    for name in ("micron_to_image_transform.csv", "xenium_transform.csv"):
        np.testing.assert_array_equal(np.loadtxt(found.folder / name), meant.to_px)
    if found.row_groups:
        grid = told["tile_grid"]
        reach = [meant.columns.stop - meant.columns.start, meant.rows.stop - meant.rows.start]
        tiles = [*meant.transcripts(), *meant.outlines()]
        for axis, n_tiles in enumerate((grid["num_tiles_x"], grid["num_tiles_y"])):
            far = max([0, *(tile[axis] for tile in tiles)])
            assert n_tiles == max(far + 1, -(-reach[axis] // meant.tile_size))


# --- changing a bundle


def put_transcripts(truth, points, gene=None, qv=None, row_group=1000):
    """The bundle with other transcripts, in microns; what it should become is in the result."""
    points = np.asarray(points)
    n = len(points)
    gene = np.arange(n) % len(truth.features) if gene is None else np.asarray(gene)
    qv = np.full(n, 30, np.float32) if qv is None else np.asarray(qv, np.float32)
    table = {"feature_name": pa.array([truth.features[k] for k in gene], pa.string())}
    table |= {"x_location": points[:, 0], "y_location": points[:, 1], "qv": qv}
    pq.write_table(pa.table(table), truth.folder / "transcripts.parquet", row_group_size=row_group)
    return changed(truth, gene=gene, points=points, qv=qv, owner=np.full(n, -1))


def put_outlines(truth, rings, names=None):
    """The bundle with other outlines, in microns."""
    names = truth.cells if names is None else names
    rows = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    x, y = np.concatenate([np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]).T
    columns = {"cell_id": pa.array([names[k] for k in rows], pa.string()), "vertex_x": x, "vertex_y": y}
    pq.write_table(pa.table(columns), truth.folder / "cell_boundaries.parquet", row_group_size=1000)
    return changed(truth, rings=list(rings))


def put_cells(truth, xy):
    """The bundle with cells elsewhere, in microns."""
    table = pa.table({"cell_id": truth.cells, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1]})
    pq.write_table(table, truth.folder / "cells.parquet")
    return changed(truth, xy=np.asarray(xy))


def put_transform(truth, matrix):
    """The bundle, made with ``transform="csv"``, with another transform."""
    lines = (" ".join(repr(float(value)) for value in row) for row in matrix)
    (truth.folder / "micron_to_image_transform.csv").write_text("\n".join(lines) + "\n")


def changed(truth, **parts):
    return Truth(**{**vars(truth), **parts})
