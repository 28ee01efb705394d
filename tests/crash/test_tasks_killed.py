"""Processes that do tasks, or finish them, are killed at any moment: doing it again gives the same export."""

import os
import shutil
import signal

import pytest
from tests.tasks_inputs import beside, content, exported, moments, mortal, planned, stored

import atlaswriter as aw
from atlaswriter.engine import strategy

from .test_publish import can_exchange

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

LEFT = {"finished.json", "journal", "plan.json"}


@pytest.fixture(scope="module")
def killed():
    with mortal() as does:
        yield does


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """An atlas, and the bytes of its export; a plan of it, which is of several tasks a stage, and its output."""
    monkeypatch.setattr(strategy, "layout_of", lambda entries: (150, 60))
    path = stored(tmp_path, genes=9)
    expected = exported(path, tmp_path / "local")
    run, plan, out = planned(path, tmp_path / "tasks", task_size="900 B", workers=1, force=True)
    assert all(len(stage.tasks) > 2 for stage in plan.stages)
    return path, expected, run, plan, out


def restored(kept, folder):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)


def test_tasks_killed_before_calls_that_change_the_disk(setting, killed, tmp_path):
    _, expected, run, plan, out = setting
    leftovers = set()
    for stage in plan.stages:
        shutil.copytree(run, tmp_path / stage.name)
        code, calls = killed(0, "run", run, stage.name, progress=False)
        assert code == 0
        complete = content(run / "files"), content(run / "parts")
        for kill_at in moments(len(calls), 3):
            restored(tmp_path / stage.name, run)
            assert killed(kill_at, "run", run, stage.name, progress=False)[0] == -signal.SIGKILL
            leftovers.update(path.name for path in (run / "tmp").rglob("*"))
            leftovers.update(path.name for path in (run / "parts").glob(".*"))
            assert set(content(run / "files")) <= set(complete[0])
            aw.run(run, stage.name)
            assert content(run / "files") == complete[0]
            parts = {name: found for name, found in content(run / "parts").items() if not name.startswith(".")}
            assert parts == complete[1]
    assert len(leftovers) > 3  # there was something that is in nobody's way
    aw.finish(run, checksums=True)
    assert content(out) == expected
    assert {path.name for path in run.iterdir()} == LEFT
    assert beside(out) == {"out", "run"}


def test_killed_again_and_again(setting, killed):
    """Every process gets a little further, so that in the end all is done."""
    _, expected, run, _, out = setting
    for kill_at in (9, 25, 40, 60):
        assert killed(kill_at, "run", run, progress=False)[0] == -signal.SIGKILL
    aw.run(run, workers=3)
    for kill_at in (3, 8, 12):
        assert killed(kill_at, "finish", run, progress=False)[0] == -signal.SIGKILL
    aw.finish(run)
    assert content(out) == expected
    assert {path.name for path in run.iterdir()} == LEFT


@pytest.mark.parametrize(
    ("exchange", "there"), [(True, "nothing"), (True, "old"), (True, "same"), (False, "nothing"), (False, "old")]
)
def test_finish_killed_before_calls_that_change_the_disk(there, exchange, setting, killed, tmp_path):
    """The output is the whole old or the whole new one, and `finish` completes what was begun."""
    path, expected, run, _, out = setting
    if exchange and not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange")
    aw.run(run)
    old = {}
    if there != "nothing":
        old = exported(path, tmp_path / "old", **({"dataset_name": "older"} if there == "old" else {}))
    shutil.copytree(run, tmp_path / "kept")
    give = {"progress": False, "can_exchange": exchange}

    def prepare():
        restored(tmp_path / "kept", run)
        shutil.rmtree(out, ignore_errors=True)
        if old:
            shutil.copytree(tmp_path / "old" / "out", out)

    prepare()
    code, calls = killed(0, "finish", run, **give)
    assert code == 0
    assert content(out) == expected
    moved = [number for number, name in enumerate(calls, 1) if name in ("exchange", "rename")]
    assert moved
    seen = []
    for kill_at in moments(len(calls), 3, *moved):
        prepare()
        assert killed(kill_at, "finish", run, **give)[0] == -signal.SIGKILL
        found = content(out) if out.exists() else None
        assert found in ([old, expected, None] if not exchange or not old else [old, expected])
        seen.append(found == expected)
        report = aw.finish(run)
        assert report.files == len(expected)
        assert content(out) == expected
        assert {path.name for path in run.iterdir()} == LEFT
        assert beside(out) == {"out", "run"}
        assert aw.finish(run).to_dict() == report.to_dict()
    if there != "same":
        assert seen == sorted(seen)
        assert set(seen) == {False, True}
