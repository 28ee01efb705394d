"""LandscapeFiles in tasks, and gone on with: the same bytes as of one local run, whatever happens on the way."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from tests.bundles import make_bundle
from tests.landscape_truth import files, put_transcripts
from tests.unit import test_generic as generic
from tests.unit import test_spatialdata as spatialdata
from tests.unit.test_segmentation_folder import geoparquet, point, triangle

import atlaswriter as aw
from atlaswriter.engine.gathered import GatheredFile
from atlaswriter.errors import IncompleteError, InputError, OutputError
from atlaswriter.formats.landscape import tiles
from atlaswriter.sinks import fs
from atlaswriter.sinks.journal import Journal
from atlaswriter.sinks.runfolder import RunFolder

SMALL = {"n_cells": 60, "n_genes": 8, "n_transcripts": 3000, "image": (260, 330), "channels": 2, "row_group": 300}
# Bytes a task reads: so few that every source is read, and written, by several.
SIZE = 6000


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", **SMALL, seed=11)


def local(bundle, folder, **options):
    folder.mkdir()
    return aw.landscape(bundle, folder / "out", progress=False, workers=2, **options)


def planned(bundle, folder, *, size=SIZE, **options):
    folder.mkdir(exist_ok=True)
    given = {"task_size": size, "workers": 2, "memory_budget": "4GiB"} | options
    return aw.plan_tasks(bundle, folder / "out", folder / "run", to="landscape", **given)


def stages(plan):
    return {stage.name: len(stage.tasks) for stage in plan.stages}


def told(report):
    """What a report says of the export, and not of how it was made."""
    kept = ("format", "contents", "warnings", "bytes_in", "bytes_out", "files", "renamed")
    return json.loads(json.dumps({name: report.to_dict()[name] for name in kept}))


def assert_same(bundle, tmp_path, **options):
    """One export in one go and in tasks, each task in a run of its own and these in any order."""
    expected = local(bundle, tmp_path / "local", **options)
    plan = planned(bundle, tmp_path / "tasks", **options)
    order = random.Random(5)
    for stage in plan.stages:
        for number in order.sample(range(len(stage.tasks)), len(stage.tasks)):
            aw.run(tmp_path / "tasks" / "run", stage.name, [number], progress=False)
    report = aw.finish(tmp_path / "tasks" / "run", progress=False)
    assert files(tmp_path / "tasks" / "out") == files(tmp_path / "local" / "out")
    assert told(report) == told(expected)
    assert aw.check(tmp_path / "tasks" / "out").ok
    return plan


def put_segmentation(folder, genes):
    """A folder of Celldega's custom segmentation, with three cells."""
    folder.mkdir()
    parameters = {"technology": "custom", "segmentation_approach": folder.name}
    (folder / "segmentation_parameters.json").write_text(json.dumps(parameters))
    index = pd.Index(["s-3", "s-1", "s-2"], name="cell_index")
    counts = pd.DataFrame(np.arange(3 * len(genes)).reshape(3, -1), index=index, columns=list(genes))
    counts.to_parquet(folder / "cell_by_gene_matrix.parquet")
    places = [(10 + 9 * k, 12 + 5 * k) for k in range(3)]
    centers = pd.DataFrame({"centroid": [point(*place) for place in places]}, index=index)
    geoparquet(centers, folder / "cell_metadata_micron_space.parquet", "centroid")
    shapes = pd.DataFrame({"geometry": [triangle(*place) for place in places]}, index=index)
    geoparquet(shapes, folder / "cell_polygons.parquet", "geometry")


def put_strangers(truth, folder):
    """A copy of a bundle, each part of whose transcripts has features that no matrix has, in an order of its own."""
    shutil.copytree(truth.folder, folder)
    path = folder / "transcripts.parquet"
    table, rng = pq.read_table(path), np.random.default_rng(2)
    names = table["feature_name"].to_pylist()
    for start in range(0, len(names), SMALL["row_group"]):
        for where in rng.integers(start, min(start + SMALL["row_group"], len(names)), 40):
            names[where] = f"new-{'zyxabc'[rng.integers(6)]}/{rng.integers(4)}"
    changed = table.set_column(table.schema.get_field_index("feature_name"), "feature_name", pa.array(names))
    pq.write_table(changed, path, row_group_size=SMALL["row_group"])


# --- the same bytes


