"""`landscape`: its options, what it refuses, what it reports, its command, and every kind of input from end to end."""

import errno
import gzip
import inspect
import json
import os
import shutil

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import tifffile
from tests import landscape_truth as truths
from tests.bundles import CONTROLS, make_bundle
from tests.landscape_truth import Meant, Written, assert_lossless, files, fingerprint
from tests.property.test_landscape_lossless import lossless
from tests.unit import test_generic as generic
from tests.unit import test_merscope as merscope
from tests.unit import test_spatialdata as spatialdata
from tests.unit.test_segmentation_folder import geoparquet, point, triangle

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.errors import BudgetError, InputError, OutputError, Problems
from atlaswriter.formats.landscape import convert, pyramid
from atlaswriter.formats.landscape.catalogue import Catalogue
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.rowgroups import Stream
from atlaswriter.kernels import bins, rings

SMALL = {"n_cells": 60, "n_genes": 8, "n_transcripts": 2500, "image": (260, 330), "channels": 2}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", **SMALL, seed=11)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def export(bundle, out, **options):
    return aw.landscape(bundle, out, progress=False, **options)


def refused(bundle, out, match, **options):
    before = fingerprint(out.parent)
    with pytest.raises(InputError, match=match) as caught:
        export(bundle, out, **options)
    after = fingerprint(out.parent)
    before["."] = after["."] = ()
    assert before == after
    return caught.value


# --- what is exported


@pytest.mark.parametrize("row_groups", [False, True])
def test_quality(row_groups, truth, out):
    report = export(truth.folder, out, min_qv=25, row_groups=row_groups)
    n_poor = int((truth.qv < 25).sum())
    assert report.contents["transcripts left out"] == [f"{n_poor:,} of lower quality"]
    assert report.contents["transcripts"] == len(truth.qv) - n_poor
    assert_lossless(out, Meant(truth, min_qv=25), images=False)
    assert Written(out).parameters["atlaswriter"]["min_qv"] == 25


def test_quality_is_compared_as_stored(tmp_path, out):
    """A limit that float32 does not hold: 20.3 in float64 is not below 20.3."""
    truth = make_bundle(tmp_path / "bundle", **{**SMALL, "n_transcripts": 4})
    table = {"feature_name": [truth.features[0]] * 4, "x_location": [10.0] * 4, "y_location": [9.0] * 4}
    table["qv"] = np.array([20.2999999999, 20.3, 20.3000001, np.nan])
    pq.write_table(pa.table(table), truth.folder / "transcripts.parquet")
    assert export(truth.folder, out, min_qv=20.3).contents["transcripts"] == 2


def test_quality_where_there_is_none(tmp_path, out):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    path = truth.folder / "transcripts.parquet"
    pq.write_table(pq.read_table(path).drop_columns("qv"), path)
    report = export(truth.folder, out, min_qv=20)
    assert "min_qv has no effect: the transcripts have no quality" in report.warnings
    assert report.contents["transcripts"] == 2500


@pytest.mark.parametrize("row_groups", [False, True])
def test_without_controls(row_groups, truth, out):
    report = export(truth.folder, out, drop_controls=True, row_groups=row_groups)
    found = assert_lossless(out, Meant(truth, drop_controls=True), images=False)
    assert not set(found.genes) & set(CONTROLS)
    n_controls = int(np.isin(truth.gene, [truth.features.index(name) for name in CONTROLS]).sum())
    assert report.contents["transcripts left out"] == [f"{n_controls:,} of features that are not exported"]


def test_controls_by_name_where_there_are_no_types(tmp_path, out):
    """Features that only transcripts know have no type."""
    truth = make_bundle(tmp_path / "bundle", **SMALL, controls=False)
    names = ["NegControlProbe_1", "BLANK_0069", "antisense_x", "Gad1"]
    table = {"feature_name": names, "x_location": [10.0] * 4, "y_location": [9.0] * 4}
    pq.write_table(pa.table(table), truth.folder / "transcripts.parquet")
    assert export(truth.folder, out, drop_controls=True).contents["transcripts"] == 1
    assert "Gad1" in Written(out).genes


@pytest.mark.parametrize("row_groups", [False, True])
def test_some_genes(row_groups, truth, out):
    genes = [truth.features[k] for k in (5, 0, 9)]
    export(truth.folder, out, genes=genes, row_groups=row_groups)
    assert_lossless(out, Meant(truth, genes=genes), images=False)
    assert Written(out).parameters["atlaswriter"]["genes"] == genes


def test_genes_that_do_not_exist(truth, out):
    error = refused(truth.folder, out, "'Gad17', 'nothing'", genes=["nothing", truth.features[0], "Gad17"])
    assert "genes: 2 are not in" in str(error)


def test_no_gene_is_left(truth, out):
    refused(truth.folder, out, "left to export", genes=["NegControlProbe_00042"], drop_controls=True)
    refused(truth.folder, out, "genes", genes=[])


@pytest.mark.parametrize("row_groups", [False, True])
@pytest.mark.parametrize(
    "region", [(10, 8, 40, 41.3), (-50, -50, 30.1, 30.1), (20.5, 0, 1e6, 1e6), (20, 15, 44.4, 44.4)]
)
def test_a_region(region, row_groups, truth, out, monkeypatch):
    """Its corner is the origin, of pixels, positions and transform; counts and statistics are those of its cells."""
    monkeypatch.setattr(pyramid, "encode", lossless)
    report = export(truth.folder, out, region=region, row_groups=row_groups, tile_size=50)
    meant = Meant(truth, region=region, tile_size=50)
    assert 2 < len(meant.cells) < 60
    found = assert_lossless(out, meant)
    kept = sum(map(len, found.transcripts.values()))
    assert report.contents["transcripts left out"] == [f"{2500 - kept:,} outside of the region"]
    assert report.contents["cells"] == len(meant.cells)
    assert found.parameters["atlaswriter"]["region"] == list(region)
    height, width = (axis.stop - axis.start for axis in (meant.rows, meant.columns))
    assert found.image("dapi")[-1].shape == (height, width)
    shift = np.loadtxt(out / "micron_to_image_transform.csv")[:2, 2]
    assert shift.tolist() == [-meant.columns.start, -meant.rows.start]
    if not row_groups:
        assert aw.check(out).ok, aw.check(out)


