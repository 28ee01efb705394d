"""LandscapeFiles beside those that celldega 0.27.0 wrote of the same bundle (`golden/landscape`).

In both ways of storing tiles, by default and with `compat=True`, all must be the same, but for this, where the original
is wrong (numbers of the list of its defects):

4.  Loose tiles lack transcripts at the far edge of the last tile; of row groups, such are in the tile before.
5.  Loose tiles lack the outlines of cells beyond the last transcript tile; of row groups, such are in a wrong tile.
    Our grid covers image, transcripts and outlines, so it has more tiles.
14. The transform is written under the specification's name too.

Order is not compared where it is the order of the bundle's barcodes (rows of `cbg`) or of a hash.
"""

import copy
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.golden import make_landscape_golden as golden

import atlaswriter

TILE = 250
# Of the original's grid, in tiles; the last transcript is exactly on its edge.
COLUMNS, ROWS = 3, 2
# Of the whole image (830 × 560), with what lies on its edge.
ALL_COLUMNS, ALL_ROWS = 4, 3
CHANNELS = ("dapi", "bound", "rna", "prot")
ONLY_THEIRS = "vips-properties.xml"
ONLY_OURS = {"xenium_transform.csv"}
WAYS = {
    "default": {},
    "compat": {"compat": True},
    "row_groups": {"row_groups": True},
    "compat_row_groups": {"compat": True, "row_groups": True},
}


class Written:
    """What we wrote of the golden bundle, condensed like the golden files."""

    def __init__(self, folder, compat=False, row_groups=False):
        self.folder, self.compat, self.row_groups = folder, compat, row_groups
        self.golden = golden.HERE / "row_groups" if row_groups else golden.HERE
        self.parameters = json.loads((folder / "landscape_parameters.json").read_text())

    def tiles(self, loose, grouped):
        if not self.row_groups:
            return golden.loose_tiles(self.folder / loose)
        return golden.grouped_tiles(self.folder / grouped, self.parameters["tile_grid"]["num_tiles_y"])

    def transcripts(self):
        return golden.transcripts(self.tiles("transcript_tiles", "transcripts"))

    def outlines(self):
        return golden.outlines(self.tiles("cell_segmentation", "cell_segmentation"))

    def positions(self, values):
        """Positions, by default float32, with the two decimals that are meant; `compat` has exactly these."""
        return np.asarray(values) if self.compat else np.round(np.asarray(values, np.float64), 2)

    def counts(self):
        folder = self.folder / "cbg"
        if not self.row_groups:
            return golden.counts(golden.loose_genes(folder))
        return golden.counts(golden.grouped_genes(folder, self.parameters["row_group_files"]["cbg"]))

    def table(self, name):
        """A table of its own and the original's, column by column."""
        return [pq.read_table(path).to_pydict() for path in (self.folder / name, golden.HERE / name.split("/")[-1])]

    def theirs(self, name):
        """A golden table of the same way of storing tiles."""
        return pq.read_table(self.golden / name)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return golden.golden_bundle(tmp_path_factory.mktemp("bundle") / "golden")


@pytest.fixture(scope="module", params=WAYS)
def written(request, truth, tmp_path_factory):
    way = WAYS[request.param]
    out = tmp_path_factory.mktemp(request.param) / "landscape"
    atlaswriter.landscape(truth.folder, out, progress=False, **way)
    return Written(out, **way)


def columns(table, *names):
    """Columns as float64 (n, names)."""
    return np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])


def in_order(rows):
    """Rows by the tile of their first two columns, otherwise in order."""
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


def rings(table):
    """Tile and ring by cell."""
    return {row["name"]: ((row["i"], row["j"]), np.array([row["x"], row["y"]])) for row in table.to_pylist()}


