"""Output folders of Xenium, of every version and with every kind of file."""

import gzip
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.bundles import make_bundle
from tests.unit.test_outlines import rings_of, write_zarr
from tests.unit.test_tenx import dense

from atlaswriter.errors import InputError
from atlaswriter.sources.tables import read_all
from atlaswriter.sources.xenium import open_xenium

NAMES = ("NA", "nan", "β-catenin", 'a"b,c', "x/y", "HLA-DRA", "HLA-DRA")
CLUSTERS = "analysis/clustering/gene_expression_graphclust/clusters.csv"


def numbers_of(cells):
    """What Zarr stores hold for names of cells: those of letters are hexadecimal."""
    digits = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
    return np.array([[int(cell[:8].translate(digits), 16), 1] for cell in cells], np.uint32)


def only_zarr(truth):
    """Cells and outlines in cells.zarr.zip, clusters in analysis.zarr.zip, and nowhere else."""
    for name in ("cells.parquet", "cells.csv.gz", "cell_boundaries.parquet"):
        (truth.folder / name).unlink()
    shutil.rmtree(truth.folder / "analysis")
    sizes = np.array([len(ring) for ring in truth.rings], np.int32)
    vertices = np.zeros((len(sizes), 2 * sizes.max()), np.float32)
    for row, ring in zip(vertices, truth.rings, strict=True):
        row[: ring.size] = ring.ravel()
    summary = np.column_stack([np.zeros(len(sizes)), truth.xy])
    write_zarr(
        truth.folder / "cells.zarr.zip",
        {
            "masks/homogeneous_transform": truth.matrix,
            "cell_id": numbers_of(truth.cells),
            "cell_summary": summary,
            "polygon_sets/1/num_vertices": sizes,
            "polygon_sets/1/vertices": vertices,
            "polygon_sets/1/cell_index": np.arange(len(sizes), dtype=np.uint32),
        },
        {"cell_summary": {"column_names": ["cell_area", "cell_centroid_x", "cell_centroid_y"]}},
    )
    labels = sorted({label for label in truth.clusters if label})
    members = [[k for k, label in enumerate(truth.clusters) if label == one] for one in labels]
    starts = np.cumsum([0, *map(len, members)])[:-1].astype(np.uint32)
    write_zarr(
        truth.folder / "analysis.zarr.zip",
        {
            "cell_groups/1/indices": np.concatenate(members).astype(np.uint32),
            "cell_groups/1/indptr": starts,
            "cell_groups/0/indices": np.zeros(1, np.uint32),
            "cell_groups/0/indptr": np.zeros(1, np.uint32),
        },
        {
            "cell_groups": {
                "grouping_names": ["kmeans", "gene_expression_graphclust"],
                "group_names": [["Cluster 1"], [f"Cluster {label}" for label in labels]],
            }
        },
    )


def transcripts_of(spatial):
    found = spatial.transcripts
    genes, x, y, quality = read_all(found.table, [found.gene, found.x, found.y, found.quality])
    points = np.column_stack([x.to_numpy(), y.to_numpy()]).astype(np.float32)
    return genes.to_pylist(), points, quality.to_numpy().astype(np.float32)


def check(spatial, truth):
    """Everything is as it was written."""
    cells, counts = spatial.segmentation.cells, spatial.segmentation.counts
    assert cells.names.to_pylist() == truth.cells
    np.testing.assert_allclose(np.column_stack([cells.x, cells.y]), truth.xy, rtol=1e-15)
    np.testing.assert_array_equal(dense(counts), truth.counts)
    assert counts.features == truth.features
    assert counts.types == truth.types
    assert counts.cells.to_pylist() == truth.cells
    clusters = spatial.segmentation.clusters
    found = dict(zip(clusters.cells.to_pylist(), clusters.labels.to_pylist(), strict=True))
    assert [found.get(cell) for cell in truth.cells] == truth.clusters
    rings = rings_of(spatial.segmentation.outlines)
    assert [name for name, _ in rings] == truth.cells
    for (_, ring), expected in zip(rings, truth.rings, strict=True):
        np.testing.assert_array_equal(np.array(ring, np.float32), expected)
    genes, points, quality = transcripts_of(spatial)
    assert genes == [truth.features[k] for k in truth.gene]
    np.testing.assert_array_equal(points, truth.points)
    np.testing.assert_array_equal(quality, truth.qv)
    xy = np.array([[1.5, 2.5], [-3, 1e5]])
    np.testing.assert_array_equal(xy @ spatial.to_px[:2, :2].T + spatial.to_px[:2, 2], truth.px(xy))
    assert [plane.key for plane in spatial.planes] == ["dapi", "bound", "rna", "prot"][: len(truth.pixels)]
    for plane, pixels in zip(spatial.planes, truth.pixels, strict=True):
        np.testing.assert_array_equal(plane.pixels[:], pixels)
    assert spatial.technology == "Xenium"
    assert spatial.location == str(truth.folder)


