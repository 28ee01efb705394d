"""SpatialData stores, written here by hand as spatialdata 0.7 and its older formats lay them out."""

import json
import struct

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from scipy import sparse

from atlaswriter.errors import InputError
from atlaswriter.sources.ngff import to_system
from atlaswriter.sources.spatialdata import is_spatialdata, open_spatialdata

# anndata announces its next default formats.
pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:Writing zarr v2")

NAMES = ["c1", "c2", "c3"]
IDENTITY = {"type": "identity"}


def square(x, y, size=2.0):
    ring = np.array([(x, y), (x + size, y), (x + size, y + size), (x, y + size), (x, y)], "<f8")
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + ring.tobytes()


def point(x, y):
    return struct.pack("<BI2d", 1, 1, x, y)


def axes(names):
    return {"name": names, "axes": [{"name": each, "type": "space"} for each in names]}


def to(transformation, names="xy", system="global"):
    """A transformation of an element to a coordinate system."""
    return {**transformation, "input": axes(names), "output": {**axes(names), "name": system}}


def scale(factor):
    return {"type": "scale", "scale": [factor, factor]}


class Store:
    """A store on its way."""

    def __init__(self, path, version=3):
        self.path = path
        self.root = zarr.open_group(path, mode="w", zarr_format=version)
        self.version = version

    def element(self, kind, name, **attributes):
        group = self.root.require_group(kind).require_group(name)
        group.attrs.update(attributes)
        return self.path / kind / name

    def table(self, name="table", region="cells", names=NAMES, group="tables", obsm=None):
        obs = pd.DataFrame(
            {"region": pd.Categorical(["cells"] * 3), "instance": names, "leiden": pd.Categorical(["a", "b", "a"])},
            index=["r1", "r2", "r3"],
        )
        x = sparse.csr_matrix(np.array([[1, 0], [0, 2], [3, 0]], np.float32))
        adata = ad.AnnData(
            x, obs, pd.DataFrame(index=["A", "B"]), obsm=obsm or {}, uns={"leiden_colors": ["#010203", "#040506"]}
        )
        parent = self.root.require_group(group)
        ad.io.write_elem(parent, name, adata)
        parent[name].attrs.update({"region": region, "region_key": "region", "instance_key": "instance"})
        return self

    def points(self, name="transcripts", transformation=None, feature="gene", parts=2):
        attributes = {"spatialdata_attrs": {"feature_key": feature, "version": "0.2"}}
        given = [to(transformation or scale(4.0))]
        folder = self.element("points", name, coordinateTransformations=given, axes=["x", "y"], **attributes)
        folder = folder / "points.parquet"
        folder.mkdir()
        for part in range(parts):
            table = {"x": [1.0 + part, 2], "y": [3.0, 4], "gene": pa.array(["B", "A"]).dictionary_encode()}
            pq.write_table(pa.table(table), folder / f"part.{part}.parquet")
        return self

    def shapes(self, name="cells", transformation=None, rows=None, system="global"):
        rows = rows or {"geometry": [square(10, 20), square(30, 40), square(50, 60)]}
        given = [to(transformation or scale(4.0), system=system)]
        folder = self.element("shapes", name, coordinateTransformations=given, axes=["x", "y"])
        table = pa.Table.from_pandas(pd.DataFrame(rows, index=NAMES))
        geo = {"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
        table = table.replace_schema_metadata({**table.schema.metadata, b"geo": json.dumps(geo)})
        pq.write_table(table, folder / "shapes.parquet")
        return self

    def image(self, name="morphology_focus", transformation=None):
        given = to(transformation or {"type": "scale", "scale": [1.0, 2.0, 2.0]}, "cyx")
        multiscales = {
            "axes": axes("cyx")["axes"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}],
            "coordinateTransformations": [given],
            "version": "0.4",
        }
        told = {"multiscales": [multiscales], "omero": {"channels": [{"label": "DAPI"}, {"label": "Poly T"}]}}
        self.element("images", name, **({"ome": {**told, "version": "0.5"}} if self.version == 3 else told))
        pixels = np.arange(2 * 6 * 8, dtype=np.uint16).reshape(2, 6, 8)
        array = self.root[f"images/{name}"].create_array("0", shape=pixels.shape, chunks=(1, 4, 4), dtype=pixels.dtype)
        array[...] = pixels
        return self


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    return Store(tmp_path / "data.zarr", request.param)


@pytest.fixture
def new(tmp_path):
    return Store(tmp_path / "data.zarr")