def centroid(x, y):
    """Of the area inside a closed ring."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    return ((x[:-1] + x[1:]) * cross).sum() / (3 * cross.sum()), ((y[:-1] + y[1:]) * cross).sum() / (3 * cross.sum())


def test_transcripts(written, truth):
    ours = written.positions(columns(written.transcripts(), "i", "j", "name", "x", "y"))
    theirs = columns(written.theirs("transcripts.parquet"), "i", "j", "name", "x", "y")
    np.testing.assert_array_equal(ours[:, :2], ours[:, 3:] // TILE)
    edge = (ours[:, 3] >= COLUMNS * TILE) | (ours[:, 4] >= ROWS * TILE)
    assert edge.sum() == 2
    assert len(ours) == len(truth.points)
    if written.row_groups:
        moved = (theirs[:, 3] >= COLUMNS * TILE) | (theirs[:, 4] >= ROWS * TILE)
        np.testing.assert_array_equal(np.sort(theirs[moved, 2:], axis=0), np.sort(ours[edge, 2:], axis=0))
        theirs = theirs[~moved]
    np.testing.assert_array_equal(ours[~edge], in_order(theirs))


def test_transcripts_are_those_of_the_bundle(written, truth):
    names = pq.read_table(written.folder / "meta_gene.parquet")["__index_level_0__"].to_pylist()
    rank = np.array([names.index(feature) for feature in truth.features])
    points = np.round(truth.px(truth.points), 2)
    given = np.column_stack([points // TILE, rank[truth.gene], points])
    ours = columns(written.transcripts(), "i", "j", "name", "x", "y")
    np.testing.assert_array_equal(written.positions(ours), in_order(given))


def test_outlines(written, truth):
    ours, theirs = rings(written.outlines()), rings(written.theirs("outlines.parquet"))
    names = pq.read_table(written.folder / "cell_metadata.parquet")["name"].to_pylist()
    assert sorted(ours) == [*range(len(truth.cells))]
    places = {names.index(cell): truth.px(ring) for cell, ring in zip(truth.cells, truth.rings, strict=True)}
    tiles = {cell: tuple(int(c // TILE) for c in centroid(*ring.T)) for cell, ring in places.items()}
    beyond = {cell for cell, (i, j) in tiles.items() if i >= COLUMNS or j >= ROWS}
    assert len(beyond) > 10
    assert theirs.keys() == ours.keys() - (set() if written.row_groups else beyond)
    for cell, (tile, ring) in ours.items():
        assert tile == tiles[cell]
        np.testing.assert_array_equal(written.positions(ring), np.round(places[cell].T, 2))
        if cell in theirs:
            np.testing.assert_array_equal(written.positions(ring), theirs[cell][1])
            assert (tile == theirs[cell][0]) == (cell not in beyond)


def test_order_of_outlines(written):
    table = written.outlines()
    order = columns(table, "i", "j", "name")
    np.testing.assert_array_equal(order, order[np.lexsort(order.T[::-1])])


def test_cells(written):
    ours, theirs = written.table("cell_metadata.parquet")
    assert ours["name"] == theirs["name"]
    np.testing.assert_array_equal(written.positions(ours["geometry"]), theirs["geometry"])


def test_genes(written):
    ours, theirs = written.table("meta_gene.parquet")
    for name in ("__index_level_0__", "color"):
        assert ours[name] == theirs[name]
    for name in ("mean", "std", "max", "non-zero"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=0)


def test_counts(written):
    by = [("gene", "ascending"), ("cell", "ascending")]
    ours, theirs = written.counts().sort_by(by), pq.read_table(golden.HERE / "cbg.parquet").sort_by(by)
    assert ours["gene"].to_pylist() == theirs["gene"].to_pylist()
    for name in ("cell", "count"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("name", ["cluster", "meta_cluster"])
def test_clusters(written, name):
    ours, theirs = written.table(f"cell_clusters/{name}.parquet")
    assert ours == theirs


def test_signatures(written):
    ours, theirs = written.table("df_sig.parquet")
    assert [*ours] == [*theirs]
    assert ours.pop("__index_level_0__") == theirs.pop("__index_level_0__")
    for label, values in theirs.items():
        np.testing.assert_allclose(ours[label], values, rtol=1e-12, atol=0)


def test_images(written, truth):
    """One grey level off on average at most, both of the original's and of what is meant: 8 bit, halved repeatedly."""
    ours, theirs = golden.images(written.folder / "pyramid_images"), np.load(golden.HERE / "images.npz")
    assert set(ours) == {f"{channel}_{level}" for channel in CHANNELS for level in range(golden.TOP_LEVEL + 1)}
    for channel, pixels in zip(CHANNELS, truth.pixels, strict=True):
        for level, meant in zip(range(golden.TOP_LEVEL, -1, -1), pyramid(pixels), strict=False):
            name = f"{channel}_{level}"
            for other in (meant, theirs[name]) if name in theirs else (meant,):
                assert ours[name].shape == other.shape
                few = other.size < 200  # where one pixel counts for much
                assert np.abs(ours[name] - other.astype(np.float32)).mean() <= (1.5 if few else 1), name


