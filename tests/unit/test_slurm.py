"""The script for Slurm: submitted to an sbatch of ours, and its jobs run as Slurm runs them, which is badly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.bundles import make_bundle

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.engine import strategy
from atlaswriter.engine.plan import RunPlan, Stage, Task
from atlaswriter.engine.record import Record
from atlaswriter.engine.slurm import script
from atlaswriter.sinks.runfolder import RunFolder

N, GENES = 500, 40
# Nothing in it may mean anything to a shell, nor to Slurm, which replaces %j in names of logs.
NAME = """it's a "plan" of $HOME; `id` 100%j"""
OPTIONS = ["--created-at", "2026-01-01", "--task-size", "12kB", "-M", "1GiB", "-j", "2"]

# Notes what it is given, and says a number as on a site of several clusters.
SBATCH = """\
#!{python}
import json, os, sys

with open(os.environ["SUBMITTED"], "a+") as file:
    file.seek(0)
    number = 1001 + len(file.readlines())
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print(f"{{number}};cluster")
"""

# Read by Python when it starts: whoever has done a task, and is about to write that down, waits until it is killed.
HOLD = """\
import os, pathlib, sys, time

def hold(event, given):
    if event == "open" and "journal" in str(given[0]) and given[2] & os.O_WRONLY:
        pathlib.Path(os.environ["HELD"]).touch()
        time.sleep(600)

sys.addaudithook(hold)
"""


@pytest.fixture(scope="module")
def h5ad(tmp_path_factory):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(list("abc"), N))}, [f"c{i}" for i in range(N)])
    genes = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    atlas = anndata.AnnData(sp.random(N, GENES, 0.3, "csr", np.float32, rng=rng), obs, genes)
    atlas.obsm = {"X_umap": rng.random((N, 2))}
    path = tmp_path_factory.mktemp("slurm") / "a.h5ad"
    atlas.write_h5ad(path)
    return path


@pytest.fixture
def planned(h5ad, tmp_path, capsys, monkeypatch):
    """Folder of a plan, and its script."""
    spill_sizes = strategy.spill_sizes
    few = 1000  # entries, so that genes are several tasks, as in large data
    monkeypatch.setattr(strategy, "spill_sizes", lambda *given: (spill_sizes(*given)[0], few))
    folder = tmp_path / NAME
    out = tmp_path / "exports" / "out"
    assert run(["plan", str(h5ad), str(out), "--plan", str(folder), "--slurm", *OPTIONS]) == 0
    printed = capsys.readouterr()
    assert "stage genes" in printed.err  # for people; the script alone is on stdout
    text = tmp_path / "submit.sh"
    text.write_text(printed.out)
    return folder, text