def test_a_region_does_not_warn_of_what_it_leaves_out(truth, out):
    """Cells outside of it are known: they are neither strangers in the matrix nor in the outlines."""
    report = export(truth.folder, out, region=(10, 8, 40, 41.3))
    assert not [text for text in report.warnings if "does not have" in text or "not in" in text]


@pytest.mark.parametrize(
    ("region", "match"),
    [
        ((500, 500, 600, 600), "outside of the image"),
        ((-9, -9, -1, -1), "outside of the image"),
        ((0, 0, 0.5, 0.5), "holds no cell"),
        ((5, 5, 5, 9), "is empty"),
        ((9, 0, 5, 5), "is empty"),
        ((1, 2, 3), "four numbers"),
        ((1, 2, 3, float("nan")), "four numbers"),
        ("1,2,3,4", "four numbers"),
        (("a", 1, 2, 3), "four numbers"),
    ],
)
def test_regions_that_are_none(region, match, truth, out):
    refused(truth.folder, out, match, region=region)


def test_channels(truth, out):
    export(truth.folder, out, channels=["bound", "dapi", "bound"], image_max={"bound": 700})
    found = Written(out)
    assert [info["name"] for info in found.parameters["image_info"]] == ["bound", "dapi"]
    # Colours belong to the channel, not to its place.
    assert [info["color"] for info in found.parameters["image_info"]] == [[0, 255, 0], [0, 0, 255]]
    scaling = found.parameters["image_scaling"]["channels"]
    assert (scaling["bound"]["lut_max"], scaling["bound"]["display_max"]) == (700, 3500)
    assert scaling["dapi"]["method"] == "percentile_99.9"
    export(truth.folder, out, channels=["bound"], force=True)
    assert sorted(path.name for path in (out / "pyramid_images").iterdir()) == ["bound.dzi", "bound_files"]


def test_channels_that_do_not_exist(truth, out):
    refused(truth.folder, out, "'rna' do not exist.*'dapi', 'bound'", channels=["rna", "dapi"])
    refused(truth.folder, out, "'rna' are no channels", image_max={"rna": 5})
    refused(truth.folder, out, "'bound' are no channels", image_max={"bound": 5}, channels=["dapi"])


def test_images_are_scaled_as_told(truth, out, monkeypatch):
    monkeypatch.setattr(pyramid, "encode", lossless)
    export(truth.folder, out, image_max={"bound": 321.5})
    assert_lossless(out, Meant(truth, image_max={"bound": 321.5}))


@pytest.mark.parametrize("each", [1, 2, 5, 400])
def test_row_groups_of_so_many_a_file(each, truth, out):
    export(truth.folder, out, row_groups=True, max_row_groups_per_file=each, tile_size=100)
    assert_lossless(out, Meant(truth, tile_size=100), images=False)
    entries = Written(out).parameters["row_group_files"]
    assert {entries[part]["max_row_groups_per_file"] for part in ("transcripts", "cell_segmentation", "cbg")} == {each}
    assert len(entries["transcripts"]["files"]) == -(-12 // each)
    assert not (out / "transcript_tiles").exists()
    assert aw.check(out).ok


def types(path):
    return {field.name: str(field.type) for field in pq.read_schema(path)}


def loose_list(depth, value="double"):
    for _ in range(depth):
        value = f"list<element: {value}>"
    return value


def test_compat_is_the_schema_of_the_original(truth, out):
    export(truth.folder, out, compat=True)
    tile = next((out / "transcript_tiles").iterdir())
    assert types(tile) == {"name": "int64", "geometry": loose_list(1)}
    cell = next((out / "cell_segmentation").iterdir())
    assert types(cell) == {"GEOMETRY": loose_list(3), "name": "int64"}
    gene = next((out / "cbg").iterdir())
    assert types(gene) == {gene.stem: "int64", truths.INDEX: "int64"}
    assert types(out / "cell_metadata.parquet") == {"name": "string", "geometry": loose_list(1)}
    numbers = dict.fromkeys(("mean", "std", "max", "non-zero"), "double")
    assert types(out / "meta_gene.parquet") == {**numbers, "color": "string", truths.INDEX: "string"}
    for path in (tile, cell, gene, out / "meta_gene.parquet"):
        column = pq.ParquetFile(path).metadata.row_group(0).column(0)
        assert column.compression == "SNAPPY"
        assert column.is_stats_set


def test_compat_row_groups_are_those_of_the_original(truth, out):
    export(truth.folder, out, compat=True, row_groups=True)
    tiles = {"tile_x": "int32", "tile_y": "int32"}
    assert types(out / "transcripts" / "chunk_0.parquet") == {"name": "int64", **tiles, "geometry": loose_list(1)}
    tiles = {"tile_x": "int64", "tile_y": "int64"}
    assert types(out / "cell_segmentation" / "chunk_0.parquet") == {
        "GEOMETRY": loose_list(3), "name": "int64", **tiles,
    }  # fmt: skip
    assert types(out / "cbg" / "chunk_0.parquet") == {"cell_id": "int64", "expression": "int64", "gene": "string"}


def test_pandas_reads_it_as_the_originals(truth, out):
    """Names of genes and cells come back as the index."""
    for compat in (False, True):
        export(truth.folder, out, compat=compat, force=True)
        meant = Meant(truth)
        assert pd.read_parquet(out / "meta_gene.parquet").index.tolist() == meant.gene_names
        clusters = pd.read_parquet(out / "cell_clusters" / "cluster.parquet")
        assert clusters.index.tolist() == meant.cells
        meta = pd.read_parquet(out / "cell_clusters" / "meta_cluster.parquet")
        assert list(meta.itertuples(name=None)) == meant.clusters()[1]
        assert pd.read_parquet(out / "df_sig.parquet").index.tolist() == meant.signatures()[0]
        assert pd.read_parquet(out / "cell_metadata.parquet").columns.tolist() == ["name", "geometry"]


def test_smaller_than_the_originals(tmp_path):
    truth = make_bundle(tmp_path / "bundle", n_transcripts=40_000, image=(700, 800))
    export(truth.folder, tmp_path / "ours")
    export(truth.folder, tmp_path / "compat", compat=True)
    folders = [tmp_path / name / "transcript_tiles" for name in ("ours", "compat")]
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in folders]
    assert sizes[0] <= 0.8 * sizes[1]