def test_a_store(store):
    store.table().points().shapes().image()
    found = open_spatialdata(store.path, clusters="leiden")
    # Coordinates are those of the points: 4 to the global system, of which 2 are a pixel.
    assert found.to_px.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
    segmentation = found.segmentation
    assert segmentation.cells.names.to_pylist() == NAMES
    assert (segmentation.cells.x.tolist(), segmentation.cells.y.tolist()) == ([11, 31, 51], [21, 41, 61])
    assert segmentation.counts.cells.to_pylist() == NAMES
    assert segmentation.counts.features == ["A", "B"]
    assert segmentation.clusters.labels.to_pylist() == ["a", "b", "a"]
    assert segmentation.clusters.colors == {"a": "#010203", "b": "#040506"}
    (rings,) = segmentation.outlines.batches()
    assert (rings.names.to_pylist(), rings.x[:3].tolist()) == (NAMES, [10, 12, 12])
    table = found.transcripts
    assert (table.gene, table.x, table.y, table.table.n_rows) == ("gene", "x", "y", 4)
    batches = [batch for part in range(table.table.n_parts) for batch in table.table.batches(part, ["x", "gene"])]
    assert [batch.column(0).to_pylist() for batch in batches] == [[1, 2], [2, 2]]
    assert [(plane.key, plane.label) for plane in found.planes] == [("dapi", "DAPI"), ("poly_t", "Poly T")]
    assert found.planes[1].pixels[4:6, 3:8].tolist() == np.arange(96).reshape(2, 6, 8)[1, 4:, 3:].tolist()
    assert (found.technology, found.warnings) == ("Xenium", [])
    found.close()


def test_a_store_is_known_by_its_elements(store):
    assert not is_spatialdata(store.path)
    store.table()
    assert is_spatialdata(store.path)
    assert not is_spatialdata(store.path / "tables" / "table")
    assert not is_spatialdata(store.path.parent)


def test_elements_meet_in_the_coordinate_system(new):
    turned = {"type": "affine", "affine": [[0.0, -4.0, 8.0], [4.0, 0.0, 12.0]]}
    new.table().points().shapes(transformation=turned)
    found = open_spatialdata(new.path)
    # Shapes come to the coordinates of the points: by (-y + 2, x + 3).
    assert found.segmentation.cells.x.tolist() == [2 - 21, 2 - 41, 2 - 61]
    assert found.segmentation.cells.y.tolist() == [11 + 3, 31 + 3, 51 + 3]
    (rings,) = found.segmentation.outlines.batches()
    assert (rings.x[:2].tolist(), rings.y[:2].tolist()) == ([-18, -18], [13, 15])
    # No image: pixels are the coordinate system's.
    assert found.to_px.tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 1]]


def test_rows_of_a_table_come_in_their_own_order(new):
    found = open_spatialdata(new.table(names=NAMES[::-1]).shapes().path)
    assert found.segmentation.cells.names.to_pylist() == NAMES[::-1]
    assert found.segmentation.cells.x.tolist() == [51, 31, 11]
    assert found.transcripts is None


def test_circles_place_cells_whose_boundaries_are_drawn(new):
    circles = {"geometry": [point(1, 2), point(3, 4), point(5, 6)], "radius": [1.0, 1.0, 2.0]}
    new.table(region="cell_circles").shapes("cell_circles", rows=circles)
    found = open_spatialdata(new.path)
    (rings,) = found.segmentation.outlines.batches()
    assert (len(rings.names), len(rings.x)) == (3, 96)
    new.shapes("cell_boundaries")
    found = open_spatialdata(new.path)
    assert found.segmentation.cells.x.tolist() == [1, 3, 5]
    (rings,) = found.segmentation.outlines.batches()
    assert len(rings.x) == 15


def test_a_table_of_labels_takes_the_positions_of_boundaries(new):
    found = open_spatialdata(new.table(region="cell_labels").shapes("cell_boundaries").path)
    assert found.segmentation.cells.x.tolist() == [11, 31, 51]
    assert found.warnings == []


def test_positions_of_the_table_where_shapes_lack_cells(new):
    new.table(names=["c1", "c2", "other"], obsm={"spatial": np.array([[1.0, 2], [3, 4], [5, 6]])}).shapes()
    found = open_spatialdata(new.path)
    assert found.segmentation.cells.x.tolist() == [1, 3, 5]
    assert "1 of 3 cells are not in shapes/cells" in found.warnings[0]
    assert "cells are placed by obsm['spatial']" in found.warnings[1]


def test_the_first_releases_have_one_table(new):
    assert open_spatialdata(new.table(group="table").shapes().path).segmentation.cells.x.tolist() == [11, 31, 51]


def test_readers_tell_the_technology(new):
    new.table().shapes().root.attrs["spatialdata_io_reader"] = "merscope"
    assert open_spatialdata(new.path).technology == "MERSCOPE"
    assert open_spatialdata(new.path, technology="Xenium").technology == "Xenium"