class Job:
    """What sbatch was given."""

    def __init__(self, number, arguments):
        self.number = number
        pairs = [argument.partition("=") for argument in arguments]
        self.options = {name: value for name, _, value in pairs}
        assert len(self.options) == len(arguments)

    def __getitem__(self, name):
        return self.options[f"--{name}"]

    def __contains__(self, name):
        return f"--{name}" in self.options

    @property
    def elements(self):
        first, last = map(int, self["array"].split("-"))
        return range(first, last + 1)

    def start(self, element=None, **environment):
        """The process that Slurm would start: a shell with the wrapped command, and variables that tell its place."""
        if element is not None:
            values = {"ID": element, "COUNT": len(self.elements), "MIN": 0, "MAX": self.elements[-1]}
            environment |= {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}
        return subprocess.Popen(
            ["/bin/sh", "-c", self["wrap"].replace("--patience 60", "--patience 0")],
            env={**path_with_program(), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip


def path_with_program(*folders):
    programs = Path(sys.executable).parent
    return {**os.environ, "PATH": os.pathsep.join([*map(str, folders), str(programs), os.environ["PATH"]])}


def submitted(text, tmp_path):
    """Run the script with our sbatch; jobs by their names."""
    programs, record = tmp_path / "programs", tmp_path / "submitted.jsonl"
    programs.mkdir()
    sbatch = programs / "sbatch"
    sbatch.write_text(SBATCH.format(python=sys.executable))
    sbatch.chmod(0o755)
    environment = {**path_with_program(programs), "SUBMITTED": str(record)}
    said = subprocess.run(["bash", str(text)], env=environment, cwd=tmp_path, capture_output=True, check=True).stdout
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    jobs = [Job(str(1001 + place), line) for place, line in enumerate(lines)]
    return {job["job-name"].removeprefix("atlaswriter-"): job for job in jobs}, said.decode()


def ended(*processes):
    """Wait for all; their exit codes, and what they said."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], "\n".join(said)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_submitted(planned, tmp_path):
    folder, text = planned
    subprocess.run(["bash", "-n", str(text)], check=True)
    jobs, said = submitted(text, tmp_path)
    plan = RunPlan.read(RunFolder(folder))
    stages = {stage.name: stage for stage in plan.stages}
    assert list(jobs) == ["tables", "regroup", "genes", "finish"]
    assert said == "submitted: tables 1001, regroup 1002, genes 1003, finish 1004\n"

    assert "dependency" not in jobs["tables"]
    assert "dependency" not in jobs["regroup"]
    assert jobs["genes"]["dependency"] == "afterok:1002"
    assert jobs["finish"]["dependency"] == "afterok:1001:1002:1003"

    mib = {name: int(job["mem"].removesuffix("M")) for name, job in jobs.items()}
    for name, stage in stages.items():
        assert jobs[name]["array"] == f"0-{len(stage.tasks) - 1}"
        assert stage.memory < mib[name] << 20 <= stage.memory + (129 << 20)
        assert (folder / "logs").is_dir()
        assert jobs[name]["output"] == str(folder).replace("%", "%%") + f"/logs/{name}-%A-%a.log"
    assert mib["finish"] == max(mib[name] for name in stages)
    for job in jobs.values():
        assert "--patience 60" in job["wrap"]
        assert {"parsable", "requeue"} <= {name.removeprefix("--") for name, value in job.options.items() if not value}
        assert (job["kill-on-invalid-dep"], job["cpus-per-task"]) == ("yes", "2")
    # What Slurm's manual has, and nothing else.
    known = {"parsable", "requeue", "open-mode", "kill-on-invalid-dep", "cpus-per-task", "job-name", "array", "mem"}
    known |= {"dependency", "output", "wrap"}
    assert {name for job in jobs.values() for name in job.options} == {f"--{name}" for name in known}


def test_elements_run_out_of_order_twice_and_killed(planned, h5ad, tmp_path):
    folder, text = planned
    jobs, _ = submitted(text, tmp_path)
    tables, regroup, genes = (jobs[name] for name in ("tables", "regroup", "genes"))
    assert min(map(len, (tables.elements, regroup.elements, genes.elements))) > 1

    # Slurm would not start it yet; a user might.
    early = genes.start(0)
    # The last first, and one twice at the same time.
    last = regroup.elements[-1]
    codes, said = ended(*[regroup.start(element) for element in (last, last)])
    assert codes == [0, 0], said
    codes, said = ended(early)
    assert codes == [1]
    assert "--stage regroup --tasks 0" in said

    # One is killed in the middle, and its node is repeated; meanwhile others go on.
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold" / "sitecustomize.py").write_text(HOLD)
    mark = tmp_path / "held"
    victim = regroup.start(0, PYTHONPATH=str(tmp_path / "hold"), HELD=str(mark))
    codes, said = ended(tables.start(1))
    assert codes == [0], said
    while not mark.exists():
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    assert ended(victim)[0] == [-signal.SIGKILL]
    codes, said = ended(jobs["finish"].start())
    assert codes == [1]
    assert "--stage regroup --tasks 0" in said
    again = [regroup.start(element) for element in regroup.elements if element != last]
    codes, said = ended(*again, *[tables.start(element) for element in tables.elements if element != 1])
    assert set(codes) == {0}, said

    codes, said = ended(*[genes.start(element) for element in reversed(genes.elements)])
    assert set(codes) == {0}, said
    codes, said = ended(jobs["finish"].start())
    assert codes == [0], said
    aw.cellucid(h5ad, tmp_path / "local" / "out", created_at="2026-01-01", progress=False)
    assert content(tmp_path / "exports" / "out") == content(tmp_path / "local" / "out")
    # A finish that is submitted again does no harm.
    assert run(["-q", "finish", str(folder)]) == 0


def test_auto_takes_the_slice_of_the_element(planned, monkeypatch, capsys):
    folder, _ = planned
    done = []
    n_tasks = len(RunPlan.read(RunFolder(folder)).stage("tables").tasks)
    for element in (3, 1, 2, 4):  # an array may begin anywhere: --array=1-4
        for name, value in {"ID": element, "COUNT": 4, "MIN": 1, "MAX": 4}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        capsys.readouterr()
        assert run(["run", str(folder), "--stage", "tables", "--tasks", "auto", "--json"]) == 0
        done += json.loads(capsys.readouterr().out)["done"]["tables"]
    assert sorted(done) == list(range(n_tasks))
    # Only some elements again: which share they had is not known, so nothing is guessed.
    for name, value in {"ID": 4, "COUNT": 2, "MIN": 1, "MAX": 4}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert run(["run", str(folder), "--stage", "tables", "--tasks", "auto"]) == 3


def test_landscape_files_too(tmp_path, capsys):
    bundle = make_bundle(tmp_path / "bundle", n_cells=60, n_genes=8, n_transcripts=3000, image=(260, 330)).folder
    given = [str(bundle), str(tmp_path / "out"), "--to", "landscape", "--plan", str(tmp_path / "plan")]
    assert run(["-q", "plan", *given, "--task-size", "12kB", "--slurm"]) == 0
    text = tmp_path / "submit.sh"
    text.write_text(capsys.readouterr().out)
    jobs, _ = submitted(text, tmp_path)
    stages = {stage.name: stage for stage in RunPlan.read(RunFolder(tmp_path / "plan")).stages}
    assert [*stages, "finish"] == list(jobs)
    assert len(stages) > 2
    for name, stage in stages.items():
        before = [jobs[early].number for early in stage.after]
        assert jobs[name].options.get("--dependency", "afterok") == ":".join(["afterok", *before])
    assert jobs["finish"]["dependency"] == ":".join(["afterok", *(jobs[name].number for name in stages)])


def made_up(target, *stages):
    """A plan of which only the shape matters: ``(name, stages before, number of tasks, bytes)``."""
    made = [
        Stage(name, after, tuple(Task(number, "", {}, 0, memory, 0) for number in range(n_tasks)))
        for name, after, n_tasks, memory in stages
    ]
    return RunPlan(target, {}, Record("landscape", {}, {}, {}), {}, 3, tuple(made))


def test_more_tasks_than_an_array_may_have(tmp_path):
    plan = made_up(
        "/data/out", ("tiles", (), 5000, 5 << 30), ("empty", (), 0, 0), ("last-one", ("tiles", "empty"), 7, 1)
    )
    text = tmp_path / "submit.sh"
    text.write_text(script(plan, tmp_path / "plan"))
    jobs, _ = submitted(text, tmp_path)
    assert list(jobs) == ["tiles", "last-one", "finish"]
    assert jobs["tiles"]["array"] == "0-999"
    assert jobs["tiles"]["wrap"].endswith("--stage tiles --tasks $SLURM_ARRAY_TASK_ID/1000")
    assert jobs["last-one"]["dependency"] == "afterok:1001"
    assert jobs["finish"]["dependency"] == "afterok:1001:1002"
    assert (jobs["finish"]["mem"], jobs["last-one"]["mem"]) == (f"{5 * 1024 + 128}M", "129M")


def test_a_name_cannot_become_a_command(tmp_path):
    marker = tmp_path / "marker"
    evil = f"{tmp_path}/x\ntouch {marker}\n#$(touch {marker})'`touch {marker}`"
    text = tmp_path / "submit.sh"
    text.write_text(script(made_up(evil, ("tiles", (), 1, 1)), Path(evil)))
    jobs, _ = submitted(text, tmp_path)
    shell = """atlaswriter() { printf %s "$2"; }; """ + jobs["finish"]["wrap"]
    shown = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=True, text=True)
    assert shown.stdout == evil
    assert not marker.exists()


def test_a_refused_submission_ends_the_script(planned, tmp_path):
    _, text = planned
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2; exit 1\n")
    (programs / "sbatch").chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        subprocess.run(["bash", str(text)], env=path_with_program(programs), capture_output=True, check=True)
    assert caught.value.stderr.count(b"invalid account") == 1
    assert caught.value.stdout == b""
