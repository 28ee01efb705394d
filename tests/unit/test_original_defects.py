"""Defects of celldega 0.27.0's writer (formats/landscapefiles.md, section 13), by number: none of them is ours."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import landscape_truth as truths
from tests.bundles import CHANNELS, make_bundle
from tests.landscape_truth import Meant, Written, assert_lossless, files, fingerprint
from tests.unit import test_merscope as merscope

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.sources.tables import ParquetTable

SMALL = {"n_cells": 80, "n_genes": 10, "n_transcripts": 3000, "image": (260, 330), "channels": 1}
modes = pytest.mark.parametrize("row_groups", [False, True], ids=["loose", "row groups"])


def export(bundle, out, **options):
    return aw.landscape(bundle, out, progress=False, **options)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@modes
def test_defect_01_a_gene_with_a_slash(row_groups, tmp_path, out):
    """Crash while writing its file, in a folder that is not there."""
    truth = make_bundle(tmp_path / "bundle", **SMALL, names=("HLA-A/B", "a/b/c"))
    report = export(truth.folder, out, row_groups=row_groups)
    assert ("gene", "HLA-A/B", "HLA-A_B") in report.renamed
    found = assert_lossless(out, Meant(truth), images=False)
    assert {"HLA-A_B", "a_b_c"} <= set(found.counts)
    assert not [path for path in out.rglob("*") if path.is_dir() and path.parent.name == "cbg"]


@modes
def test_defect_02_a_feature_that_is_not_in_the_matrix(row_groups, tmp_path, out):
    """Crash: names and numbers in one column."""
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    path = truth.folder / "transcripts.parquet"
    table = pq.read_table(path)
    names = ["Stranger" if k % 100 == 0 else name for k, name in enumerate(table["feature_name"].to_pylist())]
    pq.write_table(table.set_column(table.column_names.index("feature_name"), "feature_name", pa.array(names)), path)
    export(truth.folder, out, row_groups=row_groups)
    found = Written(out)
    written = [found.genes[gene] for rows in found.transcripts.values() for gene in rows[:, 0]]
    assert sorted(written) == sorted(names)
    assert {pq.read_schema(file).field("name").type for file in tiles(out, row_groups)} == {pa.uint16()}


def tiles(out, row_groups):
    return list((out / ("transcripts" if row_groups else "transcript_tiles")).iterdir())


@modes
@pytest.mark.parametrize("matrix", ["mex", "h5", "zarr"])
def test_defect_03_genes_called_na_and_nan(matrix, row_groups, tmp_path, out):
    """Crash: read as missing."""
    truth = make_bundle(tmp_path / "bundle", **SMALL, names=("NA", "nan", "null", "None"), matrix=matrix)
    export(truth.folder, out, row_groups=row_groups)
    found = assert_lossless(out, Meant(truth), images=False)
    assert {"NA", "nan", "null", "None"} <= set(found.counts)


@modes
@pytest.mark.parametrize("n_transcripts", [300, 3000])
def test_defect_04_points_at_the_far_edge_and_at_negative_pixels(row_groups, n_transcripts, tmp_path, out):
    """Lost below 500,000 rows; of row groups, moved into tiles where they are not."""
    truth = make_bundle(tmp_path / "bundle", **{**SMALL, "n_transcripts": n_transcripts}, extent=(250, 250))
    report = export(truth.folder, out, row_groups=row_groups)
    found = assert_lossless(out, Meant(truth), images=False)
    assert sum(map(len, found.transcripts.values())) == n_transcripts
    assert any(i == 1 for i, _ in found.transcripts)
    assert any(j == 1 for _, j in found.transcripts)
    truth = make_bundle(tmp_path / "shifted", **{**SMALL, "n_transcripts": n_transcripts}, translation=(-40, -30))
    report = export(truth.folder, out, row_groups=row_groups, force=True)
    assert_lossless(out, Meant(truth), images=False)
    (said,) = [text for text in report.warnings if "transcripts lie left of or above" in text]
    assert ("left out" in said) == row_groups


@modes
def test_defect_05_cells_beyond_the_last_transcript(row_groups, tmp_path, out):
    """Their outlines were lost, or put where they are not seen."""
    truth = make_bundle(tmp_path / "bundle", **{**SMALL, "image": (700, 900)}, extent=(249, 249))
    export(truth.folder, out, row_groups=row_groups)
    found = assert_lossless(out, Meant(truth), images=False)
    assert sum(map(len, found.outlines.values())) == 80
    assert set(found.transcripts) == {(0, 0)}
    beyond = {tile for tile in found.outlines if max(tile) > 0}
    assert len(beyond) > 4


@pytest.mark.parametrize("order", [(True, True), (True, False), (False, True)])
def test_defect_06_a_second_run_on_a_finished_folder(order, tmp_path, out):
    """It dropped what row groups need from the parameters, and the data set was dead."""
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    for row_groups in order:
        export(truth.folder, out, row_groups=row_groups, force=True)
    found = assert_lossless(out, Meant(truth), images=False)
    assert found.row_groups == order[-1]
    export(truth.folder, tmp_path / "fresh", row_groups=order[-1])
    assert files(out) == files(tmp_path / "fresh")
    assert {"row_group_files", "tile_grid", "image_dimensions"} <= set(found.parameters) or not order[-1]
    assert aw.check(out).ok


SLOW = """
import sys, time
import atlaswriter as aw
from atlaswriter.formats.landscape.job import Job
write = Job.write_table
def slowly(*given):
    print("written", flush=True)
    time.sleep(0.02)
    return write(*given)
