"""`atlaswriter bench`: what it makes up, how it measures, and what it says."""

import contextlib
import gzip
import io
import json
import shutil
import stat
import sys
import time
from itertools import pairwise
from pathlib import Path

import anndata
import h5py
import matplotlib.image
import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from scipy.io import mmread

import atlaswriter as aw
from atlaswriter.bench import atlas, bundle, child, plot, rivals, run, show, stages, yardsticks
from atlaswriter.bench.settings import Settings, number
from atlaswriter.cli.main import run as command
from atlaswriter.errors import InputError, OutputError, Problems
from atlaswriter.formats.cellucid import convert
from atlaswriter.sinks import fs

STICKS = yardsticks.Yardsticks(
    memcpy=1e9, memcpy_all=2e9, write=5e8, disk=1e8, files=1000, gzip=1e8, gzip_all=2e8, inflate=3e8, workers=2
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100_000", 100_000), ("1,000", 1000), ("12,345,678", 12_345_678), ("1,234.5k", 1_234_500), ("100e3", 100_000),
        ("1.5M", 1_500_000), (" 2 k ", 2000), ("0", 0),
    ],
)  # fmt: skip
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "-1", "1.5", "ten", "1e", "1e99", "nan", "inf", "1 2", "0x10", "1M1", "1,5M", "12,34", "1000,000",
        "1,000,00", ",100", "100,", "1,,000", "1,000_000", "1.5,000M", "_1", "1_", "1__0",
    ],
)  # fmt: skip
def test_what_is_no_number(text):
    with pytest.raises(ValueError, match="number"):
        number(text)


# ---------------------------------------------------------------- settings


def found(settings):
    problems = Problems()
    settings.check(problems)
    return [problem.where for problem in problems.found]


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    assert found(Settings()) == []
    assert found(Settings(cells=0, transcripts=0)) == ["--cells, --transcripts"]
    wrong = Settings(cells=50, genes=1, density=2, transcripts=10, memory_budget="much", folder=tmp_path / "gone")
    assert found(wrong) == ["--density", "--genes", "--cells", "--transcripts", "--memory-budget", "--folder"]
    assert found(Settings(cells=1000, sizes=(0.01, 1.0))) == ["--cells"]
    for sizes in ((), (0.0,), (float("nan"),), (float("inf"),), (-1.0, 1.0)):
        assert found(Settings(sizes=sizes)) == ["--sizes"]