def test_loose_tiles(truth, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "_PIECE_BYTES", 900)
    found = stages(assert_same(truth.folder, tmp_path, tile_size=60))
    assert found["records"] > 4
    assert found["tiles"] > 2
    assert (found["images"], found["genes"]) == (2, 1)


def test_row_groups(truth, tmp_path):
    assert_same(truth.folder, tmp_path, tile_size=60, row_groups=True, max_row_groups_per_file=4)
    assert len(list((tmp_path / "tasks" / "out" / "transcripts").iterdir())) > 3


def test_everything_that_can_be_chosen(truth, tmp_path):
    options = {"compat": True, "region": (5, 5, 50, 45), "min_qv": 22, "drop_controls": True, "preview": True}
    assert_same(truth.folder, tmp_path, channels=["bound"], image_max={"bound": 900}, **options)


def test_features_that_only_transcripts_know(truth, tmp_path):
    """Each task meets other ones, in another order; ids are those of one run."""
    put_strangers(truth, tmp_path / "bundle")
    assert_same(tmp_path / "bundle", tmp_path, tile_size=100)
    report = json.loads((tmp_path / "tasks" / "run" / "finished.json").read_text())
    assert any("features of transcripts are not in the matrix" in text for text in report["warnings"])
    assert any(old.startswith("new-") for _, old, _ in report["renamed"])


def test_spatialdata(tmp_path):
    spatialdata.Store(tmp_path / "data.zarr", 2).table().points().shapes().image()
    assert_same(tmp_path / "data.zarr", tmp_path, row_groups=True)


def test_further_segmentations(truth, tmp_path):
    put_segmentation(tmp_path / "proseg", (truth.features[2], "zz-new"))
    put_segmentation(tmp_path / "cellpose", ("AA-new", truth.features[0]))
    plan = assert_same(truth.folder, tmp_path, segmentations=[tmp_path / "proseg", tmp_path / "cellpose"])
    assert stages(plan)["genes"] == 3


def test_left_of_and_above_the_image(tmp_path):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    rng = np.random.default_rng(1)
    put_transcripts(truth, rng.uniform(-20, 60, (len(truth.gene), 2)).astype(np.float32), row_group=300)
    assert_same(truth.folder, tmp_path, tile_size=50)
    for name in ("local", "tasks"):
        shutil.rmtree(tmp_path / name)
    assert_same(truth.folder, tmp_path, tile_size=50, row_groups=True)


def test_transcripts_as_csv(tmp_path):
    """A file that only one task can read."""
    truth = make_bundle(tmp_path / "bundle", **SMALL, parquet=False)
    plan = assert_same(truth.folder, tmp_path)
    assert stages(plan)["records"] == 2


def test_without_image_and_tiles(tmp_path):
    generic.nowhere().write_h5ad(tmp_path / "cells.h5ad")
    assert stages(assert_same(tmp_path / "cells.h5ad", tmp_path, clusters="louvain")) == {"genes": 1}