Job.write_table = slowly
aw.landscape(sys.argv[1], sys.argv[2], force=True, progress=False, tile_size=60, workers=1)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("older", [False, True])
def test_defect_07_interrupted_runs_are_not_taken_for_finished(older, tmp_path, out):
    """What was there of an earlier run was kept: five of 157 genes, one tile, "completed successfully"."""
    truth = make_bundle(tmp_path / "in" / "bundle", **SMALL)
    other = make_bundle(tmp_path / "in" / "other", **SMALL, seed=5)
    if older:
        export(other.folder, out)
    before = files(out)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(truth.folder), str(out)], stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(6):
            assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert files(out) == before
    export(truth.folder, out, force=True, tile_size=60)
    assert_lossless(out, Meant(truth, tile_size=60), images=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_defect_07_parts_that_somebody_deleted_come_back(tmp_path, out):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    export(truth.folder, out)
    before = files(out)
    for path in [*(out / "cbg").iterdir()][2:] + [*(out / "transcript_tiles").iterdir()][1:]:
        path.unlink()
    assert not aw.check(out).ok
    export(truth.folder, out, force=True)
    assert files(out) == before


@pytest.mark.parametrize("missing", ["cell_boundaries.parquet", "transcripts.parquet", "both"])
def test_defect_08_row_groups_without_outlines(missing, tmp_path, out):
    """Crash: there were no bounds of tiles."""
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    for name in ("cell_boundaries.parquet", "transcripts.parquet"):
        if missing in (name, "both"):
            (truth.folder / name).unlink()
    export(truth.folder, out, row_groups=True)
    found = Written(out)
    assert bool(found.outlines) == (missing == "transcripts.parquet")
    assert bool(found.transcripts) == (missing == "cell_boundaries.parquet")
    assert found.parameters["tile_grid"]["num_tiles_x"] == 2
    assert aw.check(out).ok, aw.check(out)


@modes
def test_defect_09_only_dapi(row_groups, tmp_path, out):
    """Crash: four channels were taken for granted."""
    for channels in (1, 2, 3):
        truth = make_bundle(tmp_path / f"bundle-{channels}", **{**SMALL, "channels": channels})
        export(truth.folder, out, row_groups=row_groups, force=True)
        found = Written(out)
        names = [info["name"] for info in found.parameters["image_info"]]
        assert names == list(truths.KEYS[:channels])
        assert sorted(path.stem for path in (out / "pyramid_images").glob("*.dzi")) == sorted(names)
    assert len(CHANNELS) > 4


def test_defect_10_all_channels_of_merscope(tmp_path, out):
    """It failed in the last step, after all the work."""
    export(merscope.write(tmp_path / "region"), out)
    found = Written(out)
    names = [info["name"] for info in found.parameters["image_info"]]
    assert names == ["dapi", "bound", "cellbound_2", "polyt"]
    assert len({info["button_name"] for info in found.parameters["image_info"]}) == 4
    for name in names:
        assert found.image(name, grey=False)[-1].shape == (40, 60)


def test_defect_11_false_is_not_true(tmp_path, out, capsys):
    """``--use_row_groups False`` meant True; switches have no values here."""
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    assert run(["-q", "landscape", str(truth.folder), str(out), "--row-groups", "False"]) == 2
    assert not out.exists()
    assert run(["-q", "landscape", str(truth.folder), str(out)]) == 0
    assert Written(out).row_groups is False
    assert run(["-q", "landscape", str(truth.folder), str(out), "--force", "--row-groups"]) == 0
    assert Written(out).row_groups is True
    assert run(["-q", "landscape", str(truth.folder), str(out), "--force", "--row-groups", "--loose-tiles"]) == 0
    assert Written(out).row_groups is False
    assert Written(out).parameters["use_int_index"] is True


@pytest.mark.parametrize("min_qv", [None, 20])
def test_defect_12_only_columns_that_are_needed_are_read(min_qv, tmp_path, out, monkeypatch):
    """All 13 were read to use five, in one piece."""
    truth = make_bundle(tmp_path / "bundle", **SMALL, row_group=500)
    path = truth.folder / "transcripts.parquet"
    table = pq.read_table(path)
    for k in range(7):
        table = table.append_column(f"more_{k}", pa.array(np.random.default_rng(k).random(table.num_rows)))
    pq.write_table(table, path, row_group_size=500)
    seen, usual = [], pq.ParquetFile.iter_batches

    def watched(self, *given, columns=None, **options):
        seen.append((self.metadata.num_columns, tuple(columns)))
        for batch in usual(self, *given, columns=columns, **options):
            assert batch.num_rows <= 500
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    export(truth.folder, out, min_qv=min_qv)
    asked = {columns for width, columns in seen if width == 13}
    wanted = ("feature_name", "x_location", "y_location", *(["qv"] if min_qv else []))
    assert asked == {wanted}
    assert sum(width == 13 for width, _ in seen) == 6
    assert ParquetTable(path).n_parts == 6


MISSING = """
import sys
sys.modules[sys.argv[3]] = None
from atlaswriter.cli.main import run
raise SystemExit(run(["landscape", sys.argv[1], sys.argv[2]]))
"""


@pytest.mark.parametrize("library", ["pyvips", "PIL", "celldega", "geopandas", "shapely", "polars", "spatialdata"])
def test_defect_13_no_library_is_missed_at_the_end(library, tmp_path, out):
    """libvips was missed at the image, as an AttributeError; nothing of the kind is needed here."""
    truth = make_bundle(tmp_path / "in" / "bundle", **SMALL)
    command = [sys.executable, "-c", MISSING, str(truth.folder), str(out), library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "pyramid_images" / "dapi_files").is_dir()


@pytest.mark.parametrize("library", ["pyarrow", "imagecodecs", "tifffile"])
def test_defect_13_what_is_needed_and_missing_is_said_before_any_work(library, tmp_path, out):
    truth = make_bundle(tmp_path / "in" / "bundle", **SMALL)
    command = [sys.executable, "-c", MISSING, str(truth.folder), str(out), library]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert library in done.stderr
    assert "AttributeError" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert time.monotonic() - started < 60


@modes
@pytest.mark.parametrize("form", [{}, {"tar": True}, {"parquet": False}, {"matrix": "zarr"}, {"transform": "csv"}])
def test_defect_14_the_input_stays_as_it_is(form, row_groups, tmp_path, out):
    """It unpacked into it; here it may even be read-only."""
    truth = make_bundle(tmp_path / "bundle", **{**SMALL, **form})
    for path in [truth.folder, *truth.folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = fingerprint(truth.folder)
    export(truth.folder, out, row_groups=row_groups)
    assert fingerprint(truth.folder) == before
    for path in [truth.folder, *truth.folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(truth.folder)
    assert json.loads((out / "landscape_parameters.json").read_text())["technology"] == "Xenium"