def test_several_candidates_are_listed_at_once(new):
    new.table("one").table("two").points("p").points("q").image("i").image("j").shapes("s").shapes("t")
    with pytest.raises(InputError) as caught:
        open_spatialdata(new.path)
    for part in (
        "table → choose one of 'one', 'two'",
        "points → choose one of 'p', 'q'",
        "image → choose one of 'i', 'j'",
    ):
        assert part in str(caught.value)
    chosen = {"table": "one", "points": "q", "image": "j"}
    with pytest.raises(InputError, match="several candidates for shapes → choose one of 's', 't'"):
        open_spatialdata(new.path, **chosen)
    assert open_spatialdata(new.path, **chosen, shapes="t").segmentation.cells.x.tolist() == [11, 31, 51]
    with pytest.raises(InputError, match="has no points 'r' → choose one of 'p', 'q'"):
        open_spatialdata(new.path, **{**chosen, "points": "r"})


REFUSED = {
    "no table": (lambda new: new.shapes(), "has no tables; it holds 'shapes'"),
    "several regions": (lambda new: new.table(region=["a", "b"]).shapes(), "annotates several regions: 'a', 'b'"),
    "no positions": (lambda new: new.table(), "neither shapes nor positions"),
    "another system": (lambda new: new.table().shapes(system="aligned"), r"is not in .* 'global' → .*: 'aligned'"),
    "twice": (lambda new: new.table(names=["c1", "c1", "c2"]).shapes(), "1 names belong to several cells"),
    "unknown": (lambda new: new.table().shapes(transformation={"type": "byDimension"}), "of type 'byDimension'"),
    "flat": (lambda new: new.table().shapes(transformation=scale(0.0)), "no invertible affine matrix"),
    "damaged": (lambda new: new.table().shapes(transformation={"type": "scale", "scale": "x"}), "cannot be read"),
    "no feature": (lambda new: new.table().shapes().points(feature="target"), "has no column 'target'"),
    "cut short": (
        lambda new: new.table().shapes(rows={"geometry": [square(1, 2)[:-1]] * 3}),
        "shapes/cells .*cut short",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused(new, what):
    make, message = REFUSED[what]
    make(new)
    with pytest.raises(InputError, match=message):
        open_spatialdata(new.path)


def test_older_shapes_are_refused(new):
    new.table().shapes()
    (new.path / "shapes" / "cells" / "shapes.parquet").unlink()
    with pytest.raises(InputError, match=r"shapes/cells: has no shapes\.parquet → read and write"):
        open_spatialdata(new.path)


def test_only_folders_are_read(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        open_spatialdata(tmp_path / "gone.zarr")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it first"):
        open_spatialdata(tmp_path / "data.zip")
    with pytest.raises(InputError):
        open_spatialdata(tmp_path)


TRANSFORMATIONS = {
    "identity": (IDENTITY, np.eye(3)),
    "scale": ({"type": "scale", "scale": [2.0, 3.0]}, np.diag([2, 3, 1])),
    "translation": ({"type": "translation", "translation": [2.0, 3.0]}, [[1, 0, 2], [0, 1, 3], [0, 0, 1]]),
    "rotation": ({"type": "rotation", "rotation": [[0.0, -1.0], [1.0, 0.0]]}, [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "affine": ({"type": "affine", "affine": [[1.0, 2, 3], [4, 5, 6]]}, [[1, 2, 3], [4, 5, 6], [0, 0, 1]]),
    "axes": ({"type": "mapAxis", "mapAxis": {"x": "y", "y": "x"}}, [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    "sequence": (
        {"type": "sequence", "transformations": [
            {"type": "scale", "scale": [2.0, 3.0], "input": axes("yx"), "output": axes("yx")},
            {"type": "translation", "translation": [5.0, 7.0], "input": axes("xy"), "output": axes("xy")},
        ]},
        [[3, 0, 5], [0, 2, 7], [0, 0, 1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRANSFORMATIONS)
def test_transformations(kind):
    given, expected = TRANSFORMATIONS[kind]
    assert to_system([to(given)], "xy", "global", "here").tolist() == np.array(expected).tolist()
    # By axes that the element tells, where the transformation tells none.
    bare = {**given, "output": {"name": "global"}}
    assert to_system([bare], "xy", "global", "here").tolist() == np.array(expected).tolist()


def test_axes_beside_the_plane_are_left_out_or_refused():
    rows = [[1.0, 0, 0, 0], [0, 2, 0, 3], [0, 0, 4, 5]]
    affine = to({"type": "affine", "affine": rows}, "cyx")
    assert to_system([affine], "cyx", "global", "here").tolist() == [[4, 0, 5], [0, 2, 3], [0, 0, 1]]
    rows[2][0] = 1.0
    with pytest.raises(InputError, match="mixes x and y with other axes"):
        to_system([affine], "cyx", "global", "here")


@pytest.mark.parametrize(
    "given",
    [None, [], {}, [{}], "x", [{"output": {"name": "global"}}], [{"type": "scale", "output": {"name": "global"}}]],
)
def test_damaged_transformations_are_refused(given):
    with pytest.raises(InputError, match="here"):
        to_system(given, "xy", "global", "here")