def test_anndata_with_files_beside_it(tmp_path, monkeypatch):
    """Paths are those of whoever planned, wherever tasks are run; names of columns stay names."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    generic.made().write_h5ad("cells.h5ad")
    table = {"target": ["A", "B", "C", "A"], "x_global_px": [1.25, 300, 5, 9], "y_global_px": [2.5, 4, 6, 60]}
    pq.write_table(pa.table(table), "tx.parquet", row_group_size=2)
    vertices = {"cell": ["c1"] * 3 + ["c3"] * 4, "x": [0.0, 9, 0, 50, 59, 59, 50], "y": [0.0, 0, 9, 60, 60, 69, 60]}
    pq.write_table(pa.table(vertices), "vertices.parquet")
    tifffile.imwrite("image.tif", np.arange(60 * 80, dtype=np.uint16).reshape(60, 80))
    options = {
        "transcripts": "tx.parquet", "polygons": "vertices.parquet", "images": "image.tif", "clusters": "leiden",
        "channel_names": ["nuclei"], "transform": np.diag([2.0, 2, 1]), "technology": "CosMx", "tile_size": 20,
    }  # fmt: skip
    local("cells.h5ad", tmp_path / "local", **options)
    plan = planned("cells.h5ad", tmp_path / "tasks", size=100, **options)
    assert plan.arguments["transcripts"] == str(tmp_path / "in" / "tx.parquet")
    assert plan.arguments["clusters"] == "leiden"
    monkeypatch.chdir("/")
    aw.run(tmp_path / "tasks" / "run", progress=False)
    aw.finish(tmp_path / "tasks" / "run", progress=False)
    assert files(tmp_path / "tasks" / "out") == files(tmp_path / "local" / "out")


def test_positions_are_two_columns(tmp_path):
    adata = generic.nowhere()
    adata.obs["x"], adata.obs["y"] = [1.0, 5, 9], [2.0, 6, 70]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(tmp_path / "cells.h5ad", tmp_path, positions=("x", "y"))


def test_little_memory(truth, tmp_path):
    """Records wait in temporary files, which are gone afterwards, and so is the folder they were in."""
    (tmp_path / "spill").mkdir()
    assert_same(truth.folder, tmp_path, strategy="spill", spill_dir=tmp_path / "spill", tile_size=60)
    assert not list((tmp_path / "spill").iterdir())
    assert sorted(path.name for path in (tmp_path / "tasks" / "run").iterdir()) == [
        "finished.json", "journal", "plan.json",
    ]  # fmt: skip


# --- what goes wrong


def test_stages_wait_for_each_other(truth, tmp_path):
    plan = planned(truth.folder, tmp_path)
    for name in ("tiles", "genes"):
        with pytest.raises(IncompleteError, match="stage records"):
            aw.run(tmp_path / "run", name, progress=False)
    aw.run(tmp_path / "run", "images", progress=False)
    with pytest.raises(IncompleteError) as caught:
        aw.finish(tmp_path / "run", progress=False)
    assert set(caught.value.missing) == {stage.name for stage in plan.stages} - {"images"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "byte", "foreign", "gone"])
def test_damaged_records(damage, truth, tmp_path):
    """They are noticed, and made again by the task that made them."""
    local(truth.folder, tmp_path / "local")
    planned(truth.folder, tmp_path / "tasks")
    run = tmp_path / "tasks" / "run"
    aw.run(run, "records", progress=False)
    first, second, *_ = sorted((run / "parts").iterdir())
    content = first.read_bytes()
    if damage == "gone":
        first.unlink()
    else:
        middle = content[:40] + bytes([content[40] ^ 1]) + content[41:]
        other = second.read_bytes()
        first.write_bytes({"cut": content[:-1], "byte": middle, "foreign": other}[damage])
    with pytest.raises((OutputError, IncompleteError), match=r"run the task again|stage records: 1 task"):
        aw.run(run, "tiles", progress=False)
    # One of the right size, whatever is in it, is found out only when it is read; ours is deleted then.
    if damage == "foreign":
        first.unlink()
    assert not first.exists() or damage == "cut"
    for stage in ("records", "tiles", "genes", "images"):
        aw.run(run, stage, progress=False)
    aw.finish(run, progress=False)
    assert files(tmp_path / "tasks" / "out") == files(tmp_path / "local" / "out")


def test_every_byte_of_the_records_counts(truth, tmp_path):
    planned(truth.folder, tmp_path)
    aw.run(tmp_path / "run", "records", [0], progress=False)
    (path,) = (tmp_path / "run" / "parts").iterdir()
    content, dtypes = path.read_bytes(), [np.dtype("u2")] * 3
    key = json.loads((tmp_path / "run" / "plan.json").read_text())
    run = aw.formats.tasks.RunPlan.read(RunFolder(tmp_path / "run")).record.key

    def read():
        file = GatheredFile(path, run, dtypes)
        return file.note, file.totals(), [part.n_bytes for part in file.pieces(-(2**62), 2**62)]

    assert read()[0] == []
    assert key["format"] == "landscape"
    for position in np.random.default_rng(0).integers(0, len(content), 60).tolist():
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(OutputError, match="run the task again"):
            read()
    for size in (0, 7, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(OutputError, match="run the task again"):
            read()


def test_twice_and_killed(truth, tmp_path):
    """Tasks that were done are left alone; what a killed one has left does no harm."""
    local(truth.folder, tmp_path / "local", row_groups=True)
    planned(truth.folder, tmp_path / "tasks", row_groups=True)
    run = tmp_path / "tasks" / "run"
    code = (
        "import os, signal, sys, atlaswriter as aw\nfrom atlaswriter.sinks import fs\nreplace, calls = fs.replace, []\n"
        "def mortal(*paths):\n    calls.append(paths)\n    if len(calls) == int(sys.argv[2]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n    return replace(*paths)\n"
        "fs.replace = mortal\naw.run(sys.argv[1], progress=False)\n"
    )
    for moment in (3, 5):
        child = subprocess.run([sys.executable, "-c", code, str(run), str(moment)], check=False)
        assert child.returncode == -signal.SIGKILL
    report = aw.run(run, progress=False)
    assert any(report.skipped.values())
    again = aw.run(run, progress=False)
    assert not any(again.done.values())
    aw.finish(run, progress=False)
    assert files(tmp_path / "tasks" / "out") == files(tmp_path / "local" / "out")


def test_an_input_that_was_changed(tmp_path):
    truth = make_bundle(tmp_path / "bundle", **SMALL)
    planned(truth.folder, tmp_path / "tasks")
    aw.run(tmp_path / "tasks" / "run", "records", progress=False)
    os.utime(truth.folder / "transcripts.parquet", ns=(1, 1))
    with pytest.raises(InputError, match=r"transcripts\.parquet was changed"):
        aw.run(tmp_path / "tasks" / "run", progress=False)


def test_an_object_cannot_be_shared(tmp_path):
    with pytest.raises(InputError, match="what is in memory cannot be shared"):
        planned(generic.made(), tmp_path)


# --- an estimate


def test_an_estimate(truth, tmp_path):
    for row_groups in (False, True):
        plan = aw.plan(truth.folder, tmp_path / "out", to="landscape", row_groups=row_groups, workers=2)
        local(truth.folder, tmp_path / f"local{row_groups}", row_groups=row_groups)
        written = files(tmp_path / f"local{row_groups}" / "out")
        assert len(written) * 0.8 < plan.files < len(written) * 1.3
        assert 0 < plan.least <= plan.memory <= plan.budget
        assert plan.seconds > 0
        assert plan.spill_bytes == 0
        assert plan.bytes_out > 0
    assert not (tmp_path / "out").exists()
    spilling = aw.plan(truth.folder, tmp_path / "out", to="landscape", strategy="spill")
    assert spilling.spill_bytes >= 6 * SMALL["n_transcripts"]


# --- going on

WAYS = {
    "loose": {"tile_size": 60},
    "row groups": {"tile_size": 60, "row_groups": True, "max_row_groups_per_file": 8},
    "spilled": {"tile_size": 60, "strategy": "spill"},
}


class Stop(Exception):
    """An interruption."""


CONCLUDE = "atlaswriter.formats.landscape.write.conclude"


def stop(*arguments):
    raise Stop


def killed_at_the_end(bundle, out, monkeypatch):
    """All parts are written, and what tells of them is not."""
    with monkeypatch.context() as patch:
        patch.setattr(CONCLUDE, stop)
        with pytest.raises(Stop):
            go_on(bundle, out)


def stopping(monkeypatch, after):
    """The journal takes so many lines, and then everything ends; what was being written is there, unproven."""
    add, count = Journal.add, iter(range(1 << 30))

    def mortal(journal, entry):
        if next(count) >= after:
            raise Stop
        add(journal, entry)

    monkeypatch.setattr(Journal, "add", mortal)


def interrupted(out):
    """The run folder that was left, and identity of every file that is proven."""
    (run,) = (RunFolder(path) for path in out.parent.iterdir() if (path / "plan.json").exists())
    proven = Journal(run.journal).proven(run.files, read=True)
    names = {name for entry in proven.values() for name in entry.files}
    return proven, {name: identity(run.files / name) for name in names}


def identity(path):
    return path.stat().st_ino, path.stat().st_mtime_ns


def go_on(bundle, out, **options):
    return aw.landscape(bundle, out, progress=False, resume=True, **options)


@pytest.mark.parametrize("way", WAYS)
def test_going_on(way, truth, tmp_path, monkeypatch):
    """Wherever it was interrupted: the same bytes, and what was proven is not written again."""
    monkeypatch.setattr(tiles, "_PIECE_BYTES", 2500)
    expected = local(truth.folder, tmp_path / "local", **WAYS[way])
    out = tmp_path / "out"
    for after in (0, 1, 2, 3, 7, 13, 1000):
        with monkeypatch.context() as patch:
            stopping(patch, after)
            patch.setattr(CONCLUDE, stop)
            with pytest.raises(Stop):
                go_on(truth.folder, out, workers=1 + after % 2, **WAYS[way])
        assert not out.exists()
        entries, before = interrupted(out)
        assert len(entries) >= min(after, 5)
        report = go_on(truth.folder, out, **WAYS[way])
        assert files(out) == files(tmp_path / "local" / "out"), after
        assert {name: identity(out / name) for name in before} == before
        assert told(report) == told(expected)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        shutil.rmtree(out)
    assert before.keys() > {"cell_metadata.parquet", "meta_gene.parquet", "pyramid_images/dapi.dzi"}


def test_what_is_done_is_not_read_again(truth, tmp_path, monkeypatch):
    """Killed at the end, only the end is done; matrix, transcripts and pixels are not looked at."""
    local(truth.folder, tmp_path / "local")
    out = tmp_path / "out"
    killed_at_the_end(truth.folder, out, monkeypatch)
    for name in ("transcripts.TranscriptReader.read", "outlines.OutlineReader.read", "genes.GeneWriter._give_out"):
        monkeypatch.setattr(f"atlaswriter.formats.landscape.{name}", None)
    monkeypatch.setattr("atlaswriter.formats.landscape.channels.write_pyramid", None)
    go_on(truth.folder, out)
    assert files(out) == files(tmp_path / "local" / "out")


def test_a_file_that_was_damaged_meanwhile(truth, tmp_path, monkeypatch):
    """One of each kind: they are made again, and only they."""
    local(truth.folder, tmp_path / "local")
    out = tmp_path / "out"
    killed_at_the_end(truth.folder, out, monkeypatch)
    (run,) = (RunFolder(path) for path in tmp_path.iterdir() if (path / "journal").is_dir())
    before = {path.relative_to(run.files).as_posix(): identity(path) for path in run.files.rglob("*.*")}
    gene = next(path for path in (run.files / "cbg").iterdir())
    damaged = [gene, run.files / "transcript_tiles" / "transcripts_tile_0_0.parquet", run.files / "meta_gene.parquet"]
    for path in damaged[:2]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    damaged[2].unlink()
    go_on(truth.folder, out)
    assert files(out) == files(tmp_path / "local" / "out")
    assert identity(out / "cell_metadata.parquet") == before["cell_metadata.parquet"]
    for path in damaged:
        name = path.relative_to(run.files).as_posix()
        assert identity(out / name) != before[name]


def test_interrupted_again_and_again(truth, tmp_path, monkeypatch):
    """Each time a little further."""
    put_strangers(truth, tmp_path / "bundle")
    local(tmp_path / "bundle", tmp_path / "local", **WAYS["loose"])
    out, done = tmp_path / "out", 0
    for _ in range(20):
        with monkeypatch.context() as patch:
            stopping(patch, 2)
            try:
                go_on(tmp_path / "bundle", out, **WAYS["loose"])
                break
            except Stop:
                entries, _ = interrupted(out)
                assert len(entries) > done
                done = len(entries)
    assert done > 5
    assert files(out) == files(tmp_path / "local" / "out")


def test_killed_and_gone_on_with(truth, tmp_path):
    """Another process is killed while it writes files."""
    local(truth.folder, tmp_path / "local")
    out = tmp_path / "out"
    code = (
        "import os, signal, sys, atlaswriter as aw\ncalls, write = [], os.write\n"
        "def mortal(*args):\n    calls.append(1)\n    if len(calls) == int(sys.argv[3]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n    return write(*args)\n"
        "os.write = mortal\naw.landscape(sys.argv[1], sys.argv[2], progress=False, workers=2)\n"
    )
    for moment in (12, 45):
        child = subprocess.run([sys.executable, "-c", code, str(truth.folder), str(out), str(moment)], check=False)
        assert child.returncode == -signal.SIGKILL
        _, before = interrupted(out)
        go_on(truth.folder, out)
        assert files(out) == files(tmp_path / "local" / "out")
        assert {name: identity(out / name) for name in before} == before
        fs.remove_tree(out)


def test_what_was_changed_is_said(tmp_path, monkeypatch):
    truth, out = make_bundle(tmp_path / "bundle", **SMALL), tmp_path / "out"
    with monkeypatch.context() as patch:
        stopping(patch, 3)
        with pytest.raises(Stop):
            go_on(truth.folder, out)
    with pytest.raises(InputError, match="option min_qv was null, now it is 20"):
        go_on(truth.folder, out, min_qv=20)
    os.utime(truth.folder / "cells.parquet", ns=(1, 1))
    with pytest.raises(InputError, match=r"cells\.parquet was changed"):
        go_on(truth.folder, out)
    assert not out.exists()
    with pytest.raises(InputError, match="what is in memory cannot be proven unchanged"):
        go_on(generic.made(), tmp_path / "other")
