"""Killed at any moment, an export of LandscapeFiles leaves the whole old one or the whole new one, and then nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from tests.bundles import make_bundle
from tests.landscape_truth import files, fingerprint

import atlaswriter as aw

from .test_publish import can_exchange, give_up

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

RECIPE = {"n_cells": 30, "n_genes": 6, "n_transcripts": 1500, "image": (200, 260), "channels": 1}
WAYS = {
    "loose": {"tile_size": 60, "strategy": "memory"},
    "row groups, spilled": {"tile_size": 60, "strategy": "spill", "row_groups": True},
}

# For each number it is told, a copy of itself exports over what is there, and kills itself before that call among those
# that change the disk. Libraries are loaded once; the copies say nothing unless they survive.
CHILD = """
import json, os, signal, sys
import h5py, pyarrow.parquet, tifffile, zarr
import atlaswriter as aw
from atlaswriter.kernels import _jit
from atlaswriter.sinks import fs, lock

bundle, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
_jit.warm_all()

def export(kill_at):
    calls = []

    def mortal(function):
        def wrapper(*args, **given):
            calls.append(function.__name__)
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **given)
        return wrapper

    for name in ("write", "mkdir", "rename", "unlink", "rmdir", "fsync", "pread"):
        setattr(os, name, mortal(getattr(os, name)))
    for module, name in ((fs, "sync_tree"), (fs, "exchange"), (fs, "remove_tree"), (lock, "_lock")):
        setattr(module, name, mortal(getattr(module, name)))
    aw.landscape(bundle, out, force=True, progress=False, workers=1, **options)
    return calls

for line in sys.stdin:
    copy = os.fork()
    if not copy:
        print(json.dumps(export(int(line))), flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    print(json.dumps({"code": code}), flush=True)
"""


@pytest.fixture
def setting(tmp_path):
    """A bundle, an export of another one, and what the new one will be."""
    truth = make_bundle(tmp_path / "in" / "bundle", **RECIPE)
    other = make_bundle(tmp_path / "in" / "other", **RECIPE, seed=8)
    (tmp_path / "exports").mkdir()
    out = tmp_path / "exports" / "out"
    aw.landscape(other.folder, tmp_path / "in" / "old", progress=False)
    return truth.folder, tmp_path / "in" / "old", out


@contextmanager
def mortal(bundle, out, options):
    """Runs an export that is killed before a call, 0 for none; its exit code, and the calls of one that survives."""
    command = [sys.executable, "-c", CHILD, str(bundle), str(out), json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def killed(kill_at):
            child.stdin.write(f"{kill_at}\n")
            child.stdin.flush()
            calls, said = [], json.loads(child.stdout.readline())
            if isinstance(said, list):
                calls, said = said, json.loads(child.stdout.readline())
            return said["code"], calls

        yield killed
        child.stdin.close()


@pytest.mark.parametrize("way", WAYS)
def test_killed_before_calls_that_change_the_disk(way, setting, tmp_path):
    bundle, old, out = setting
    options = WAYS[way]
    aw.landscape(bundle, tmp_path / "new", progress=False, **options)
    OLD, NEW = files(old), files(tmp_path / "new")
    untouched = fingerprint(bundle)
    shutil.copytree(old, out)
    with mortal(bundle, out, options) as killed:
        moments, published, seen = killed_at_moments(killed, old, out, OLD, NEW)
    assert seen == sorted(seen)
    assert seen[0] is False
    assert fingerprint(bundle) == untouched
    if can_exchange(tmp_path):
        assert seen == [kill_at > published for kill_at in moments]


def killed_at_moments(killed, old, out, OLD, NEW):
    """The numbers of calls before which it was killed, that of the publication, and whether the new export was seen."""
    code, calls = killed(0)
    assert code == 0
    assert files(out) == NEW
    assert len(calls) > 30
    published = calls.index("exchange" if can_exchange(out.parent) else "remove_tree") + 1
    # The first ones, the ones around publication, the last ones, and some between.
    between = random.Random(0).sample(range(3, published - 4), 3)
    moments = sorted(
        {1, 2, *between, published - 4, published - 1, published, published + 1, len(calls) - 1, len(calls)}
    )
    seen = []
    for kill_at in moments:
        shutil.rmtree(out)
        shutil.copytree(old, out)
        assert killed(kill_at)[0] in (0, -signal.SIGKILL)
        give_up(out)
        found = files(out)
        assert found in (OLD, NEW), kill_at
        assert os.listdir(out.parent) == ["out"]
        seen.append(found == NEW)
    return moments, published, seen


def test_killed_at_random_moments(setting, tmp_path):
    """Also several threads at once, by the clock."""
    bundle, old, out = setting
    aw.landscape(bundle, tmp_path / "new", progress=False, tile_size=40)
    allowed = files(old), files(tmp_path / "new")
    shutil.copytree(old, out)
    code = (
        "import sys, atlaswriter as aw\nwhile True:\n"
        "    print('again', flush=True)\n"
        "    aw.landscape(sys.argv[1], sys.argv[2], force=True, progress=False, tile_size=40, workers=2)\n"
    )
    clock = random.Random(1)
    for _ in range(6):
        command = [sys.executable, "-c", code, str(bundle), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(clock.choice([1, 2, 2])):
                assert child.stdout.readline() == "again\n"
            time.sleep(clock.uniform(0, 0.6))
            child.kill()
        give_up(out)
        assert files(out) in allowed
        assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_the_user(number, setting, tmp_path):
    """Nothing is left beside the old export, not even what a killed process would leave."""
    bundle, old, out = setting
    shutil.copytree(old, out)
    before = files(out)
    code = (
        "import sys, time\nfrom atlaswriter.cli.main import run\n"
        "from atlaswriter.formats.landscape.job import Job\nwrite = Job.write_table\n"
        "def slowly(*given):\n    print('written', flush=True)\n    time.sleep(0.05)\n    return write(*given)\n"
        "Job.write_table = slowly\n"
        "raise SystemExit(run(['landscape', sys.argv[1], sys.argv[2], '--force', '--tile-size', '40']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        for _ in range(3):
            assert child.stdout.readline() == "written\n"
        child.send_signal(number)
        _, stderr = child.communicate(timeout=60)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert "interrupted; nothing was changed" in stderr
        assert os.listdir(out.parent) == ["out"]
    else:
        assert child.returncode != 0
    give_up(out)
    assert os.listdir(out.parent) == ["out"]
    assert files(out) == before
