"""Exports in tasks: the same bytes as the local export, whoever does what, when and how often; and what is refused."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import pytest
from tests.tasks_inputs import FIXED, STORAGES, colliding, completed, content, exported, planned, stored

import atlaswriter as aw
from atlaswriter.cli.main import run as cli
from atlaswriter.engine import plan as plans
from atlaswriter.engine import record, strategy
from atlaswriter.errors import BudgetError, IncompleteError, InputError, OutputError
from atlaswriter.formats import tasks
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.sinks import lock
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.journal import Entry, Journal

WAYS = {
    "8 bit": {},
    "float32, plain": {"var_quantization": None, "obs_continuous_quantization": None, "compression": None},
    "16 bit": {"var_quantization": 16, "obs_continuous_quantization": 16, "quantizer": "truncate"},
    "some genes": {"genes": ["g7", "g3", "g20"], "obs": ["score"]},
    "one gene": {"genes": ["g5"]},
    "no expression": {"genes": False},
    "no graph, latent space or vectors": {"graph": False, "latent": False, "vector_fields": False},
    "spilled": {"strategy": "spill", "exclude_obs": ["kind"]},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The path of the atlas in a storage."""
    known = {}

    def get(storage="csr"):
        if storage not in known:
            known[storage] = stored(tmp_path_factory.mktemp("atlas"), storage)
        return known[storage]

    return get


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """What the local export of the first storage gives."""
    return exported(source(), tmp_path_factory.mktemp("expected"))


@pytest.fixture
def own(tmp_path):
    """An atlas that may be changed."""
    return stored(tmp_path)


@pytest.fixture
def small_ranges(monkeypatch):
    """Even a small matrix is sorted in many parts, and given out in many ranges of genes."""
    monkeypatch.setattr(strategy, "layout_of", lambda entries: (150, 60))