def test_other_clusters(tmp_path, truth, out):
    table = tmp_path / "mine.csv"
    table.write_text("barcode,label\n" + "".join(f"{cell},k{k % 3}\n" for k, cell in enumerate(truth.cells)))
    export(truth.folder, out, clusters=str(table))
    labels = [f"k{k % 3}" for k in range(60)]
    assert Written(out).clusters == Meant(truths.changed(truth, clusters=labels)).clusters()
    refused(truth.folder, tmp_path / "no", "no clustering and no file 'nothing'", clusters="nothing")


# --- wrong options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile_size": 0}, "tile_size"),
        ({"tile_size": 2.5}, "tile_size"),
        ({"tile_size": True}, "tile_size"),
        ({"tile_size": (1 << 20) + 1}, "tile_size"),
        ({"max_row_groups_per_file": 0}, "max_row_groups_per_file"),
        ({"row_groups": "False"}, "row_groups"),
        ({"compat": 1}, "compat"),
        ({"drop_controls": None}, "drop_controls"),
        ({"preview": "yes"}, "preview"),
        ({"force": "yes"}, "force"),
        ({"min_qv": "20"}, "min_qv"),
        ({"min_qv": float("nan")}, "min_qv"),
        ({"min_qv": True}, "min_qv"),
        ({"genes": "Gad1"}, "genes"),
        ({"genes": [1]}, "genes"),
        ({"genes": 5}, "genes"),
        ({"channels": "dapi"}, "channels"),
        ({"channels": 5}, "channels"),
        ({"channels": []}, "channels"),
        ({"region": 5}, "region"),
        ({"image_max": {"dapi": "bright"}}, "image_max"),
        ({"image_max": {"dapi": 0}}, "image_max"),
        ({"image_max": {"dapi": -5}}, "image_max"),
        ({"image_max": {"dapi": float("nan")}}, "image_max"),
        ({"image_max": {"dapi": float("inf")}}, "image_max"),
        ({"image_max": {"dapi": True}}, "image_max"),
        ({"image_max": 5}, "image_max"),
        ({"image_max": ["dapi"]}, "image_max"),
        ({"workers": 0}, "workers"),
        ({"memory_budget": "lots"}, "lots"),
        ({"strategy": "magic"}, "strategy"),
        ({"spill_dir": "/nowhere/at/all"}, "spill_dir"),
        ({"segmentations": 5}, "segmentations"),
        ({"segmentations": ["/nowhere/at/all"]}, "nowhere"),
        ({"transcripts": "x.csv"}, "cannot be given for a Xenium bundle: 'transcripts'"),
        ({"z": 3}, "cannot be given for a Xenium bundle: 'z'"),
    ],
)
def test_wrong_options(options, match, truth, out):
    refused(truth.folder, out, match, **options)


def test_everything_wrong_with_the_options_is_said_at_once(truth, out):
    error = refused(truth.folder, out, "problems", tile_size=0, min_qv="x", region=(1, 1, 1, 1), workers=-1)
    assert len(error.problems) == 4


@pytest.mark.parametrize("bundle", [None, 5, "", "/nowhere/at/all", b"x", []])
def test_bundles_that_are_none(bundle, out):
    refused(bundle, out, ".")


def test_a_folder_of_something_else(tmp_path, out):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "a.txt").write_text("a")
    refused(tmp_path / "stuff", out, "is no bundle")


@pytest.mark.parametrize("wrong", [None, 5, "", "a\0b"])
def test_places_that_are_none(wrong, truth, tmp_path):
    with pytest.raises(InputError, match="out"):
        export(truth.folder, wrong)


def test_numpy_numbers_are_numbers(truth, out):
    export(truth.folder, out, tile_size=np.int64(100), min_qv=np.float32(20), region=np.array([0, 0, 60.0, 50]))
    assert Written(out).tile_size == 100


# --- the target


