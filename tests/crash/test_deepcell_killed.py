"""Killed at any moment, a DeepCell Label run leaves the whole old project or the whole new one, and then nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.deepcell_inputs import npz, project, request, tiff, zipped
from tests.deepcell_truth import read_project, truth

import atlaswriter as aw

from .test_archive_killed import give_up

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

# Writes over what is there, and kills itself before a certain call that changes the disk.
CHILD = """
import json, os, signal, sys
import atlaswriter as aw
from atlaswriter.sinks import fs, lock
from atlaswriter.sources import download, unpacked

write, given, out, kill_at, options = *sys.argv[1:4], int(sys.argv[4]), json.loads(sys.argv[5])
calls = 0

def mortal(function):
    def wrapper(*args, **given):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **given)
    return wrapper

for name in ("open", "write", "lseek", "close", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync"):
    setattr(os, name, mortal(getattr(os, name)))
fs.remove_tree, lock._lock, unpacked.mkstemp = map(mortal, (fs.remove_tree, lock._lock, unpacked.mkstemp))

getattr(aw, write)(given, out, force=True, progress=False, workers=1, **options)
print(calls)
"""

LOOP = """
import sys, atlaswriter as aw
while True:
    print("again", flush=True)
    getattr(aw, sys.argv[1])(sys.argv[2], sys.argv[3], force=True, progress=False, workers=2)
"""


def unpacked(m):
    """TIFFs, compressed again: they wait in temporary files."""
    return zipped({"X.tif": tiff(m.X[..., 0]), "y.tif": tiff(m.y[..., 0]), "spots.csv": m.spots})


WAYS = {
    "npz": (lambda m: npz(X=m.X, y=m.y), "deepcell"),
    "unpacked": (unpacked, "deepcell"),
    "project": (lambda m: project(m, "CZYX"), "deepcell"),
    "request": (request, "deepcell_export"),
}


@pytest.fixture
def setting(way, tmp_path):
    """What writes, its input, the old project, and the new one."""
    make, write = WAYS[way]
    given = tmp_path / "in" / "given"
    given.parent.mkdir()
    given.write_bytes(make(truth()))
    old, new = given.with_name("old.zip"), given.with_name("new.zip")
    aw.deepcell(truth().X[:2], old, progress=False)
    getattr(aw, write)(given, new, progress=False)
    assert read_project(new).X.shape[0] == 4
    (tmp_path / "projects").mkdir()
    return write, given, old.read_bytes(), new.read_bytes()


def killed(write, given, out, kill_at, **options):
    command = [sys.executable, "-c", CHILD, write, str(given), str(out), str(kill_at), json.dumps(options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("way", ["unpacked", "request"])
def test_killed_before_calls_that_change_the_disk(setting, tmp_path):
    write, given, old, new = setting
    out = tmp_path / "projects" / "out.zip"
    last = killed(write, given, out, 0)
    assert last.returncode == 0, last.stderr
    assert out.read_bytes() == new
    n_calls = int(last.stdout)
    # The first ones, the last ones, where publication happens, and some between.
    moments = sorted({1, 4, *random.Random(0).sample(range(5, n_calls - 10), 3), *range(n_calls - 10, n_calls + 1, 2)})
    seen, leftovers = [], set()
    for kill_at in moments:
        out.write_bytes(old)
        done = killed(write, given, out, kill_at)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        found = out.read_bytes()
        assert found in (old, new), kill_at
        leftovers.update(os.listdir(out.parent))
        give_up(out)
        assert os.listdir(out.parent) == ["out.zip"]
        assert out.read_bytes() == found
        seen.append(found == new)
    assert seen == sorted(seen)
    assert seen[0] is False
    assert seen.count(False) > 4
    assert len(leftovers) > 3
    assert given.exists()


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments(setting, tmp_path):
    """By the clock, with several threads; the next run, which is let live, removes what is left."""
    write, given, old, new = setting
    out, clock = tmp_path / "projects" / "out.zip", random.Random(1)
    out.write_bytes(old)
    for _ in range(2):
        command = [sys.executable, "-c", LOOP, write, str(given), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(clock.choice([2, 3, 8])):
                assert child.stdout.readline() == "again\n"
            time.sleep(clock.uniform(0, 0.1))
            child.kill()
        assert out.read_bytes() in (old, new)
    getattr(aw, write)(given, out, force=True, progress=False)
    assert out.read_bytes() == new
    assert os.listdir(out.parent) == ["out.zip"]


def test_temporary_files_elsewhere(tmp_path):
    """A folder for temporary files that is not the target's: its owner finds what a killed run left by its name."""
    given, out, spill = tmp_path / "given", tmp_path / "projects" / "out.zip", tmp_path / "spill"
    given.write_bytes(unpacked(truth()))
    for folder in (out.parent, spill):
        folder.mkdir()
    n_calls = int(killed("deepcell", given, out, 0, spill_dir=str(spill)).stdout)
    assert not os.listdir(spill)
    left = set()
    for kill_at in (n_calls // 4, n_calls // 2, 3 * n_calls // 4):
        out.unlink(missing_ok=True)
        killed("deepcell", given, out, kill_at, spill_dir=str(spill))
        left.update(os.listdir(spill))
        give_up(out)
        assert set(os.listdir(out.parent)) <= {"out.zip"}
    assert left
    assert all(name.startswith("out.zip.atlaswriter-tmp-") for name in left)