def listing(folder):
    """Everything below a folder: links, sizes, times."""
    return {
        path.relative_to(folder).as_posix(): (os.readlink(path) if path.is_symlink() else "", path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


# ---------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("way", ["8 bit", "float32, plain"])
@pytest.mark.parametrize("storage", STORAGES)
def test_identical_for_every_storage(storage, way, source, tmp_path):
    local = exported(source(storage), tmp_path / "local", **WAYS[way])
    assert completed(source(storage), tmp_path / "tasks", **WAYS[way]) == local
    assert len(local) > 30
    assert {path.name for path in (tmp_path / "tasks").iterdir()} == {"out", "run"}


@pytest.mark.parametrize("way", list(WAYS)[2:])
@pytest.mark.parametrize("storage", ["csr", "dense"])
def test_identical_for_every_option(storage, way, source, tmp_path):
    local = exported(source(storage), tmp_path / "local", **WAYS[way])
    assert completed(source(storage), tmp_path / "tasks", **WAYS[way]) == local


def test_identical_with_renamed_genes_and_merged_categories(tmp_path):
    path, options = colliding(tmp_path), {"make_unique": True, "merge_equal_categories": True}
    with pytest.raises(InputError, match="2 problems"):
        planned(path, tmp_path / "refused")
    local = exported(path, tmp_path / "local", **options)
    assert completed(path, tmp_path / "tasks", **options) == local
    assert sum("a_b" in name for name in local) == 2


def test_nothing_but_one_embedding(tmp_path):
    path = stored(tmp_path, tables=False, genes=1)
    for options in ({"genes": False}, {}):
        name = str(len(options))
        local = exported(path, tmp_path / f"local{name}", **options)
        folder = tmp_path / f"tasks{name}{'' if options else '-genes'}"
        shutil.rmtree(tmp_path / f"local{name}")
        assert completed(path, folder, **options) == local


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("task_size", ["1 B", "1 GiB"])
def test_tasks_of_any_size(storage, task_size, source, small_ranges, tmp_path):
    run, plan, out = planned(source(storage), tmp_path, task_size=task_size)
    assert max(len(stage.tasks) for stage in plan.stages) <= 150
    if task_size == "1 B":
        assert len(plan.stage("genes").tasks) >= 18
    aw.run(run)
    aw.finish(run)
    assert content(out) == exported(source(storage), tmp_path / "local")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("storage", ["csr", "csc"])
def test_any_order_twice_with_any_resources(storage, seed, source, expected, small_ranges, tmp_path):
    choose = random.Random(seed)
    run, plan, out = planned(source(storage), tmp_path, task_size="500 B")
    for stage in choose.choice([plan.stages, (*plan.stages[1:], plan.stages[0])]):
        numbers = [task.number for task in stage.tasks] * 2
        choose.shuffle(numbers)
        while numbers:
            some = [numbers.pop() for _ in range(min(len(numbers), choose.randint(1, 6)))]
            budget = choose.choice([None, "3GiB", 8 << 30])
            report = aw.run(run, stage.name, some, workers=choose.choice([None, 1, 3]), memory_budget=budget)
            assert sorted(report.done[stage.name] + report.skipped[stage.name]) == sorted(set(some))
    assert aw.finish(run).files == len(expected)
    assert content(out) == expected
    assert {path.name for path in run.iterdir()} == {"finished.json", "journal", "plan.json"}


# Does everything of a plan several times, whatever is done already, once it is told to.
CHILD = """
import sys
import atlaswriter as aw
from atlaswriter.formats import tasks

tasks.missing_tasks = lambda stage, done: [task.number for task in stage.tasks]
aw.plan(*sys.argv[2:], memory_budget="4GiB")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    aw.run(sys.argv[1])
with open("/proc/self/status") as file:
    print(*(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_two_processes_do_the_same_tasks_at_once_and_take_no_more_memory_than_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(strategy, "layout_of", lambda entries: (100_000, 50_000))
    path = stored(tmp_path, cells=6000, genes=80)
    run, plan, out = planned(path, tmp_path, task_size="400KiB", workers=2)
    assert all(len(stage.tasks) > 2 for stage in plan.stages)
    command, pipe = [sys.executable, "-c", CHILD, run, path, out], subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    peaks = [int(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert 0 < max(peaks) <= max(stage.memory for stage in plan.stages)
    assert list((run / "tmp").iterdir()) == []
    aw.finish(run, checksums=True)
    assert content(out) == exported(path, tmp_path / "local")


# ---------------------------------------------------------------- the plan


def test_what_a_plan_says(source, small_ranges, tmp_path, capsys):
    words = ["--plan", tmp_path / "run", "--task-size", "1KiB", "--created-at", FIXED["created_at"], "--json"]
    assert cli([str(word) for word in ("plan", source(), tmp_path / "out", *words)]) == 0
    said = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert {name: written[name] for name in said} == said
    assert [stage["name"] for stage in said["stages"]] == ["tables", "regroup", "genes"]
    assert [stage["after"] for stage in said["stages"]] == [[], [], ["regroup"]]
    for stage in said["stages"]:
        assert len(stage["tasks"]) > 3
        assert [task["number"] for task in stage["tasks"]] == list(range(len(stage["tasks"])))
        for task in stage["tasks"]:
            assert task["bytes_in"] > 0
            assert task["bytes_out"] > 0
            assert 100 << 20 < task["memory"] < 4 << 30
    assert said["facts"]["created_at"] == FIXED["created_at"]
    assert list(said["record"]["inputs"]) == [str(source())]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plan_version", "damage", "found"),
    [
        (1, lambda text: text[: len(text) // 2], "cannot be read"),
        (1, lambda text: "", "cannot be read"),
        (1, lambda text: "not a plan", "cannot be read"),
        (1, lambda text: "[" * 100_000, "cannot be read"),
        (1, lambda text: "[]", "is not a plan"),
        (1, lambda text: "{}", "is not a plan"),
        (1, lambda text: "null", "is not a plan"),
        (2, json.dumps, "another version"),
        (1, lambda text: text.replace('"number": 1', '"number": "1"', 1), "was changed"),
        (1, lambda text: text.replace('"memory": ', '"memory": 1', 1), "was changed"),
        (1, lambda text: text.replace("created_at", "created_on"), "was changed"),
        (1, lambda text: re.sub('"sha256": ".*"', '"x": ""', text), "is not a plan"),
    ],
    ids=[
        "half", "empty", "no JSON", "deep", "list", "object", "null", "version", "type", "number", "name", "no digest",
    ],
)  # fmt: skip
def test_damaged_plans_are_refused(plan_version, damage, found, source, tmp_path, capsys):
    run, _, out = planned(source(), tmp_path)
    text = (run / "plan.json").read_text()
    if plan_version != 1:
        text = json.dumps({**json.loads(text), "plan_version": plan_version})
        damage = str
    (run / "plan.json").write_text(damage(text))
    for command in ("run", "finish"):
        assert cli([command, str(run)]) == 3
        assert found in capsys.readouterr().err
    assert not out.exists()
    assert content(run / "files") == {}


@pytest.mark.parametrize("values", [{"stages": [{}]}, {"stages": 5}, {"workers": "x"}, {"record": {}}, {"record": []}])
def test_plans_of_wrong_types_are_refused_though_their_digest_is_right(values, source, tmp_path):
    run, _, _ = planned(source(), tmp_path)
    rewrite(run, **values)
    with pytest.raises(InputError, match="is not a plan"):
        aw.run(run)


def rewrite(run, **values):
    """Change a plan, and the digest with it."""
    altered = {**json.loads((run / "plan.json").read_text()), **values}
    del altered["sha256"]
    (run / "plan.json").write_text(json.dumps({**altered, "sha256": plans._digest(altered)}))


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (lambda folder: folder / "out" / "run", "lie in each other"),
        (lambda folder: folder / "out", "lie in each other"),
        (lambda folder: folder, "lie in each other"),
        (lambda folder: folder / "full", "is not empty"),
        (lambda folder: folder / "full" / "file", "is not empty"),
    ],
    ids=["in OUT", "OUT", "around OUT", "full", "file"],
)
def test_folders_that_cannot_hold_a_plan(where, found, source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=found):
        aw.plan_tasks(source(), tmp_path / "out", where(tmp_path))
    assert listing(tmp_path) == before


def test_a_folder_on_another_disk(source, tmp_path, monkeypatch):
    disks = iter(range(10))
    elsewhere = lambda path: SimpleNamespace(stat=lambda: SimpleNamespace(st_dev=next(disks)))  # noqa: E731
    monkeypatch.setattr(tasks.fs, "nearest_existing", elsewhere)
    with pytest.raises(InputError, match="is not on the disk of"):
        aw.plan_tasks(source(), tmp_path / "out", tmp_path / "run")


def test_a_link_to_an_empty_folder_holds_a_plan(source, expected, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").symlink_to("empty")
    assert completed(source(), tmp_path) == expected
    (tmp_path / "other").symlink_to("out")
    with pytest.raises(InputError, match="is a symbolic link"):
        aw.plan_tasks(source(), tmp_path / "other", tmp_path / "again", force=True)


def test_what_is_in_memory_cannot_be_planned(tmp_path):
    import anndata

    with pytest.raises(InputError, match="in memory cannot be shared"):
        aw.plan_tasks(anndata.AnnData(), tmp_path / "out", tmp_path / "run")
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        aw.plan_tasks("a.h5ad", tmp_path / "out", tmp_path / "run", colour=1)
    with pytest.raises(InputError, match="'nowhere' cannot be planned"):
        aw.plan_tasks("a.h5ad", tmp_path / "out", tmp_path / "run", to="nowhere")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- run


@pytest.mark.parametrize("name", ["run", "it's here; rm -f *"])
def test_the_command_for_what_is_missing_can_be_pasted(name, source, expected, small_ranges, tmp_path, capsys):
    run = tmp_path / name
    out = tmp_path / "out"
    aw.plan_tasks(source(), out, run, task_size="1KiB", **FIXED)
    assert cli(["run", str(run), "--stage", "genes", "--tasks", "0"]) == 1
    message = capsys.readouterr().err
    program, *words = shlex.split(message[message.index("atlaswriter run") :])
    assert program == "atlaswriter"
    assert words[:2] == ["run", str(run)]
    assert cli(words) == 0
    assert cli(["run", str(run), "--stage", "genes"]) == 0
    capsys.readouterr()
    assert cli(["finish", str(run)]) == 1
    message = capsys.readouterr().err
    assert cli(shlex.split(message[message.index("atlaswriter run") :])[1:]) == 0
    assert cli(["finish", str(run)]) == 0
    assert content(out) == expected


def test_a_stage_that_is_not_there_or_not_ready(source, small_ranges, tmp_path):
    run, plan, _ = planned(source(), tmp_path)
    with pytest.raises(InputError, match="'writing' is not in the plan → there are tables, regroup, genes"):
        aw.run(run, "writing")
    with pytest.raises(InputError, match="are those of a stage"):
        aw.run(run, tasks="0-3")
    with pytest.raises(InputError, match="there is no task 99"):
        aw.run(run, "tables", "99")
    aw.run(run, "regroup", [1])
    with pytest.raises(IncompleteError) as caught:
        aw.run(run, "genes", "0")
    missing = [task.number for task in plan.stage("regroup").tasks if task.number != 1]
    assert caught.value.missing == {"regroup": missing}
    with pytest.raises(InputError, match="holds no plan"):
        aw.run(tmp_path)
    with pytest.raises(InputError, match="holds no plan"):
        aw.finish(tmp_path / "nowhere")


def test_slices_of_an_array_are_everything(source, expected, small_ranges, tmp_path, monkeypatch):
    run, plan, out = planned(source(), tmp_path, task_size="700 B")
    with pytest.raises(InputError, match="auto needs SLURM_ARRAY_TASK_ID"):
        aw.run(run, "tables", "auto")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    for stage in plan.stages:
        done = []
        for number in (2, 0, 1):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
            done += aw.run(run, stage.name, "auto").done[stage.name]
        assert sorted(done) == list(range(len(stage.tasks)))
    aw.finish(run)
    assert content(out) == expected


def test_a_finished_plan_runs_no_more(source, expected, tmp_path, caplog):
    run, plan, out = planned(source(), tmp_path)
    aw.run(run)
    first = aw.finish(run)
    with pytest.raises(InputError, match="the export is published"):
        aw.run(run)
    caplog.set_level("INFO", "atlaswriter")
    again = aw.finish(run)
    assert f"{plan.target} was published before" in caplog.text
    assert again.to_dict() == first.to_dict()
    assert content(out) == expected
    (run / "finished.json").write_text('{"output": ')
    with pytest.raises(InputError, match="cannot be read"):
        aw.finish(run)
    (run / "finished.json").write_text("[1]")
    with pytest.raises(InputError, match="holds no report"):
        aw.finish(run)
    assert content(out) == expected


# ---------------------------------------------------------------- what is not as it was


def touch(path):
    os.utime(path, ns=(0, 0))


def rewrite_atlas(path):
    stored(path.parent, seed=1)


@pytest.mark.parametrize("change", [touch, rewrite_atlas])
@pytest.mark.parametrize("doing", [aw.run, aw.finish])
def test_a_changed_file_is_refused_and_named(doing, change, own, tmp_path):
    run, _, out = planned(own, tmp_path)
    aw.run(run, "tables" if doing is aw.run else None)
    before = listing(run)
    change(own)
    with pytest.raises(InputError, match=re.escape(f"input {own}: was changed")):
        doing(run)
    assert listing(run) == before
    assert not out.exists()


def test_a_changed_chunk_is_refused_and_named(tmp_path):
    path = stored(tmp_path, "zarr")
    run, _, out = planned(path, tmp_path)
    aw.run(run, "tables")
    chunk = max((path / "X" / "data").rglob("*0"), key=lambda found: found.stat().st_size)
    chunk.write_bytes(chunk.read_bytes())
    with pytest.raises(InputError, match=re.escape(f"input {path}: X/data was changed")):
        aw.run(run, "regroup")
    (path / "obs" / "more").mkdir()
    (path / "obs" / "more" / "file").write_text("{}")
    next(found for found in (path / "uns").iterdir()).unlink()
    with pytest.raises(InputError, match=r"X/data was changed, obs/more is new, uns/\S+ is gone"):
        aw.run(run, "regroup")
    assert not out.exists()


def test_another_version_is_refused_and_named(source, tmp_path, monkeypatch):
    run, _, _ = planned(source(), tmp_path)
    monkeypatch.setattr(record, "version", lambda name: f"{name} 99")
    with pytest.raises(InputError, match=r"isal was .*, now it is isal 99"):
        aw.run(run)


def test_other_options_are_refused_and_named(source, tmp_path):
    run, plan, _ = planned(source(), tmp_path)
    rewrite(run, arguments={**plan.arguments, "var_quantization": 16})
    with pytest.raises(InputError, match="option var_quantization was 8, now it is 16"):
        aw.run(run)
    rewrite(run, arguments={**plan.arguments, "out": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"the output was .*out, now it is .*other"):
        aw.run(run)
    rewrite(run, arguments=plan.arguments, target=str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"the output was .*other, now it is .*out"):
        aw.run(run)


def damage(path, how, elsewhere):
    content = path.read_bytes()
    path.unlink()
    if how == "link":
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)
    elif how != "gone":
        path.write_bytes(content[:-1] if how == "cut" else bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("how", ["cut", "gone", "link"])
def test_a_damaged_file_of_a_task_is_found_and_written_again(how, source, expected, small_ranges, tmp_path):
    run, _, out = planned(source(), tmp_path, task_size="1KiB")
    aw.run(run)
    done = {entry.work: entry for entry in Journal(run / "journal").entries()}
    damage(run / "files" / min(done["genes-1"].files), how, tmp_path / "elsewhere")
    with pytest.raises(IncompleteError) as caught:
        aw.finish(run)
    assert caught.value.missing == {"genes": [1]}
    assert not out.exists()
    assert aw.run(run).done == {"tables": [], "regroup": [], "genes": [1]}
    aw.finish(run, checksums=True)
    assert content(out) == expected
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_a_file_that_was_altered_is_found_with_checksums(source, expected, tmp_path):
    run, _, out = planned(source(), tmp_path)
    aw.run(run)
    damage(run / "files" / "points_2d.bin.gz", "altered", None)
    with pytest.raises(IncompleteError) as caught:
        aw.finish(run, checksums=True)
    assert [len(numbers) for numbers in caught.value.missing.values()] == [1]
    # What `finish` says can be done, can be: the file counts as not done.
    assert {name: len(done) for name, done in aw.run(run).done.items() if done} == {"tables": 1}
    aw.finish(run, checksums=True)
    assert content(out) == expected


def test_a_part_that_was_altered_is_found_when_it_is_read(source, expected, small_ranges, tmp_path):
    run, _, out = planned(source(), tmp_path, task_size="1KiB")
    written = aw.run(run, "regroup")
    assert written.bytes_out == sum(path.stat().st_size for path in (run / "parts").iterdir())
    damage(max((run / "parts").iterdir()), "altered", None)
    with pytest.raises(OutputError, match=r"was changed.*run the task again"):
        aw.run(run, "genes")
    assert len(aw.run(run, "regroup").done["regroup"]) == 1
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected


def test_sorting_refuses_a_budget_that_is_too_small(source, tmp_path, monkeypatch):
    run, _, _ = planned(source(), tmp_path)
    monkeypatch.setattr("atlaswriter.formats.cellucid.tasks.writing_room", lambda *given: 1 << 50)
    with pytest.raises(BudgetError, match="sorting expression by gene needs"):
        aw.run(run, "regroup")
    assert not list((run / "parts").iterdir())


def test_parts_must_fit_on_the_disk(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(OutputError, match=r"10 B are free"):
        planned(source(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_published_export_that_is_gone_is_not_reported(source, tmp_path):
    run, _, out = planned(source(), tmp_path)
    aw.run(run)
    aw.finish(run)
    assert aw.finish(run).files == len(content(out))
    shutil.rmtree(out)
    with pytest.raises(InputError, match="is not any more what was published"):
        aw.finish(run)


def test_dense_rows_are_read_whole_by_every_task(source, tmp_path):
    _, plan, _ = planned(source("dense"), tmp_path, task_size="10kB")
    sizes = {task.bytes_in for task in plan.stage("genes").tasks}
    assert len(plan.stage("genes").tasks) > 1
    assert sizes == {anndata.read_h5ad(source("dense")).X.nbytes}


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_part_is_found_and_written_again(how, source, expected, small_ranges, tmp_path):
    run, plan, out = planned(source(), tmp_path, task_size="1KiB")
    aw.run(run, "regroup")
    part = max((run / "parts").iterdir())
    damage(part, how, None)
    last = plan.stage("regroup").tasks[-1].number
    with pytest.raises(IncompleteError) as caught:
        aw.run(run, "genes")
    assert caught.value.missing == {"regroup": [last]}
    assert aw.run(run).done["regroup"] == [last]
    aw.finish(run)
    assert content(out) == expected


def test_a_part_of_another_run_is_refused(source, small_ranges, tmp_path):
    run, _, _ = planned(source(), tmp_path / "one")
    other, _, _ = planned(source(), tmp_path / "two", var_quantization=16)
    for folder in (run, other):
        aw.run(folder, "regroup")
    for part in (other / "parts").iterdir():
        shutil.copy(part, run / "parts")
    with pytest.raises(OutputError, match="belongs to another run"):
        aw.run(run, "genes")


# ---------------------------------------------------------------- finish


def test_finish_lists_everything_that_is_missing(source, small_ranges, tmp_path, capsys):
    run, plan, out = planned(source(), tmp_path, task_size="1KiB")
    aw.run(run, "tables", [0, 2])
    aw.run(run, "regroup")
    aw.run(run, "genes", "1-2")
    with pytest.raises(IncompleteError) as caught:
        aw.finish(run)
    every = {stage.name: {task.number for task in stage.tasks} for stage in plan.stages}
    missing = {"tables": sorted(every["tables"] - {0, 2}), "genes": sorted(every["genes"] - {1, 2})}
    assert caught.value.missing == missing
    assert cli(["finish", str(run), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert "stage tables" in said["error"]
    assert "stage genes" in said["error"]
    assert not out.exists()


def test_an_occupied_target_needs_force(source, expected, tmp_path):
    out = tmp_path / "out"
    exported(source("dense"), tmp_path, dataset_name="old")
    old = content(out)
    with pytest.raises(InputError, match="is not empty"):
        planned(source(), tmp_path)
    os.rename(out, tmp_path / "aside")
    run, _, _ = planned(source(), tmp_path)
    aw.run(run)
    os.rename(tmp_path / "aside", out)
    with pytest.raises(InputError, match="is not empty"):
        aw.finish(run)
    assert content(out) == old
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds what replacing would delete.*mine\.txt"):
        aw.finish(run, force=True)
    (out / "mine.txt").unlink()
    aw.finish(run, force=True)
    assert content(out) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"out", "run"}


def test_an_older_export_of_the_same_sizes_is_not_taken_for_the_new_one(source, tmp_path):
    """Without compression all files of all exports have the same sizes."""
    older = stored(tmp_path, seed=5)
    plain = {"compression": None, "force": True}
    exported(older, tmp_path, **plain)
    old = content(tmp_path / "out")
    run, _, out = planned(source(), tmp_path, **plain)
    aw.run(run)
    (run / "files" / "points_2d.bin").unlink()
    with pytest.raises(IncompleteError):
        aw.finish(run)
    assert content(out) == old
    aw.run(run)
    aw.finish(run)
    assert content(out) == exported(source(), tmp_path / "local", **plain) != old


def test_two_that_finish_at_once(source, expected, tmp_path):
    run, _, out = planned(source(), tmp_path)
    aw.run(run)
    before = content(run)
    with FolderSink(out, force=False), pytest.raises(OutputError, match="another process is writing here"):
        aw.finish(run)
    assert content(run) == before
    aw.finish(run)
    assert content(out) == expected


def test_where_there_are_no_locks_the_folder_stays(source, expected, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "_lock", refuse)
    run, _, out = planned(source(), tmp_path)
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected
    assert {path.name for path in run.iterdir()} == {"finished.json", "journal", "plan.json"}
    with pytest.raises(InputError, match="is published"):
        aw.run(run)


def test_discard(source, tmp_path, capsys):
    run, _, out = planned(source(), tmp_path)
    aw.run(run, "tables")
    assert cli(["finish", str(run), "--discard", "--force"]) == 3
    assert cli(["finish", str(tmp_path), "--discard"]) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert cli(["finish", str(run), "--discard"]) == 0
    assert "is deleted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    run, _, out = planned(source(), tmp_path)
    aw.run(run)
    aw.finish(run)
    aw_files = content(out)
    assert cli(["finish", str(run), "--discard"]) == 0
    assert content(out) == aw_files


def test_an_interrupted_task_leaves_nothing_behind(source, expected, tmp_path, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    run, _, out = planned(source(), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Job, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            aw.run(run, workers=1)
    assert list((run / "tmp").iterdir()) == []
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected


# ---------------------------------------------------------------- names from outside


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else; nothing in it changes."""
    folder = tmp_path / "victim"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("mine")
    (folder / "file").write_text("mine")
    before = listing(tmp_path / "victim")
    yield folder
    assert listing(tmp_path / "victim") == before


@pytest.mark.parametrize("name", ["files", "parts", "tmp", "journal", "plan.json", "finished.json"])
@pytest.mark.parametrize("when", ["planned", "done"])
def test_links_in_the_folder_are_refused(name, when, source, victim, tmp_path):
    run, _, out = planned(source(), tmp_path)
    if when == "done":
        aw.run(run)
    path = run / name
    if path.exists():
        path.rename(tmp_path / "aside")
    path.symlink_to(victim if path.suffix == "" else victim / "file")
    for doing in (aw.run, aw.finish, tasks.discard):
        with pytest.raises(InputError, match="is a symbolic link"):
            doing(run)
    assert not out.exists()


def test_a_link_among_the_files_is_not_followed(source, expected, victim, tmp_path):
    run, _, out = planned(source(), tmp_path)
    (run / "files" / "obs").symlink_to(victim)
    with pytest.raises(OutputError, match=r"obs: is a symbolic link"):
        aw.run(run)
    (run / "files" / "obs").unlink()
    aw.run(run)
    (run / "files" / "obs").rename(victim.parent / "aside")
    (run / "files" / "obs").symlink_to(victim.parent / "aside")
    (run / "files" / "more").symlink_to(victim)
    with pytest.raises(OutputError, match="staged files differ"):
        aw.finish(run)
    assert not out.exists()
    assert len(list((victim.parent / "aside").iterdir())) > 2
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected


@pytest.mark.parametrize("name", ["../../victim/file", "{victim}/file", "obs/../../../victim/file"])
def test_names_in_the_journal_lead_nowhere_else(name, source, expected, victim, tmp_path):
    run, _, out = planned(source(), tmp_path)
    name = name.format(victim=victim)
    journal = Journal(run / "journal")
    journal.add(Entry("tables-0", {name: (4, 0)}, {}))
    journal.add(Entry("regroup-0", {}, {"parts": {name: 4}}))
    journal.add(Entry("finish", {name: (4, 0)}, {}))
    journal.close()
    assert all(name not in entry.files for entry in journal.entries())
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected


@pytest.mark.parametrize("result", [None, [], "x", {"parts": 5}, {"parts": [["a", 1]]}, {"parts": {"\0": 1}}])
def test_results_of_wrong_types_prove_nothing(result, source, expected, tmp_path):
    run, _, out = planned(source(), tmp_path)
    (run / "journal").mkdir(exist_ok=True)
    line = {"work": "tables-0", "files": {}, "result": result, "cost": {}}
    (run / "journal" / "0.jsonl").write_text(json.dumps(line) + "\n")
    aw.run(run)
    aw.finish(run)
    assert content(out) == expected
