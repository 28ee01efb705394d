"""A folder of MERSCOPE as one data set, its identifiers digit for digit, and everything that is missing at once."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from atlaswriter.errors import InputError
from atlaswriter.sources.merscope import is_merscope, open_merscope
from atlaswriter.sources.spatial import Spatial

# Of 39 and of 19 digits, as older and newer versions write them; float64 tells neither from their neighbours.
LONG = ["110883424764611924400221639916314253469", "110883424764611924400221639916314253470"]
SHORT = ["3110883424764611924", "3110883424764611925"]
TRANSFORM = "9.2593 0 -1234.5\n0 9.2595 87.25\n0 0 1\n"


def square(x, size=2.0):
    ring = np.array([(x, 0), (x + size, 0), (x + size, size), (x, size), (x, 0)], "<f8")
    return struct.pack("<BIIBIII", 1, 6, 1, 1, 3, 1, len(ring)) + ring.tobytes()


def write(folder, ids=SHORT, planes=(0, 1, 2, 3, 4, 5, 6), transcripts="csv"):
    """A region of two cells."""
    images = folder / "images"
    images.mkdir(parents=True)
    (images / "micron_to_mosaic_pixel_transform.csv").write_text(TRANSFORM)
    for number, stain in enumerate(["PolyT", "DAPI", "Cellbound1", "Cellbound-2"]):
        for z in planes:
            tifffile.imwrite(images / f"mosaic_{stain}_z{z}.tif", np.full((40, 60), 10 * number + z, np.uint16))
    (folder / "cell_metadata.csv").write_text(
        f",fov,EntityID,volume,center_x,center_y\n0,1,{ids[0]},9.5,1.5,2\n1,1,{ids[1]},,11,12.25\n"
    )
    (folder / "cell_by_gene.csv").write_text(
        f"cell,Gad1,NA,Blank-1,Slc17a7\n{ids[1]},0,3,0,0\n{ids[0]},1.0,0,0,70000\n"
    )
    gene = ["Gad1", "NA", "Slc17a7"]
    if transcripts == "csv":
        lines = [f"{i},{i},{10.5 + i},{20 + i},1.0,5,5,{g}" for i, g in enumerate(gene)]
        header = ",barcode_id,global_x,global_y,global_z,x,y,gene"
        (folder / "detected_transcripts.csv").write_text("\n".join([header, *lines]) + "\n")
    else:
        x = [10.5, 11.5, 12.5]
        pq.write_table(
            pa.table({"gene": gene, "global_x": x, "global_y": [20.0, 21, 22]}), folder / "detected_transcripts.parquet"
        )
    levels = [z for z in (0, 1, 3) for _ in ids]
    pq.write_table(
        pa.table(
            {
                "EntityID": [each if len(each) > 19 else int(each) for each in ids] * 3,
                "ZIndex": levels,
                "Geometry": [square(10 * i + z) for i, z in zip([0, 1] * 3, levels, strict=True)],
            }
        ),
        folder / "cell_boundaries.parquet",
    )
    return folder


@pytest.mark.parametrize("ids", [SHORT, LONG])
@pytest.mark.parametrize("transcripts", ["csv", "parquet"])
def test_a_region(tmp_path, ids, transcripts):
    found = open_merscope(write(tmp_path / "region_0", ids, transcripts=transcripts))
    assert isinstance(found, Spatial)
    assert found.technology == "MERSCOPE"
    assert found.to_px.tolist() == [[9.2593, 0, -1234.5], [0, 9.2595, 87.25], [0, 0, 1]]
    cells, counts = found.segmentation.cells, found.segmentation.counts
    assert cells.names.to_pylist() == ids
    assert (cells.x.tolist(), cells.y.tolist()) == ([1.5, 11], [2, 12.25])
    assert counts.cells.to_pylist() == ids[::-1]
    assert counts.features == ["Gad1", "NA", "Blank-1", "Slc17a7"]
    matrix = counts.matrix
    assert (matrix.shape, matrix.axis) == ((2, 4), 0)
    assert (matrix.indptr.tolist(), matrix.indices.tolist(), matrix.data.tolist()) == (
        [0, 1, 3],
        [1, 0, 3],
        [3, 1, 70000],
    )
    assert found.segmentation.clusters is None
    table = found.transcripts
    (batch,) = table.table.batches(0, [table.gene, table.x, table.y])
    assert batch.column(0).to_pylist() == ["Gad1", "NA", "Slc17a7"]
    assert batch.column(1).to_pylist() == [10.5, 11.5, 12.5]
    assert is_merscope(tmp_path / "region_0")
    assert not is_merscope(tmp_path)


def test_the_middle_plane_and_its_outlines(tmp_path):
    found = open_merscope(write(tmp_path / "region"))
    assert [(plane.key, plane.label) for plane in found.planes] == [
        ("dapi", "DAPI"), ("bound", "Cellbound1"), ("cellbound_2", "Cellbound-2"), ("polyt", "PolyT"),
    ]  # fmt: skip
    assert [int(plane.pixels[:1, :1][0, 0]) for plane in found.planes] == [13, 23, 33, 3]
    (rings,) = found.segmentation.outlines.batches()
    assert rings.names.to_pylist() == SHORT
    assert rings.x[rings.offsets[:-1]].tolist() == [3, 13]
    assert found.warnings == ["cell_boundaries.parquet: outlines of ZIndex 3 are taken, 2 of 6"]


def test_outlines_of_another_plane_where_the_image_has_none(tmp_path):
    folder = write(tmp_path / "region", planes=(2, 5))
    found = open_merscope(folder, z=2)
    assert found.planes[0].pixels[:1, :1] == 12
    # All planes have two outlines: 1 and 3 are nearest.
    assert found.warnings == ["cell_boundaries.parquet: outlines of ZIndex 1 are taken, 2 of 6"]
    with pytest.raises(InputError, match=r"no DAPI image of plane 3 → choose one of '2', '5'"):
        open_merscope(folder, z=3)


def test_outlines_without_planes(tmp_path):
    folder = write(tmp_path / "region")
    pq.write_table(
        pa.table({"EntityID": SHORT, "Geometry": [square(0), square(9)]}), folder / "cell_boundaries.parquet"
    )
    found = open_merscope(folder)
    assert found.warnings == []
    assert [len(rings.names) for rings in found.segmentation.outlines.batches()] == [2]


def test_everything_missing_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        open_merscope(tmp_path)
    for name in ("cell_metadata.csv", "cell_by_gene.csv", "cell_boundaries.parquet", "detected_transcripts.csv",
                 "images/micron_to_mosaic_pixel_transform.csv", "images/mosaic_DAPI_z3.tif"):  # fmt: skip
        assert name in str(caught.value)


BAD = {
    "images/micron_to_mosaic_pixel_transform.csv": ("1 2 3\n", "no invertible affine matrix"),
    "cell_metadata.csv": ("EntityID,center_x\n1,2\n", "center_y"),
    "cell_by_gene.csv": ("cell\n1\n", "no columns of features"),
    "detected_transcripts.csv": ("gene,x,y\nA,1,2\n", "global_x"),
    "cell_boundaries.parquet": ("nothing", "cell_boundaries"),
}


def test_everything_bad_is_named(tmp_path):
    folder = write(tmp_path / "region")
    for name, (text, _) in BAD.items():
        (folder / name).write_text(text)
    with pytest.raises(InputError) as caught:
        open_merscope(folder)
    for _, message in BAD.values():
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cell_metadata.csv", "EntityID,center_x,center_y\n5,1,2\n5,3,4\n", "1 names belong to several cells"),
        ("cell_metadata.csv", "EntityID,center_x,center_y\n5,1,\n6,3,4\n", "1 of 2 cells have no finite position"),
        ("cell_metadata.csv", "EntityID,center_x,center_y\n,1,2\n6,3,4\n", "1 of 2 identifiers are missing"),
        ("cell_by_gene.csv", "cell,A,B\n5,1,\n6,0,0\n", "'B' has values that are missing"),
        ("cell_by_gene.csv", "cell,A,B\n5,1,x\n6,0,0\n", "column 'B' holds text"),
        ("cell_by_gene.csv", "cell,A,A\n5,1,0\n", "several columns 'A'"),
        ("cell_by_gene.csv", "cell,A,B\n5,1\n", "cannot be read"),
    ],
)
def test_bad_tables_are_refused(tmp_path, name, text, message):
    folder = write(tmp_path / "region")
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        open_merscope(folder)