def test_an_export_is_replaced_only_when_forced(truth, out):
    export(truth.folder, out)
    before = files(out)
    refused(truth.folder, out, "is not empty.*force=True")
    assert files(out) == before
    export(truth.folder, out, force=True, row_groups=True)
    assert not (out / "transcript_tiles").exists()
    export(truth.folder, out, force=True)
    assert files(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("content", ["notes.txt", ".git", "cell_metadata.parquet.bak"])
def test_foreign_files_are_not_deleted(content, truth, out):
    export(truth.folder, out)
    (out / content).write_text("mine")
    refused(truth.folder, out, content, force=True)


def test_a_folder_that_is_no_export_is_not_replaced(truth, out):
    out.mkdir()
    (out / "cell_metadata.parquet").write_text("of somebody else")
    refused(truth.folder, out, "cell_metadata.parquet", force=True)


def test_a_cellucid_export_is_not_replaced(truth, out):
    out.mkdir()
    (out / "dataset_identity.json").write_text("{}")
    refused(truth.folder, out, "dataset_identity.json", force=True)


def test_an_empty_folder_is_a_target(truth, out):
    out.mkdir()
    export(truth.folder, out)
    assert aw.check(out).ok


@pytest.mark.parametrize("place", ["", "out", "a/b/out", "analysis", "morphology_focus/out"])
def test_targets_inside_of_the_bundle(place, tmp_path):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    before = fingerprint(truth.folder)
    with pytest.raises(InputError, match=r"inside of the input|is not empty|holds what replacing"):
        export(truth.folder, truth.folder / place, force=place != "analysis")
    assert fingerprint(truth.folder) == before


def test_targets_inside_of_the_bundle_by_a_link(tmp_path):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    (tmp_path / "link").symlink_to(truth.folder)
    before = fingerprint(truth.folder)
    for source, target in ((truth.folder, tmp_path / "link" / "out"), (tmp_path / "link", truth.folder / "out")):
        with pytest.raises(InputError, match="inside of the input"):
            export(source, target)
    assert fingerprint(truth.folder) == before


def test_a_target_around_the_bundle(tmp_path, truth):
    """The bundle would be deleted with what is replaced, though its folder is called like a part of an export."""
    export(truth.folder, tmp_path / "out")
    inner = make_bundle(tmp_path / "out" / "cbg_mine", **SMALL)
    before = fingerprint(inner.folder)
    with pytest.raises(InputError):
        export(inner.folder, tmp_path / "out", force=True)
    assert fingerprint(inner.folder) == before


@pytest.mark.parametrize("options", [{}, {"row_groups": True}, {"strategy": "spill"}, {"region": (5, 5, 40, 40)}])
@pytest.mark.parametrize("form", [{}, {"tar": True, "codec": "jpeg2000"}, {"parquet": False, "matrix": "zarr"}])
def test_the_bundle_is_never_written_to(options, form, tmp_path):
    """Not a byte, not a name, not a time; also where it must not be written to."""
    truth = make_bundle(tmp_path / "bundle", **{**SMALL, **form})
    before = fingerprint(truth.folder)
    export(truth.folder, tmp_path / "out", **options)
    assert fingerprint(truth.folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


def test_temporary_files_go_to_no_input(tmp_path):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    before = fingerprint(truth.folder)
    with pytest.raises(InputError, match="spill_dir"):
        export(truth.folder, tmp_path / "out", strategy="spill", spill_dir=truth.folder)
    assert fingerprint(truth.folder) == before


def test_temporary_files_go_where_they_are_wanted(truth, tmp_path):
    (tmp_path / "spill").mkdir()
    report = export(truth.folder, tmp_path / "out", strategy="spill", spill_dir=tmp_path / "spill", tile_size=20)
    assert report.spill_bytes > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spill"]
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", [0, 3, 20])
@pytest.mark.parametrize(("owner", "name", "row_groups"), [(Job, "write_table", False), (Stream, "write", True)])
def test_a_disk_that_is_full(owner, name, row_groups, after, workers, truth, tmp_path, monkeypatch):
    """Whatever is being written when it happens, the export before stays, and nothing beside it."""
    export(truth.folder, tmp_path / "out")
    before, calls, usual = files(tmp_path / "out"), [], getattr(owner, name)

    def full(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return usual(*arguments)

    monkeypatch.setattr(owner, name, full)
    with pytest.raises((OSError, OutputError), match="No space left"):
        export(truth.folder, tmp_path / "out", force=True, row_groups=row_groups, workers=workers, tile_size=50)
    assert files(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_small_a_budget(truth, tmp_path):
    with pytest.raises(BudgetError, match="smallest budget that works is about"):
        export(truth.folder, tmp_path / "out", memory_budget="1MiB")
    assert list(tmp_path.iterdir()) == []


# --- the report


def test_report(truth, out):
    report = export(truth.folder, out)
    assert (report.output, report.format) == (str(out), "celldega landscape")
    there = [path for path in out.rglob("*") if path.is_file()]
    assert report.files == len(there)
    assert report.bytes_out == sum(path.stat().st_size for path in there)
    assert report.contents["source"] == str(truth.folder)
    expected = {
        "technology": "Xenium", "cells": 60, "clusters": 4, "transcripts": 2500, "outlines": 60, "genes": 13,
        "image": ["dapi (330 x 260)", "bound (330 x 260)"], "storage": "loose tiles",
        "counts": int((truth.counts > 0).sum()), "tiles of transcripts": 4,
    }  # fmt: skip
    assert {key: report.contents.get(key) for key in expected} == expected
    assert "transcripts left out" not in report.contents
    assert (report.warnings, report.renamed, report.spill_bytes) == ([], [], 0)
    assert {"open", "transcripts", "outlines", "genes", "cells", "image", "publish"} <= {p.name for p in report.phases}
    assert 0 < sum(phase.seconds for phase in report.phases) <= 1.1 * report.seconds
    assert report.bytes_in > truth.pixels.nbytes
    told = json.loads(report.to_json())
    assert told["contents"] == report.contents
    for text in ("transcripts", "2,500", "dapi (330 x 260)"):
        assert text in str(report)
        assert text in report._repr_html_()


def test_warnings_are_logged_once(tmp_path, out, caplog):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    shutil.rmtree(truth.folder / "analysis")
    report = export(truth.folder, out)
    assert len(report.warnings) == len(set(report.warnings)) >= 2
    for text in report.warnings:
        assert [record.getMessage() for record in caplog.records].count(text) == 1


def test_no_kernel_is_compiled_for_other_types(truth, tmp_path):
    export(truth.folder, tmp_path / "a", min_qv=20, workers=1)
    export(truth.folder, tmp_path / "b", compat=True, row_groups=True, strategy="spill", tile_size=700)
    for kernel in (bins.locate, bins.count, bins.group, bins.pairs, bins.place, rings.close, rings.reorder):
        assert kernel.undeclared() == []


# --- further segmentations


def put_segmentation(folder, name="proseg", genes=("A", "B"), cells=("s-2", "s-1")):
    """A folder of Celldega's custom segmentation."""
    folder.mkdir(parents=True)
    parameters = {"technology": "custom", "segmentation_approach": name}
    (folder / "segmentation_parameters.json").write_text(json.dumps(parameters))
    index = pd.Index(cells, name="cell_index")
    rng = np.random.default_rng(len(cells))
    counts = pd.DataFrame(rng.integers(0, 4, (len(cells), len(genes))), index=index, columns=list(genes))
    counts.iloc[:, 0] = 1
    counts.to_parquet(folder / "cell_by_gene_matrix.parquet")
    centers = [point(10 + 9 * k, 12 + 5 * k) for k in range(len(cells))]
    cells = pd.DataFrame({"centroid": centers}, index=index)
    geoparquet(cells, folder / "cell_metadata_micron_space.parquet", "centroid")
    shapes = pd.DataFrame({"geometry": [triangle(10 + 9 * k, 12 + 5 * k) for k in range(len(cells))]}, index=index)
    geoparquet(shapes, folder / "cell_polygons.parquet", "geometry")
    return counts


def test_further_segmentations(truth, tmp_path, out):
    """Genes have one order for all, as transcripts are shared; cells have their own."""
    known = truth.features[2]
    counts = put_segmentation(tmp_path / "one", genes=(known, "zz-new", "AA-new"), cells=("s-3", "s-1", "s-2"))
    put_segmentation(tmp_path / "two", "cellpose.2", genes=(known,), cells=("x",))
    report = export(truth.folder, out, segmentations=[tmp_path / "one", tmp_path / "two"])
    first, second, third = Written(out), Written(out, "proseg"), Written(out, "cellpose.2")
    assert first.parameters["segmentation_approach"] == ["default", "proseg", "cellpose.2"]
    assert first.genes == second.genes == third.genes == sorted([*truth.features, "zz-new", "AA-new"])
    assert second.cells[0] == ["s-1", "s-2", "s-3"]
    found = second.counts
    for gene in counts.columns:
        cells, values = found[gene]
        expected = counts.loc[["s-1", "s-2", "s-3"], gene].to_numpy()
        assert cells.tolist() == np.flatnonzero(expected).tolist()
        assert values.tolist() == expected[expected > 0].tolist()
    assert set(found) == {gene for gene in counts.columns if counts[gene].any()}
    drawn = [cell for tile in second.outlines.values() for cell, _ in tile]
    assert sorted(drawn) == [0, 1, 2]
    names = {path.name for path in out.iterdir()}
    for name in ("proseg", "cellpose.2"):
        assert {f"cell_metadata_{name}.parquet", f"meta_gene_{name}.parquet", f"cbg_{name}"} <= names
        assert {f"cell_clusters_{name}", f"cell_segmentation_{name}"} <= names
    assert [len(one.transcripts) for one in (first, second)] == [len(first.transcripts)] * 2
    assert sum(map(len, first.transcripts.values())) == 2500
    assert report.contents["cells of proseg"] == 3
    assert aw.check(out).ok, aw.check(out)


def test_segmentations_and_options(truth, tmp_path, out):
    """Features are chosen and left out in all alike."""
    put_segmentation(tmp_path / "one", genes=(truth.features[2], "zz-new"))
    chosen = [truth.features[0], truth.features[2]]
    export(truth.folder, out, segmentations=[tmp_path / "one"], genes=chosen)
    assert Written(out).genes == Written(out, "proseg").genes == sorted(chosen)
    assert set(Written(out, "proseg").counts) == {truth.features[2]}


def test_a_control_of_one_segmentation_is_one_of_all(tmp_path, out):
    """The type that the first matrix tells counts for the others, which tell none."""
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    path = truth.folder / "cell_feature_matrix" / "features.tsv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    line = next(line for line in text.splitlines() if line.split("\t")[1] == truth.features[0])
    other = line.replace("Gene Expression", "Negative Control Probe")
    path.write_bytes(gzip.compress(text.replace(line, other).encode()))
    put_segmentation(tmp_path / "one", genes=(truth.features[0], truth.features[1]))
    export(truth.folder, out, segmentations=[tmp_path / "one"], drop_controls=True)
    assert truth.features[0] not in Written(out).genes
    assert truth.features[1] in Written(out).genes


@pytest.mark.parametrize("name", ["default", "a/b", "..", "", "a b"])
def test_names_of_segmentations(name, truth, tmp_path, out):
    put_segmentation(tmp_path / "one", name)
    refused(truth.folder, out, "segmentation", segmentations=[tmp_path / "one"])


def test_segmentations_that_clash(truth, tmp_path, out):
    put_segmentation(tmp_path / "one")
    put_segmentation(tmp_path / "two")
    refused(truth.folder, out, "'proseg'", segmentations=[tmp_path / "one", tmp_path / "two"])
    refused(truth.folder, out, "row_groups", segmentations=[tmp_path / "one"], row_groups=True)


def test_targets_inside_of_a_segmentation(truth, tmp_path):
    put_segmentation(tmp_path / "one")
    before = fingerprint(tmp_path / "one")
    with pytest.raises(InputError, match="inside of the input"):
        export(truth.folder, tmp_path / "one" / "out", segmentations=[tmp_path / "one"])
    assert fingerprint(tmp_path / "one") == before


# --- features and their codes


class Matrix:
    """What the catalogue looks at."""

    def __init__(self, features, types=None):
        self.features, self.types, self.where = features, types, "matrix"


def test_many_features_need_wide_codes_whatever_comes_after():
    """Codes of 16 bits do only while all features fit: a second, small matrix does not make the first one small."""
    catalogue = Catalogue(None, drop_controls=False)
    catalogue.add_matrix(Matrix([f"g{k}" for k in range(70_000)]), Problems())
    assert not catalogue.short
    catalogue.add_matrix(Matrix(["g1"]), Problems())
    assert not catalogue.short
    assert catalogue.codes(["g69999", "new"]).tolist() == [69_999, 70_000]


def test_more_than_65536_features(tmp_path, out):
    """Ids of genes become 32 bits."""
    n = 66_000
    matrix = sp.csr_matrix((np.ones(3, np.float32), ([0, 1, 1], [0, 5, n - 1])), shape=(2, n))
    obs, var = pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=[f"g{k}" for k in range(n)])
    adata = anndata.AnnData(matrix, obs=obs, var=var)
    adata.obsm["spatial"] = np.array([[5.0, 5], [9, 9]])
    table = {"gene": [f"g{n - 1}", "g5", "other"], "x": [1.0, 2, 3], "y": [4.0, 5, 6]}
    pq.write_table(pa.table(table), tmp_path / "tx.parquet")
    export(adata, out, transcripts=tmp_path / "tx.parquet")
    found = Written(out)
    (rows,) = found.transcripts.values()
    assert [found.genes[gene] for gene in rows[:, 0]] == [f"g{n - 1}", "g5", "other"]
    assert set(found.counts) == {"g0", "g5", f"g{n - 1}"}


# --- other inputs


def test_merscope(tmp_path, out):
    folder = merscope.write(tmp_path / "region")
    transform = "2 0 1\n0 2 3\n0 0 1\n"
    (folder / "images" / "micron_to_mosaic_pixel_transform.csv").write_text(transform)
    before = fingerprint(folder)
    report = export(folder, out, z=3)
    assert fingerprint(folder) == before
    found = Written(out)
    assert found.parameters["technology"] == "MERSCOPE"
    assert found.cells[0] == merscope.SHORT
    assert found.cells[1].tolist() == [[400, 700], [2300, 2750]]
    rows = found.transcripts[0, 0]
    assert [found.genes[gene] for gene in rows[:, 0]] == ["Gad1", "NA", "Slc17a7"]
    assert rows[:, 1:].tolist() == [[2200, 4300], [2400, 4500], [2600, 4700]]
    assert {gene: (cells.tolist(), values.tolist()) for gene, (cells, values) in found.counts.items()} == {
        "Gad1": ([0], [1]), "NA": ([1], [3]), "Slc17a7": ([0], [70000]),
    }  # fmt: skip
    assert [info["name"] for info in found.parameters["image_info"]] == ["dapi", "bound", "cellbound_2", "polyt"]
    assert found.clusters == (["0", "0"], [("0", "#1f77b4", 2)])
    assert not (out / "df_sig.parquet").exists()
    assert sum(map(len, found.outlines.values())) == 2
    assert [text for text in report.warnings if "ZIndex 3" in text]
    assert np.loadtxt(out / "micron_to_image_transform.csv").tolist() == [[2, 0, 1], [0, 2, 3], [0, 0, 1]]
    assert aw.check(out).ok, aw.check(out)
    export(folder, tmp_path / "drop", drop_controls=True)
    assert "Blank-1" not in Written(tmp_path / "drop").genes
    colors = dict(zip(found.genes, found.table("meta_gene.parquet")["color"].to_pylist(), strict=True))
    assert colors["Blank-1"] == "#FFFFFF"


def test_anndata_with_files(tmp_path, out):
    adata = generic.made()
    path = tmp_path / "tx.csv"
    path.write_text("target,x_global_px,y_global_px,q\nA,1.25,2.5,10\nB,300,4,30\nC,5,6,\n")
    vertices = {"cell": ["c1"] * 3 + ["c3"] * 4, "x": [0.0, 9, 0, 50, 59, 59, 50], "y": [0.0, 0, 9, 60, 60, 69, 60]}
    pq.write_table(pa.table(vertices), tmp_path / "vertices.parquet")
    tifffile.imwrite(tmp_path / "image.tif", np.arange(60 * 80, dtype=np.uint16).reshape(60, 80))
    report = export(
        adata, out, transcripts=path, polygons=tmp_path / "vertices.parquet", images=tmp_path / "image.tif",
        channel_names=["nuclei"], clusters="leiden", transform=[[2, 0, 0], [0, 2, 1], [0, 0, 1]], quality_column="q",
        min_qv=5, technology="CosMx",
    )  # fmt: skip
    found = Written(out)
    assert found.parameters["technology"] == "CosMx"
    assert found.cells[0] == ["c1", "c2", "c3"]
    assert found.cells[1].tolist() == [[2000, 4100], [6000, 8100], [10000, 12100]]
    assert sorted(found.transcripts) == [(0, 0), (2, 0)]
    assert found.transcripts[2, 0].tolist() == [[1, 60000, 900]]
    assert report.contents["transcripts left out"] == ["1 of lower quality"]
    assert found.genes == ["A", "B", "C"]
    assert found.clusters == (["b", None, "a"], [("b", "#00ff00", 1), ("a", "#ff0000", 1)])
    assert sorted(cell for tile in found.outlines.values() for cell, _ in tile) == [0, 2]
    (info,) = found.parameters["image_info"]
    assert (info["name"], info["button_name"]) == ("nuclei", "NUCLEI")
    assert aw.check(out).ok, aw.check(out)


@pytest.mark.parametrize("form", ["object", "h5ad", "zarr"])
def test_chromium(form, tmp_path, out):
    """An AnnData without positions: no image, no tiles; the front-end asks for none."""
    adata = generic.nowhere()
    bundle = adata
    if form != "object":
        bundle = tmp_path / f"cells.{form}"
        (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(bundle)
    export(bundle, out, clusters="louvain")
    found = Written(out)
    assert found.parameters["technology"] == "Chromium"
    assert found.parameters["image_info"] == []
    assert found.parameters["max_pyramid_zoom"] is None
    assert found.cells[0] == ["c1", "c2", "c3"]
    assert (found.transcripts, found.outlines) == ({}, {})
    assert not {"transcript_tiles", "cell_segmentation", "pyramid_images"} & {path.name for path in out.iterdir()}
    assert found.clusters[1] == [("3", truths.wheel(0), 2), ("1", truths.wheel(0.5), 1)]
    assert {gene: values.tolist() for gene, (_, values) in found.counts.items()} == {"A": [1, 3], "B": [2]}
    assert aw.check(out).ok, aw.check(out)


def test_other_counts_of_an_anndata(tmp_path):
    adata = generic.made(layers={"counts": np.arange(6.0).reshape(3, 2)})
    adata.raw = adata[:, ["A"]].copy()
    export(adata, tmp_path / "layer", layer="counts")
    assert Written(tmp_path / "layer").counts["B"][1].tolist() == [1, 3, 5]
    export(adata, tmp_path / "raw", use_raw=True)
    assert Written(tmp_path / "raw").genes == ["A"]


def test_the_anndata_is_not_changed(out):
    adata = generic.made()
    before = adata.copy()
    export(adata, out)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (adata.X != before.X).nnz == 0
    assert (adata.obsm["spatial"] == before.obsm["spatial"]).all()
    assert adata.obs_names.tolist() == before.obs_names.tolist()


@pytest.mark.parametrize("version", [2, 3])
def test_spatialdata(version, tmp_path, out):
    store = spatialdata.Store(tmp_path / "data.zarr", version)
    store.table().points().shapes().image()
    before = fingerprint(store.path)
    export(store.path, out, clusters="leiden")
    assert fingerprint(store.path) == before
    found = Written(out)
    assert found.cells[0] == spatialdata.NAMES
    assert found.cells[1].tolist() == [[2200, 4200], [6200, 8200], [10200, 12200]]
    (rows,) = found.transcripts.values()
    assert [found.genes[gene] for gene in rows[:, 0]] == ["B", "A", "B", "A"]
    assert rows[:, 1:].tolist() == [[200, 600], [400, 800], [400, 600], [400, 800]]
    assert sum(map(len, found.outlines.values())) == 3
    assert [info["name"] for info in found.parameters["image_info"]] == ["dapi", "poly_t"]
    assert found.clusters == (["a", "b", "a"], [("a", "#010203", 2), ("b", "#040506", 1)])
    assert aw.check(out).ok, aw.check(out)


@pytest.mark.parametrize("names", [["../evil"], ["a/b"], [""], ["."], ["a\0b"], ["x" * 300]])
def test_channels_whose_names_are_no_names_of_files(names, tmp_path, out):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((6, 8), np.uint16))
    with pytest.raises(InputError):
        export(generic.made(), out, images=[tmp_path / "image.tif"], channel_names=names)
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_channels_of_one_name(tmp_path, out):
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((6, 8), ord(name), np.uint16))
    with pytest.raises(InputError):
        export(generic.made(), out, images=[tmp_path / "a.tif", tmp_path / "b.tif"], channel_names=["x", "x"])


# --- the command


@pytest.fixture
def call(capsys):
    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command(call, truth, out):
    code, stdout, stderr = call("landscape", truth.folder, out)
    assert (code, stdout) == (0, "")
    assert "transcripts" in stderr
    assert_lossless(out, Meant(truth), images=False)


def test_the_command_as_json(call, truth, out):
    code, stdout, _ = call("-q", "landscape", truth.folder, out, "--json")
    assert code == 0
    assert stdout.count("\n") == 1
    assert json.loads(stdout)["contents"]["cells"] == 60
    code, stdout, stderr = call("landscape", truth.folder, out, "--json")
    assert code == 3
    told = json.loads(stdout)
    assert (told["ok"], len(told["problems"])) == (False, 1)
    assert "--force" in stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--tile-size", "0"], 2),
        (["--tile-size", "2.5"], 2),
        (["--tile-size", str((1 << 20) + 1)], 3),
        (["--max-row-groups-per-file", "40000"], 3),
        (["--min-qv", "x"], 2),
        (["--min-qv", "nan"], 3),
        (["--region", "1,2,3"], 3),
        (["--region", "1,2,3,x"], 3),
        (["--region", "9,9,1,1"], 3),
        (["--image-max", "dapi"], 3),
        (["--image-max", "dapi=x"], 3),
        (["--image-max", "dapi=-1"], 3),
        (["--image-max", "nothing=5"], 3),
        (["--channels", "nothing"], 3),
        (["--genes", "nothing"], 3),
        (["--genes", "@/nowhere"], 2),
        (["--clusters", "nothing"], 3),
        (["--transcripts", "x.csv"], 3),
        (["--segmentation", "/nowhere"], 3),
        (["--spill-dir", "/nowhere"], 3),
        (["--memory-budget", "1MiB"], 4),
        (["--memory-budget", "lots"], 3),
        (["--row-groups", "False"], 2),
        (["--nonsense"], 2),
    ],
)
def test_exit_codes(arguments, code, call, truth, tmp_path):
    found, stdout, stderr = call("landscape", truth.folder, tmp_path / "out", *arguments)
    assert (found, stdout) == (code, "")
    assert stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_arguments_and_inputs(call, tmp_path):
    assert call("landscape")[0] == 2
    assert call("landscape", tmp_path / "nothing")[0] == 2
    assert call("landscape", tmp_path / "nothing", tmp_path / "out")[0] == 3