def pyramid(pixels):
    """The full resolution in 8 bit, and its halves."""
    sample = pixels[::8, ::8]
    brightest = np.float32(5 * np.percentile(sample[sample > 0], 99.9))
    level = (np.minimum(pixels.astype(np.float32), brightest) / brightest * 255).astype(np.uint8)
    while True:
        yield level
        odd = np.pad(level, [(0, size % 2) for size in level.shape], mode="edge").astype(int)
        level = ((odd[::2, ::2] + odd[1::2, ::2] + odd[::2, 1::2] + odd[1::2, 1::2] + 2) >> 2).astype(np.uint8)


@pytest.mark.parametrize("channel", CHANNELS)
def test_descriptions_of_images(written, channel):
    ours = (written.folder / "pyramid_images" / f"{channel}.dzi").read_text()
    assert ours.split() == (golden.HERE / "dapi.dzi").read_text().split()


def test_transform(written):
    theirs = np.loadtxt(golden.HERE / "micron_to_image_transform.csv")
    for name in ("micron_to_image_transform.csv", *ONLY_OURS):
        np.testing.assert_array_equal(np.loadtxt(written.folder / name), theirs)


def test_parameters(written):
    ours = copy.deepcopy(written.parameters)
    theirs = json.loads((written.golden / "landscape_parameters.json").read_text())
    for scaling in theirs["image_scaling"]["channels"].values():
        scaling.update({name: pytest.approx(scaling[name], rel=1e-12) for name in ("lut_max", "display_max")})
    if written.row_groups:
        grid, their_grid = ours.pop("tile_grid"), theirs.pop("tile_grid")
        assert grid.keys() == their_grid.keys()
        assert (grid["num_tiles_x"], grid["num_tiles_y"], grid["tile_size"]) == (ALL_COLUMNS, ALL_ROWS, TILE)
        files, their_files = ours.pop("row_group_files"), theirs.pop("row_group_files")
        for kind in ("transcripts", "cell_segmentation"):
            assert files[kind].pop("total_row_groups") == ALL_COLUMNS * ALL_ROWS
            assert their_files[kind].pop("total_row_groups") == COLUMNS * ROWS
        if not written.compat:  # ours may list genes without counts too
            ranks, their_ranks = (found["cbg"].pop("gene_to_row_group") for found in (files, their_files))
            assert ranks.keys() >= their_ranks.keys()
            assert files["cbg"].pop("total_row_groups") >= their_files["cbg"].pop("total_row_groups")
        assert files.keys() == their_files.keys()
        theirs["row_group_files"], ours["row_group_files"] = their_files, files
    assert known(ours, theirs) == theirs


def known(ours, theirs):
    """What the original has too."""
    if not isinstance(theirs, dict):
        return ours
    return {name: known(ours[name], content) for name, content in theirs.items() if name in ours}


def test_files(written):
    if written.row_groups:
        return
    theirs = {name for name in json.loads((golden.HERE / "files.json").read_text()) if not name.endswith(ONLY_THEIRS)}
    found = {path.relative_to(written.folder).as_posix() for path in written.folder.rglob("*") if path.is_file()}
    more = found - theirs - ONLY_OURS
    assert not theirs - found
    places = {name: [*map(int, re.findall(r"\d+", name))] for name in more}
    assert all(i >= COLUMNS or j >= ROWS for i, j in places.values()), places


def test_schemas(written):
    """The same columns in the same order; of `compat` also of the same types."""
    theirs = json.loads((golden.HERE / "schemas.json").read_text())["row_groups" if written.row_groups else "loose"]
    ours = golden.schemas(written.folder)
    assert ours.keys() == theirs.keys()
    for kind, fields in theirs.items():
        if written.compat:
            assert [*ours[kind].items()] == [*fields.items()], kind
        else:
            assert ours[kind].keys() >= fields.keys(), kind


def test_nothing_is_null(written):
    """The front-end reads flat buffers: a null would move all that follows."""
    for path in written.folder.rglob("*.parquet"):
        table = pq.read_table(path)
        for name, column in zip(table.column_names, table.columns, strict=True):
            assert (path.name, name) == ("cluster.parquet", "cluster") or not nulls(column), (path, name)


def nulls(column):
    """How many there are, at any depth."""
    deeper = nulls(pc.list_flatten(column)) if pa.types.is_nested(column.type) else 0
    return column.null_count + deeper
