"""The model of how exports in tasks scale, on cases that can be reckoned by hand; its hollow atlas."""

import json
import sys
from pathlib import Path

import pytest

import atlaswriter as aw

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import readme
from benchmarks.macro.scaling_hollow import hollow_atlas
from benchmarks.macro.scaling_model import Cluster, Cost, Load, predict

NODE = {"cores": 4, "memory": 100.0, "disk": 1e9, "node_disk": 1e9, "metadata": 1e9, "thread_efficiency": 1.0}


def load(n_tasks=8, seconds=10.0, after=(), opened=0.0, memory=25.0, threads=1, busy=0, start=0.0, files=0.0, size=1.0):
    return Load(
        after, [size] * n_tasks, [0.0] * n_tasks, [files] * n_tasks, opened, memory, threads, busy or threads,
        Cost(0.0, seconds), start,
    )  # fmt: skip


def seconds(loads, nodes=1, **changed):
    found = predict(loads, Cluster(nodes, **{**NODE, **changed}), 0, 0.0)
    return {name: part.seconds for name, part in found.items()}, found


def test_cost_is_fitted_to_relative_errors():
    cost = Cost.fit([1e9, 2e9, 4e9], [3.0, 5.0, 9.0])
    assert cost.per_byte == pytest.approx(2e-9)
    assert cost.per_task == pytest.approx(1.0)
    assert cost.seconds(8e9) == pytest.approx(17.0)
    # What would have to be negative is left out.
    assert Cost.fit([1e9, 2e9], [1.0, 3.0]).per_task == 0.0
    assert Cost.fit([5.0, 5.0], [1.0, 3.0]) == Cost(0.4, 0.0)


@pytest.mark.parametrize(("nodes", "expected"), [(1, 20.0), (2, 10.0), (3, 10.0), (100, 10.0)])
def test_tasks_are_shared_out_to_processes(nodes, expected):
    found, parts = seconds({"one": load()}, nodes)
    assert found["one"] == pytest.approx(expected, rel=1e-6)
    assert parts["one"].bound == "processes"
    assert parts["one"].processes == min(4 * nodes, 8)


def test_memory_cores_and_threads_limit_processes():
    assert seconds({"one": load(memory=50.0)})[0]["one"] == pytest.approx(40.0)
    assert seconds({"one": load(threads=2)})[0]["one"] == pytest.approx(20.0)  # two processes, each twice as fast
    assert seconds({"one": load(threads=2)}, thread_efficiency=0.5)[0]["one"] == pytest.approx(4 * 10 / 1.5)
    assert seconds({"one": load(threads=2, busy=1)})[0]["one"] == pytest.approx(40.0)
    with pytest.raises(ValueError, match="memory"):
        seconds({"one": load(memory=101.0)})


def test_a_process_starts_once_and_an_array_is_launched_once():
    assert seconds({"one": load(start=3.0)}, launch=5.0)[0]["one"] == pytest.approx(5 + 3 + 20)


def test_disk_and_files_bound_however_many_nodes_there_are():
    big = {"one": load(size=1e9, seconds=0.1)}
    assert seconds(big, 1)[0]["one"] == pytest.approx(8.0)
    found, parts = seconds(big, 100, disk=2e9)
    assert found["one"] == pytest.approx(4.0)
    assert parts["one"].bound == "disk"
    # Created and renamed: two operations a file; and those that are opened.
    found, parts = seconds({"one": load(files=100.0, opened=400.0, seconds=0.1)}, 100, metadata=100.0)
    assert found["one"] == pytest.approx((2 * 800 + 400) / 100)
    assert parts["one"].bound == "files"


def test_stages_wait_for_those_before_and_share_with_others():
    found, _ = seconds({"tables": load(4), "regroup": load(4), "genes": load(4, after=("regroup",))})
    assert found == pytest.approx({"tables + regroup": 20.0, "genes": 10.0, "finish": 0.0})
    alone, parts = seconds({"one": load(1)}, 1, metadata=10.0)
    assert (alone["finish"], parts["finish"].processes) == (0.0, 1)
    assert predict({"one": load(1)}, Cluster(1, **{**NODE, "metadata": 10.0}), 50, 2.0)["finish"].seconds == 7.0


def test_readme_says_what_was_measured():
    """`python benchmarks/readme.py` was run."""
    assert readme.section() in (readme.ROOT / "README.md").read_text(encoding="utf-8")


def test_a_hollow_atlas_is_planned_like_a_real_one(tmp_path):
    hollow_atlas(tmp_path / "hollow.h5ad", 200_000, 500, 0.1)
    assert (tmp_path / "hollow.h5ad").stat().st_size < 4e6
    plan = aw.plan_tasks(tmp_path / "hollow.h5ad", tmp_path / "out", tmp_path / "run", task_size="10MB", graph=False)
    stages = {stage.name: stage.tasks for stage in plan.stages}
    assert sum(task.bytes_in for task in stages["regroup"]) == pytest.approx(200_000 * 50 * 8, rel=0.05)
    assert len(stages["regroup"]) == pytest.approx(8, abs=1)
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["record"]["format"] == "cellucid"