GIVEN = {
    "channels": (["--channels", "dapi,bound"], ["dapi", "bound"]),
    "image_max": (["--image-max", "dapi=5", "--image-max", "a=b=7.5"], None),
    "genes": (["--genes", "A, B"], ["A", "B"]),
    "drop_controls": (["--drop-controls"], True),
    "min_qv": (["--min-qv", "20"], 20.0),
    "region": (["--region", "1,2,3.5,4e1"], [1, 2, 3.5, 40]),
    "tile_size": (["--tile-size", "77"], 77),
    "row_groups": (["--row-groups"], True),
    "max_row_groups_per_file": (["--max-row-groups-per-file", "9"], 9),
    "compat": (["--compat"], True),
    "preview": (["--preview"], True),
    "force": (["--force"], True),
    "clusters": (["--clusters", "leiden"], "leiden"),
    "positions": (["--positions", "x,y"], ("x", "y")),
    "layer": (["--layer", "counts"], "counts"),
    "use_raw": (["--raw"], True),
    "gene_column": (["--gene-column", "g"], "g"),
    "x_column": (["--x-column", "x"], "x"),
    "y_column": (["--y-column", "y"], "y"),
    "quality_column": (["--quality-column", "q"], "q"),
    "polygon_cell": (["--polygon-cell", "c"], "c"),
    "polygon_x": (["--polygon-x", "px"], "px"),
    "polygon_y": (["--polygon-y", "py"], "py"),
    "channel_names": (["--channel-names", "a,b"], ["a", "b"]),
    "pixel_size": (["--pixel-size", "0.5"], 0.5),
    "technology": (["--technology", "CosMx"], "CosMx"),
    "table": (["--table", "t"], "t"),
    "points": (["--points", "p"], "p"),
    "shapes": (["--shapes", "s"], "s"),
    "image": (["--image-element", "i"], "i"),
    "coordinate_system": (["--coordinate-system", "cs"], "cs"),
    "z": (["--z", "3"], 3),
    "memory_budget": (["--memory-budget", "2GiB"], "2GiB"),
    "workers": (["--workers", "3"], 3),
    "progress": (["--no-progress"], False),
    "strategy": (["--strategy", "spill"], "spill"),
    "resume": (["--resume"], True),
    "engine": (["--dask", "local"], "dask"),
    "dask": (["--dask", "tcp://10.0.0.1:8786"], "tcp://10.0.0.1:8786"),
}
PATHS = {
    "segmentations": ["--segmentation", "one", "--segmentation", "two"],
    "transcripts": ["--transcripts", "t.csv"],
    "polygons": ["--polygons", "p.parquet"],
    "images": ["--image", "a.tif", "--image", "b.tif"],
    "transform": ["--transform", "m.csv"],
    "spill_dir": ["--spill-dir", "spill"],
}