FORMS = {
    "parquet, h5": {"matrix": "h5"},
    "csv.gz": {"parquet": False},
    "zarr matrix": {"matrix": "zarr"},
    "tar": {"tar": True},
    "version 1": {"version": "1", "layout": "root"},
    "version 1, csv.gz": {"version": "1", "layout": "root", "parquet": False},
    "version 4": {"version": "4", "channels": 4},
    "transform as text": {"transform": "csv", "translation": (12.5, -7)},
    "transform with translation": {"translation": (12.5, -7)},
    "only the pixel size": {"transform": "none"},
    "one image file": {"layout": "single", "channels": 4},
    "one channel": {"channels": 1},
    "odd names": {"names": NAMES},
    "odd names, csv.gz": {"names": NAMES, "parquet": False, "matrix": "h5"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, form):
    truth = make_bundle(tmp_path / "a", **FORMS[form])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    spatial = open_xenium(tmp_path / "a", workers=2)
    check(spatial, truth)
    assert spatial.warnings == []
    spatial.close()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_zarr_alone(tmp_path):
    truth = make_bundle(tmp_path / "a", matrix="zarr")
    only_zarr(truth)
    spatial = open_xenium(tmp_path / "a")
    check(spatial, truth)
    assert spatial.warnings == []
    spatial.close()


def test_by_its_manifest(tmp_path):
    truth = make_bundle(tmp_path / "a")
    assert open_xenium(str(truth.folder / "experiment.xenium")).location == str(truth.folder)


def test_a_stack_is_one_channel(tmp_path):
    truth = make_bundle(tmp_path / "a", layout="root", channels=1)
    (truth.folder / "morphology_focus.ome.tif").rename(truth.folder / "morphology.ome.tif")
    spatial = open_xenium(truth.folder)
    assert [(plane.key, plane.label) for plane in spatial.planes] == [("dapi", "DAPI")]


@pytest.mark.parametrize(
    "content", ['{"images": 3}', '{"images": {"morphology_focus_filepath": "../x.ome.tif"}}', "{}"]
)
def test_images_that_the_manifest_does_not_tell(tmp_path, content):
    truth = make_bundle(tmp_path / "a", transform="csv")
    (truth.folder / "experiment.xenium").write_text(content)
    (tmp_path / "x.ome.tif").write_bytes(b"outside")
    check(open_xenium(truth.folder), truth)


def write_clustering(truth, name, labels):
    path = truth.folder / CLUSTERS.replace("gene_expression_graphclust", name)
    path.parent.mkdir()
    path.write_text('"Barcode","Cluster"\n' + "".join(f'"{cell}",{label}\n' for cell, label in labels.items()))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_another_clustering(tmp_path, packed):
    truth = make_bundle(tmp_path / "a", layout="none")
    write_clustering(truth, "gene_expression_kmeans_5_clusters", dict.fromkeys(truth.cells[:3], "x"))
    if packed:
        with tarfile.open(truth.folder / "analysis.tar.gz", "w:gz") as file:
            file.add(truth.folder / "analysis", "analysis")
        shutil.rmtree(truth.folder / "analysis")
    clusters = open_xenium(truth.folder, clusters="gene_expression_kmeans_5_clusters").segmentation.clusters
    assert clusters.cells.to_pylist() == truth.cells[:3]
    assert clusters.labels.to_pylist() == ["x"] * 3
    with pytest.raises(InputError) as error:
        open_xenium(truth.folder, clusters="kmeans")
    known = "'gene_expression_graphclust', 'gene_expression_kmeans_5_clusters'"
    assert f"no clustering and no file 'kmeans' → choose one of {known}" in str(error.value)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_clusters_of_a_table(tmp_path, kind):
    truth = make_bundle(tmp_path / "a", layout="none")
    labels = ["NA", "007", "", *["B cell"] * 7]
    table = pa.table({"cell": truth.cells[:10], "group": labels, "more": range(10)})
    path = tmp_path / f"mine.{kind}"
    pq.write_table(table, path) if kind == "parquet" else pacsv.write_csv(table, path)
    clusters = open_xenium(truth.folder, clusters=path).segmentation.clusters
    assert clusters.cells.to_pylist() == truth.cells[:10]
    assert clusters.labels.to_pylist() == ["NA", "007", None, *["B cell"] * 7]


def test_what_may_be_missing_is_told(tmp_path):
    truth = make_bundle(tmp_path / "a", layout="none")
    for name in ("transcripts.parquet", "cell_boundaries.parquet", CLUSTERS):
        (truth.folder / name).unlink()
    spatial = open_xenium(truth.folder)
    assert spatial.transcripts is None
    assert spatial.segmentation.outlines is None
    assert spatial.segmentation.clusters is None
    assert spatial.planes == []
    told = "\n".join(spatial.warnings)
    for what in ("'transcripts.parquet'", "'cell_boundaries.parquet'", "'analysis/clustering'", "'morphology_focus/*"):
        assert what in told


def test_what_must_be_there_is_named_at_once(tmp_path):
    truth = make_bundle(tmp_path / "a", matrix="none", transform="csv")
    for path in (*truth.folder.glob("cells*"), *truth.folder.glob("*.csv")):
        path.unlink()
    (truth.folder / "experiment.xenium").write_text("{}")
    (truth.folder / "transcripts.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError) as error:
        open_xenium(truth.folder)
    assert len(error.value.problems) == 4
    for what in ("'cells.parquet'", "'cell_feature_matrix.h5'", "homogeneous_transform", "transcripts.parquet"):
        assert what in str(error.value)


def test_other_folders(tmp_path):
    with pytest.raises(InputError, match=r"no output folder of Xenium: it holds none of 'experiment\.xenium'"):
        open_xenium(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        open_xenium(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("experiment.xenium", b"{"),
        ("experiment.xenium", b"[1]"),
        ("cells.zarr.zip", b"PK\3\4"),
        ("cells.parquet", b"PAR1PAR1"),
        ("transcripts.parquet", b""),
        ("cell_boundaries.parquet", b"cell_id,vertex_x\n"),
        ("cell_feature_matrix/matrix.mtx.gz", gzip.compress(b"none", mtime=0)),
        (CLUSTERS, b"Barcode,Group\n"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    truth = make_bundle(tmp_path / "a", layout="none")
    (truth.folder / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        open_xenium(truth.folder)
    assert name in str(error.value)


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.arange(16.0).reshape(4, 4)]
)
def test_transforms_that_are_none(tmp_path, matrix):
    truth = make_bundle(tmp_path / "a", layout="none")
    write_zarr(truth.folder / "cells.zarr.zip", {"masks/homogeneous_transform": matrix.astype(np.float32)})
    with pytest.raises(InputError, match="homogeneous_transform"):
        open_xenium(truth.folder)


def test_numbers_of_the_transform_are_those_of_its_text(tmp_path):
    truth = make_bundle(tmp_path / "a", layout="none")
    assert open_xenium(truth.folder).to_px[0, 0] == 4.7058825
    write_zarr(truth.folder / "cells.zarr.zip", {"masks/homogeneous_transform": np.diag([0.1, 0.2, 1, 1])})
    assert open_xenium(truth.folder).to_px[:2, :2].tolist() == [[0.1, 0], [0, 0.2]]


@pytest.mark.parametrize("wrong", [{"indices": [999]}, {"indptr": [5]}, {"names": "none"}])
def test_damaged_clusters_in_zarr(tmp_path, wrong):
    truth = make_bundle(tmp_path / "a", layout="none")
    shutil.rmtree(truth.folder / "analysis")
    names = wrong.get("names", ["gene_expression_graphclust"])
    write_zarr(
        truth.folder / "analysis.zarr.zip",
        {f"cell_groups/0/{part}": np.array(wrong.get(part, [0]), np.uint32) for part in ("indices", "indptr")},
        {"cell_groups": {"grouping_names": names, "group_names": [["1"]]}},
    )
    with pytest.raises(InputError, match=r"analysis\.zarr\.zip: damaged clusters"):
        open_xenium(truth.folder)


def test_real_data(shared):
    folder = shared / "data" / "xenium_pancreas_region"
    if not folder.is_dir():
        pytest.skip("the region is not there")
    spatial = open_xenium(folder)
    cells, counts = spatial.segmentation.cells, spatial.segmentation.counts
    expected = json.loads((folder / "experiment.xenium").read_text())["num_cells"]
    assert len(cells.names) == expected == counts.matrix.shape[0]
    assert len(rings_of(spatial.segmentation.outlines)) == expected
    table = spatial.transcripts.table
    assert table.n_rows == sum(batch.num_rows for part in range(table.n_parts) for batch in table.batches(part, ["qv"]))
    assert [plane.key for plane in spatial.planes] == ["dapi"]
