"""Data sets put together around an AnnData: what is found by its usual name, and what is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from scipy import sparse

from atlaswriter.errors import InputError
from atlaswriter.sources.annotated import stored_texts
from atlaswriter.sources.generic import open_generic
from atlaswriter.sources.tree import Node

# anndata announces its next default formats.
pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:Writing zarr v2")

CELLS = ["c1", "c2", "c3"]


def made(**parts):
    obs = pd.DataFrame(
        {
            "leiden": pd.Categorical(["b", None, "a"], categories=["a", "b", "z"]),
            "louvain": [3, 1, 3],
            "score": [0.5, 1.5, np.nan],
            "CenterX_global_px": [1.0, 2, 3],
            "CenterY_global_px": [4.0, 5, 6],
        },
        index=CELLS,
    )
    var = pd.DataFrame({"feature_types": ["Gene Expression", "Negative Control"]}, index=["A", "B"])
    x = sparse.csr_matrix(np.array([[1, 0], [0, 2], [3, 0]], np.float32))
    parts.setdefault("obsm", {"spatial": np.array([[10.0, 20, 1], [30, 40, 1], [50, 60, 1]])})
    return ad.AnnData(x, obs, var, uns={"leiden_colors": ["#FF0000", "#00ff00ff", "blue"]}, **parts)


@pytest.fixture(params=["object", "h5ad", "zarr"])
def given(request, tmp_path):
    """The same AnnData in every form."""

    def stored(adata):
        path = tmp_path / f"cells.{request.param}"
        if request.param == "object":
            return adata
        (adata.write_h5ad if request.param == "h5ad" else adata.write_zarr)(path)
        return path

    return stored


def test_cells_counts_and_clusters(given):
    found = open_generic(given(made()), clusters="leiden", pixel_size=0.5)
    segmentation = found.segmentation
    assert segmentation.cells.names.to_pylist() == CELLS
    assert (segmentation.cells.x.tolist(), segmentation.cells.y.tolist()) == ([10, 30, 50], [20, 40, 60])
    counts = segmentation.counts
    assert (counts.features, counts.types) == (["A", "B"], ["Gene Expression", "Negative Control"])
    assert counts.matrix.data[:].tolist() == [1, 2, 3]
    assert segmentation.clusters.labels.to_pylist() == ["b", None, "a"]
    # As far as they are hexadecimal.
    assert segmentation.clusters.colors == {"a": "#ff0000", "b": "#00ff00"}
    assert found.to_px.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert (found.technology, found.transcripts, found.planes) == ("Xenium", None, [])
    found.close()


def test_integers_are_labels_and_other_numbers_are_not(given):
    data = given(made())
    assert open_generic(data, clusters="louvain").segmentation.clusters.labels.to_pylist() == ["3", "1", "3"]
    with pytest.raises(InputError, match=r"obs\['score'\]: holds numbers that are no labels"):
        open_generic(data, clusters="score")


def test_names_may_be_categorical_or_nullable(tmp_path):
    adata = made()
    path = tmp_path / "cells.h5ad"
    adata.obs.index = pd.CategoricalIndex(["x", "y", "z"])
    adata.write_h5ad(path)
    assert open_generic(path).segmentation.cells.names.to_pylist() == ["x", "y", "z"]


def test_stored_names_of_every_kind():
    root = zarr.open_group({}, mode="w")
    root["numbers"] = np.array([2**62 + 1, 3])
    root["codes"], root["categories"] = np.array([1, 0, 1], np.int8), np.array([5, 6])
    root["values"], root["mask"] = np.array([7, 8]), np.array([False, False])
    assert stored_texts(Node(root["numbers"], "here"), "names").to_pylist() == [str(2**62 + 1), "3"]
    assert stored_texts(Node(root, "here"), "names").to_pylist() == ["6", "5", "6"]
    del root["codes"]
    assert stored_texts(Node(root, "here"), "names").to_pylist() == ["7", "8"]
    root["mask"][0] = True
    with pytest.raises(InputError, match="names: has missing values"):
        stored_texts(Node(root, "here"), "names")
    root["codes"] = np.array([0, -1], np.int8)
    with pytest.raises(InputError, match="has missing values, or is damaged"):
        stored_texts(Node(root, "here"), "names")
    root["floats"] = np.array([0.5])
    with pytest.raises(InputError, match="neither text nor integers"):
        stored_texts(Node(root["floats"], "here"), "names")


@pytest.mark.parametrize(
    ("positions", "expected"),
    [("spatial", [10, 30, 50]), (("CenterX_global_px", "CenterY_global_px"), [1, 2, 3]), (("louvain", "score"), None)],
)
def test_positions_may_be_named(given, positions, expected):
    if expected is None:
        with pytest.raises(InputError, match=r"obs\['louvain', 'score'\]: 1 of 3 cells have no finite position"):
            open_generic(given(made()), positions=positions)
    else:
        assert open_generic(given(made()), positions=positions).segmentation.cells.x.tolist() == expected


def test_positions_in_obs_are_found_by_name(given):
    assert open_generic(given(made(obsm={}))).segmentation.cells.y.tolist() == [4, 5, 6]


def nowhere():
    adata = made(obsm={})
    del adata.obs["CenterX_global_px"]
    return adata


def test_data_that_is_not_spatial(given):
    found = open_generic(given(nowhere()))
    assert found.technology == "Chromium"
    assert (found.segmentation.cells.x.tolist(), found.segmentation.cells.y.tolist()) == ([0] * 3, [0] * 3)
    assert found.to_px.tolist() == np.eye(3).tolist()


def test_layers_and_raw(given):
    adata = made(layers={"counts": np.arange(6.0).reshape(3, 2)})
    adata.raw = adata[:, ["A"]].copy()
    data = given(adata)
    assert open_generic(data, layer="counts").segmentation.counts.where == "layers['counts']"
    assert open_generic(data, raw=True).segmentation.counts.features == ["A"]


@pytest.fixture
def transcripts(tmp_path):
    """A table with columns of such names."""

    def write(suffix="csv", **names):
        columns = {
            "fov": [1, 1],
            **{name: [[5, 7], [1.5, 2], [3.0, 4]][i % 3] for i, name in enumerate(names.values())},
        }
        path = tmp_path / f"tx.{suffix}"
        (pq.write_table if suffix == "parquet" else pyarrow.csv.write_csv)(pa.table(columns), path)
        return path

    return write


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        ({"gene": "feature_name", "x": "x_location", "y": "y_location", "quality": "qv"}, "parquet"),
        ({"gene": "gene", "x": "global_x", "y": "global_y"}, "csv"),
        ({"gene": "target", "x": "x_global_px", "y": "y_global_px"}, "csv"),
    ],
)
def test_transcripts_of_usual_names(transcripts, names, suffix):
    table = open_generic(made(), transcripts=transcripts(suffix, **names)).transcripts
    assert (table.gene, table.x, table.y, table.quality) == (*list(names.values())[:3], names.get("quality"))
    (batch,) = table.table.batches(0, [table.gene, table.x])
    # Even if they are numbers.
    assert batch.column(0).to_pylist() == ["5", "7"]
    assert batch.column(1).to_pylist() == [1.5, 2]


def test_transcripts_of_other_names(transcripts):
    path = transcripts(gene="probe", x="col", y="row")
    table = open_generic(made(), transcripts=path, gene="probe", x="col", y="row").transcripts
    assert (table.gene, table.x, table.y) == ("probe", "col", "row")
    with pytest.raises(InputError) as caught:
        open_generic(made(), transcripts=path, quality="qv")
    text = str(caught.value)
    assert "no column for the gene such as 'feature_name', 'gene', 'target'" in text
    assert "no column for x" in text
    assert "has no column 'qv' → name one of its columns: 'fov', 'probe', 'col', 'row'" in text


def test_polygons_and_images(tmp_path):
    pq.write_table(pa.table({"cell": ["c1"] * 3, "x": [0.0, 1, 0], "y": [0.0, 0, 1]}), tmp_path / "vertices.parquet")
    for name in ("one", "two"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((6, 8), np.uint16))
    found = open_generic(
        made(),
        polygons=tmp_path / "vertices.parquet",
        images=[tmp_path / "one.tif", tmp_path / "two.tif"],
        channels=["dapi", "bound"],
        transform=[[2, 0, 1], [0, 2, 1], [0, 0, 1]],
        technology="MERSCOPE",
    )
    assert [plane.key for plane in found.planes] == ["dapi", "bound"]
    assert sum(len(rings.names) for rings in found.segmentation.outlines.batches()) == 1
    assert (found.technology, found.to_px[0].tolist()) == ("MERSCOPE", [2, 0, 1])


def test_the_matrix_may_be_in_a_file(tmp_path):
    (tmp_path / "m.csv").write_text("1,0,5\n0,1,6\n0,0,1\n")
    assert open_generic(made(), transform=tmp_path / "m.csv").to_px[:2, 2].tolist() == [5, 6]


def test_everything_wrong_is_named_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        open_generic(
            nowhere(), layer="counts", clusters="gone", transcripts=tmp_path / "tx.csv",
            polygons=tmp_path / "poly.parquet",
            images=tmp_path / "image.tif", pixel_size=0,
        )  # fmt: skip
    for part in (
        "layers['counts']",
        "obs['gone']",
        "tx.csv",
        "poly.parquet",
        "image.tif",
        "pixel_size: is 0",
        "positions:",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda adata: setattr(adata, "obs_names", ["a", "a", "b"]), "1 names belong to several cells"),
        (lambda adata: adata.obsm.update(spatial=np.full((3, 2), np.nan)), "3 of 3 cells have no finite position"),
        (lambda adata: adata.obsm.update(spatial=np.zeros((3, 1))), "less than two columns"),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names")
def test_bad_cells_are_refused(given, change, message):
    adata = made()
    change(adata)
    with pytest.raises(InputError, match=message):
        open_generic(given(adata))


def test_matrix_and_pixel_size_exclude_each_other():
    with pytest.raises(InputError, match="transform: is given beside pixel_size"):
        open_generic(made(), pixel_size=1, transform=np.eye(3))