@pytest.fixture
def asked(call, monkeypatch, tmp_path):
    """What the function was called with."""
    from atlaswriter.report import Report

    seen = {}
    signature = inspect.signature(convert.landscape)

    def fake(*given, **options):
        seen.clear()
        bound = signature.bind(*given, **options)
        seen.update(bound.arguments)
        return Report("out", "celldega landscape")

    monkeypatch.setattr(convert, "landscape", fake)

    def ask(*arguments):
        assert call("landscape", "in", "out", *arguments)[0] == 0
        return dict(seen)

    return ask


def test_every_option_has_a_word_of_the_command():
    parameters = set(inspect.signature(aw.landscape).parameters) - {"bundle", "out"}
    assert parameters == {*GIVEN, *PATHS}


@pytest.mark.parametrize("name", GIVEN)
def test_options_reach_the_function(name, asked):
    arguments, expected = GIVEN[name]
    if name == "image_max":
        assert asked("--image-max", "dapi=5", "--image-max", "bound=7.5")[name] == {"dapi": 5, "bound": 7.5}
        return
    assert asked(*arguments)[name] == expected


@pytest.mark.parametrize("name", PATHS)
def test_paths_reach_the_function(name, asked):
    words = PATHS[name][1::2]
    found = asked(*PATHS[name])[name]
    assert [str(path) for path in ([found] if len(words) == 1 else found)] == words


def test_defaults_are_those_of_the_function(asked):
    """Nothing given: what the function does by itself."""
    seen = asked()
    assert (str(seen.pop("bundle")), str(seen.pop("out"))) == ("in", "out")
    for name, parameter in inspect.signature(aw.landscape).parameters.items():
        if name in seen:
            assert seen[name] == parameter.default or (not seen[name] and not parameter.default), name


def test_loose_tiles_can_be_said_too(asked):
    assert asked("--row-groups", "--loose-tiles")["row_groups"] is False
    assert asked("--positions", "spatial")["positions"] == "spatial"


def test_help_names_what_is_needed(call):
    code, stdout, _ = call("landscape", "--help")
    assert code == 0
    for word in ("BUNDLE OUT", "--min-qv", "--row-groups / --loose-tiles", "never written to"):
        assert word in stdout