def test_a_full_disk_is_refused_with_numbers(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 30))
    small = Settings(cells=10_000, transcripts=10_000)
    small.refuse_full_disk(tmp_path, 0)
    with pytest.raises(OutputError, match=r"about [\d.]+ GiB are needed for the largest size, 1 GiB are free.*--fold"):
        Settings(cells=100_000, sizes=(1, 40)).refuse_full_disk(tmp_path, 0)
    with pytest.raises(OutputError, match="are free"):
        run.bench(Settings(cells=10**7, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the bundle


def matrix_of(folder):
    with h5py.File(folder / "cell_feature_matrix.h5") as file:
        parts = [file[f"matrix/{name}"][:] for name in ("data", "indices", "indptr")]
    dense = np.zeros((parts[2].size - 1, 30), int)
    for row, (first, last) in enumerate(pairwise(parts[2])):
        np.add.at(dense[row], parts[1][first:last], parts[0][first:last])
    return dense


def test_bundles_count_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_BATCH", 1000)
    monkeypatch.setattr(bundle, "_CELL_BATCH", 10)
    data = bundle.make_bundle(tmp_path / "bundle", 5000, 30, originals=True)
    assert (data["transcripts"], data["cells"], data["vertices"]) == (5000, 50, 50 * 13)
    table = pq.read_table(tmp_path / "bundle" / "transcripts.parquet")
    assert table.num_rows == 5000
    cells = pq.read_table(tmp_path / "bundle" / "cells.parquet")["cell_id"].to_pylist()
    assert len(set(cells)) == 50
    place = {name: row for row, name in enumerate(cells)}
    counts = np.zeros((50, 30), int)
    for cell, gene, qv in zip(*(table[name].to_pylist() for name in ("cell_id", "feature_name", "qv")), strict=True):
        if cell != "UNASSIGNED" and qv >= 20:
            counts[place[cell], int(gene.removeprefix("GENE"))] += 1
    assert 0.5 < counts.sum() / 5000 < 0.62
    np.testing.assert_array_equal(matrix_of(tmp_path / "bundle"), counts)
    with gzip.open(tmp_path / "bundle" / "cell_feature_matrix" / "matrix.mtx.gz") as file:
        np.testing.assert_array_equal(mmread(file).toarray().T, counts)
    assert data["nonzeros"] == np.count_nonzero(counts)
    with gzip.open(tmp_path / "bundle" / "cells.csv.gz") as file:
        assert pacsv.read_csv(file)["cell_id"].to_pylist() == cells
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert data["input_bytes"] == sum(path.stat().st_size for path in files)


def test_bundles_are_exported_and_repeat(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        bundle.make_bundle(tmp_path / name, 3000, 20, seed=seed, originals=True)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    # The archive of the transform carries a clock, as zip files do.
    names = [name for name in names if name.suffix != ".zip"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    assert (tmp_path / "one/transcripts.parquet").read_bytes() != (tmp_path / "other/transcripts.parquet").read_bytes()
    report = aw.landscape(tmp_path / "one", tmp_path / "out", progress=False, workers=1)
    shown = report.contents
    assert (shown["transcripts"], shown["cells"], shown["outlines"], shown["genes"]) == (3000, 30, 30, 20)
    assert report.warnings == []
    assert aw.check(tmp_path / "out").ok


# ---------------------------------------------------------------- yardsticks and stages


def test_yardsticks_are_measured(tmp_path):
    found = yardsticks.measure(tmp_path, 2, most_bytes=1 << 20)
    speeds = found.to_dict()
    assert speeds.pop("workers") == 2
    assert all(1e3 < speed < 1e13 for name, speed in speeds.items() if name.endswith("bytes_per_second"))
    assert 1 < speeds["files_per_second"] < 1e7
    assert speeds["disk_bytes_per_second"] < speeds["write_bytes_per_second"]
    (small,) = tmp_path.iterdir()
    assert {path.stat().st_size for path in small.iterdir()} == {yardsticks.FILE_BYTES}


def test_what_a_yardstick_alone_takes():
    assert STICKS.seconds("memcpy", 4e9) == 2
    assert STICKS.seconds("ISA-L", 4e8) == 2
    assert STICKS.seconds("write", 15e8, 10) == 3
    assert STICKS.seconds("write", 1e8, 5000) == 5
    assert STICKS.seconds("sync", 1e9) == 8


def test_stages_have_their_rates():
    data = {"cells": 1000, "genes": 100, "nonzeros": 10_000, "obs_bytes": 10, "latent": 5, "edges": 1000}
    parts = [
        {"stage": "encode genes", "seconds": 0.001, "cpu_seconds": 0.002, "peak_bytes": 7, "bytes_out": 10, "files": 0},
        {
            "stage": "write gene files",
            "seconds": 0.5,
            "cpu_seconds": 0.1,
            "peak_bytes": 7,
            "bytes_out": 50,
            "files": 100,
        },
    ]
    phases = [{"name": name, "seconds": 0.25} for name in ("open", "kernels", "write", "publish")]
    whole = {"bytes": 10**7, "start_seconds": 0.75}
    rows = {row["stage"]: row for row in stages.cellucid_stages(data, phases, parts, whole, STICKS)}
    assert list(rows) == ["start", "open", "load kernels", "encode genes", "write gene files", "publish"]
    assert {row["ns_per_unit"] * 10_000 / 1e9 - row["seconds"] for row in rows.values()} == {0}
    encode, write, publish = rows["encode genes"], rows["write gene files"], rows["publish"]
    assert encode["bytes_in_per_second"] == pytest.approx(1e8)
    assert encode["share_of_bound"] == pytest.approx(0.5)  # 100 kB at 200 MB/s
    assert write["share_of_bound"] == pytest.approx(0.2)  # 100 files at 1000 a second
    assert publish["share_of_bound"] == pytest.approx(0.32)  # 10 MB at 100 MB/s, but they are written already
    # What is only in memory, or was written before, is not written by a stage.
    assert (encode["bytes_out"], encode["bytes_written"]) == (10, None)
    assert (publish["bytes_out"], publish["bytes_written"], publish["files"]) == (10**7, None, None)
    assert write["bytes_out"] == write["bytes_written"] == 50
    assert rows["start"]["share_of_bound"] is rows["start"]["bytes_in"] is None


def test_files_of_a_landscape_belong_to_stages():
    data = {"transcripts": 1000, "vertices": 10, "nonzeros": 5, "cells": 2, "pixels": 100}
    sizes = {
        "transcript_tiles/transcripts_tile_0_0.parquet": 5, "transcript_tiles/transcripts_tile_0_1.parquet": 6,
        "cbg/A.parquet": 7, "meta_gene.parquet": 8, "cell_metadata.parquet": 9, "landscape_parameters.json": 1,
    }  # fmt: skip
    phases = [{"name": name, "seconds": 1.0} for name in ("transcripts", "outlines", "genes", "cells", "publish")]
    rows = {row["stage"]: row for row in stages.landscape_stages(data, phases, {"start_seconds": 1}, sizes, STICKS)}
    written = {name: (row["bytes_written"], row["files"]) for name, row in rows.items() if row["files"]}
    assert written == {"transcripts": (11, 2), "genes": (15, 2), "cells": (9, 1)}
    assert (rows["publish"]["bytes_out"], rows["publish"]["bytes_written"]) == (36, None)
    assert rows["transcripts"]["ns_per_unit"] == 1e6
    assert rows["outlines"]["bytes_out"] is None


def test_growth_has_a_power():
    rows = [{"units": units, "seconds": 3 * units**1.2} for units in (10, 100, 1000)]
    assert run.exponent(rows, "seconds") == pytest.approx(1.2)
    assert run.exponent(rows[:1], "seconds") is None


# ---------------------------------------------------------------- originals


def program(folder, text):
    """Something that can be called as a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def refused(*given):
    problems = Problems()
    assert rivals.find(given, problems) == []
    return [str(problem) for problem in problems.found]


def test_originals_that_are_not_there(tmp_path, monkeypatch):
    gone = tmp_path / "no" / "python"
    (text,) = refused(f"cellucid={gone}")
    assert f"{str(gone)!r} cannot be run" in text
    assert 'pip install "cellucid==0.0.9" "pandas<3"' in text
    monkeypatch.setenv("CELLDEGA027_PYTHON", str(gone))
    (text,) = refused("celldega")
    assert "celldega==0.27.0" in text
    assert "'other' is not known" in refused("other=x")[0]
    assert len(refused(f"cellucid={gone}", "other", f"celldega={gone}")) == 3
    program(tmp_path, "echo No module named cellucid >&2; exit 1")
    assert "has no cellucid that works (No module named cellucid)" in refused(f"cellucid={tmp_path}/python")[0]
    program(tmp_path, "echo hello")
    assert "is not a Python" in refused(f"cellucid={tmp_path}/python")[0]


def test_other_versions_are_refused_and_the_right_one_is_found(tmp_path):
    python = program(tmp_path, """echo '{"versions": {"cellucid": "0.9.5"}}'""")
    assert "has version 0.9.5, 0.0.9 is needed" in refused(f"cellucid={python}")[0]
    program(tmp_path, """echo '{"versions": {"cellucid": "0.0.9"}, "export_seconds": 2}'""")
    problems = Problems()
    (rival,) = rivals.find([f"cellucid={python}", "cellucid=x"], problems)
    assert [problem.found for problem in problems.found] == ["cellucid is named twice"]
    assert (rival.name, rival.verb, rival.versions) == ("cellucid", "cellucid", {"cellucid": "0.0.9"})
    assert rival.run(Path("a"), tmp_path / "b")["result"]["export_seconds"] == 2
    assert rivals.ratios(dict.fromkeys(rivals.COMPARED, 2), dict.fromkeys(rivals.COMPARED, 3))["bytes"] == 1.5


@pytest.mark.parametrize("name", ["cellucid", "celldega"])
def test_what_runs_elsewhere_imports_nothing_of_ours(name):
    text = Path(rivals.__file__).with_name(f"rival_{name}.py").read_text()
    assert "import atlaswriter" not in text
    assert "from atlaswriter" not in text


# ---------------------------------------------------------------- the command


STAGES = ["read + regroup", "encode genes", "write gene files", "points", "obs", "graph", "publish"]
COSTS = {
    "seconds", "start_seconds", "work_seconds", "cpu_seconds", "peak_bytes", "bytes", "files", "all_seconds",
    "spill_bytes", "ns_per_unit",
}  # fmt: skip


def mostly_here(task, what, folder, measured=run._child, seen=[]):  # noqa: B006 - counts its calls
    """What `run._child` does, in this process but for the first export."""
    seen.append(task["do"])
    if seen.count("export") == 1 and task["do"] == "export":
        return measured(task, what, folder)
    if task["do"] == "warm":
        return {"result": {"compiled": 0, "kept": True}}
    begin = time.perf_counter()
    result = {"export": child.export, "parts": child.parts}[task.pop("do")](**task)
    return {"seconds": time.perf_counter() - begin + 0.01, "cpu_seconds": 0.1, "peak_bytes": 1 << 20, "result": result}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the command prints for tiny sizes, and the picture it draws."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "disk").mkdir()
    words = ["bench", "--cells", "200", "--genes", "20", "--transcripts", "2k", "--sizes", "0.5,1", "-j", "1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(yardsticks, "measure", lambda *_: STICKS)
        patch.setattr(run, "_child", mostly_here)
        code = command([*words, "--folder", str(folder / "disk"), "--plot", str(folder / "out.png"), "--json"])
    assert (code, list((folder / "disk").iterdir())) == (0, [])
    return json.loads(said.getvalue()), folder / "out.png"


def test_the_result_says_what_was_measured_where_and_with_what(printed):
    result, _ = printed
    expected = {"form", "date", "settings", "versions", "machine", "yardsticks", "cellucid", "landscape"}
    assert set(result) == expected
    assert result["settings"] == {
        "cells": 200, "genes": 20, "density": 0.05, "transcripts": 2000, "sizes": [0.5, 1.0], "repeats": 1,
        "workers": 1, "memory_budget": None, "seed": 0,
    }  # fmt: skip
    assert result["versions"]["atlaswriter"] == aw.__version__
    assert set(result["machine"]) > {"cpu", "usable_cpus", "usable_memory", "file_system", "gzip"}
    assert "/" not in json.dumps([result["settings"], result["versions"]])  # no paths of this machine


@pytest.mark.parametrize(("verb", "unit"), [("cellucid", "nonzeros"), ("landscape", "transcripts")])
def test_numbers_of_a_format_agree_with_each_other(printed, verb, unit):
    half = printed[0][verb]
    assert set(half) == {"data", "unit", "whole", "stages", "growth", "exponent", "work_exponent", "against"}
    assert (half["unit"], half["against"], set(half["whole"])) == (unit, {}, COSTS)
    assert [row["size"] for row in half["growth"]] == [0.5, 1.0]
    assert half["growth"][1]["seconds"] == half["whole"]["seconds"]
    units = half["data"][unit]
    for row in (*half["stages"], half["whole"]):
        assert row["seconds"] >= 0
        assert row["ns_per_unit"] == pytest.approx(1e9 * row["seconds"] / units)
    (publish,) = (row for row in half["stages"] if row["stage"] == "publish")
    assert (publish["bytes_out"], publish["bytes_written"]) == (half["whole"]["bytes"], None)
    assert half["whole"]["start_seconds"] + half["whole"]["work_seconds"] < half["whole"]["seconds"]


def test_stages_of_the_cellucid_export_add_up_to_its_files(printed):
    half = printed[0]["cellucid"]
    rows = {row["stage"]: row for row in half["stages"]}
    assert list(rows) == ["start", "open", "read", "load kernels", *STAGES]
    parts = [rows[name] for name in ("write gene files", "points", "obs", "graph")]
    assert sum(row["files"] for row in parts) == half["whole"]["files"]
    # The identity is larger where it tells of all parts.
    assert sum(row["bytes_written"] for row in parts) == pytest.approx(half["whole"]["bytes"], rel=0.2)
    assert [name for name, row in rows.items() if row["bytes_written"]] == [row["stage"] for row in parts]
    assert rows["encode genes"]["bytes_out"] < rows["write gene files"]["bytes_out"]  # manifests


def test_bytes_are_those_of_the_export(printed, tmp_path):
    atlas.generate(tmp_path / "atlas.h5ad", atlas.Recipe(200, 20, 0.05, neighbors=15))
    report = aw.cellucid(tmp_path / "atlas.h5ad", tmp_path / "out", progress=False, workers=1)
    whole = printed[0]["cellucid"]["whole"]
    # Its name stands in it, as does the time.
    assert (whole["files"], whole["bytes"]) == (report.files, report.bytes_out)
    assert printed[0]["cellucid"]["data"]["nonzeros"] == anndata.read_h5ad(tmp_path / "atlas.h5ad").X.nnz


def test_a_picture_is_drawn(printed, tmp_path):
    pixels = matplotlib.image.imread(printed[1])
    assert pixels.shape[:2] == (round(2 * plot.HEIGHT * plot.DPI), round(plot.WIDTH * plot.DPI))
    assert pixels[..., :3].std() > 0.05
    one = {**printed[0]}
    del one["landscape"]
    one["cellucid"] = {**one["cellucid"], "against": {"cellucid": {"seconds": 9.0, "ratios": {"seconds": 3.0}}}}
    plot.draw(one, tmp_path / "one.png")
    assert matplotlib.image.imread(tmp_path / "one.png").shape[0] == round(plot.HEIGHT * plot.DPI)


def test_people_get_a_table(printed):
    result = json.loads(json.dumps(printed[0]))
    costs = {key: 3 * result["landscape"]["whole"][key] for key in rivals.COMPARED}
    ratios = rivals.ratios(result["landscape"]["whole"], costs)
    result["landscape"]["against"] = {"celldega": {**costs, "ratios": ratios, "versions": {"celldega": "0.27.0"}}}
    text = show.as_text(result)
    assert "0.5 GB/s written, 0.1 GB/s with sync, 1,000 files of 20 kB a second" in text
    for row in (*STAGES, "transcripts", "whole", "memcpy", "disk"):
        assert f"\n{row} " in text
    assert "Cellucid export: 200 cells, 20 genes" in text
    assert "Against celldega, whole processes (celldega 0.27.0)" in text
    assert text.count("3.00×") == len(rivals.COMPARED)
    assert max(map(len, text.splitlines())) <= 140
    assert [show.percent(share) for share in (0.001, 0.5, 12.3)] == ["<1 %", "50 %", "1,230 %"]


def test_the_command_refuses_before_it_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "bench", None)
    assert command(["bench", "--cells", "many"]) == 2
    assert command(["bench", "--sizes", "1,x"]) == 2
    assert command(["bench", "-n", "0"]) == 2
    capsys.readouterr()
    words = ["--cells", "0", "--genes", "1", "--plot", "out.svg", "--against", f"cellucid={tmp_path / 'python'}"]
    assert command(["bench", *words, "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert [problem["where"] for problem in answer["problems"]] == ["--genes", "--plot", "--against cellucid"]
    program(tmp_path, """echo '{"versions": {"cellucid": "0.0.9"}}'""")
    assert command(["bench", "--cells", "0", "--against", f"cellucid={tmp_path}/python"]) == 3
    assert "nothing to compare with --cells 0" in capsys.readouterr().err


def test_pictures_need_matplotlib_and_a_place(tmp_path, monkeypatch):
    plot.check(tmp_path / "new.png")
    for path in (tmp_path / "no" / "out.png", tmp_path / "folder.png"):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="cannot be a file"):
            plot.check(path)
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"atlaswriter\[plot\]"):
        plot.check(tmp_path / "new.png")


def test_interrupted_measurements_leave_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(task, what, folder):
        if task["do"] == "export":
            (folder / "out").mkdir()
            raise KeyboardInterrupt
        return {"result": {"compiled": 0, "kept": True}}

    monkeypatch.setattr(yardsticks, "measure", lambda *_: STICKS)
    monkeypatch.setattr(run, "_child", interrupted)
    words = ["--cells", "200", "--genes", "5", "--sizes", "1", "--transcripts", "0"]
    assert command(["bench", *words, "--folder", str(tmp_path)]) == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_cpu_seconds_of_a_part_are_those_of_its_writing(tmp_path, monkeypatch):
    def slow(*_, **__):
        begin = time.process_time()
        while time.process_time() - begin < 0.3:
            pass

    atlas.generate(tmp_path / "atlas.h5ad", atlas.Recipe(200, 20, 0.05, neighbors=15))
    monkeypatch.setattr(fs, "sync_tree", slow)  # publishing is no part of writing
    monkeypatch.setattr(convert, "check_early", slow)  # nor is opening
    cost = child._export_part("points", str(tmp_path / "atlas.h5ad"), str(tmp_path), {"workers": 1})
    assert 0 < cost["cpu_seconds"] < 0.3
    assert cost["seconds"] > 0
    assert cost["files"] > 2


def test_the_measured_process_ends_as_the_command_line_does(tmp_path, monkeypatch, capsys):
    task = {"do": "export", "verb": "cellucid", "source": str(tmp_path / "gone.h5ad"), "out": str(tmp_path / "out")}
    monkeypatch.setattr(sys, "argv", ["child", json.dumps(task)])
    assert child.main() == InputError.exit_code
    shown = capsys.readouterr()
    assert "gone.h5ad" in shown.err
    assert shown.out == ""
