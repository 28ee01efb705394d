"""Killed at any moment, a publication leaves the whole old export or the whole new one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atlaswriter.errors import OutputError
from atlaswriter.sinks import fs
from atlaswriter.sinks.folder import FolderSink

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

# Replaces an export while counting every call that changes the disk, and kills itself before call number
# `kill_at`. The system calls below the primitives are counted too, so that it also dies half-way
# through a file, through the creation of the parents and through the deletion of the old tree.
CHILD = """
import os, signal, sys
from pathlib import Path
from atlaswriter.sinks import fs, lock
from atlaswriter.sinks.folder import FolderSink

target, kill_at, can_exchange = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
calls = 0

def mortal(function):
    def wrapper(*args, **options):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return wrapper

write = os.write
os.write = lambda descriptor, content: write(descriptor, content[:400])
if not can_exchange:
    fs.exchange = lambda first, second: False
for name in ("open", "write", "close", "mkdir", "rename", "unlink", "rmdir", "fsync"):
    setattr(os, name, mortal(getattr(os, name)))
for module, name in ((fs, "sync_tree"), (fs, "exchange"), (fs, "remove_tree"), (lock, "_lock")):
    setattr(module, name, mortal(getattr(module, name)))

with FolderSink(target, force=True) as sink:
    sink.make_dir("genes")
    for i in range(3):
        sink.write(f"genes/{i}", b"new" * 200)
    sink.write("manifest", b"new")
    sink.publish()
"""

# Replaces an export again and again; every file of one generation holds its number.
LOOP = """
import itertools, sys
from pathlib import Path
from atlaswriter.sinks import fs
from atlaswriter.sinks.folder import FolderSink
if sys.argv[2] == "False":
    fs.exchange = lambda first, second: False
fs.sync_tree = lambda folder: None  # a process that dies does not lose what it wrote, and we want many rounds
for generation in itertools.count(1):
    with FolderSink(Path(sys.argv[1]), force=True) as sink:
        for i in range(10):
            sink.write(str(i), str(generation).encode() * 100)
        sink.publish()
    print(generation, flush=True)
"""


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tree_of(text):
    return {**{f"genes/{i}": text * 200 for i in range(3)}, "manifest": text}


OLD, NEW = tree_of(b"old"), tree_of(b"new")


def make_old(target):
    (target / "genes").mkdir(parents=True)
    for name, content in OLD.items():
        (target / name).write_bytes(content)


def can_exchange(folder):
    first, second = folder / "1", folder / "2"
    first.mkdir()
    second.mkdir()
    try:
        return fs.exchange(first, second)
    finally:
        first.rmdir()
        second.rmdir()


def give_up(target):
    """A next run that publishes nothing, and so leaves what it found, cleaned up."""
    with FolderSink(target, force=True):
        pass


def killed_at_every_call(parent, *, exchange, old):
    """Yield the target after the child was killed before its 1st, 2nd ... call, until it survives."""
    target = parent / "out"
    for kill_at in range(1, 500):
        if old:
            make_old(target)
        child = subprocess.run([sys.executable, "-c", CHILD, target, str(kill_at), str(exchange)], check=False)
        if child.returncode == 0:
            assert tree(target) == NEW
            assert os.listdir(parent) == ["out"]
            return
        assert child.returncode == -signal.SIGKILL
        yield target
        assert os.listdir(parent) == ["out"]
        fs.remove_tree(target)
    pytest.fail("never came to an end")


def test_killed_before_any_call_with_exchange(tmp_path):
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange")
    seen, leftovers = [], set()
    for target in killed_at_every_call(tmp_path, exchange=True, old=True):
        found = tree(target)
        assert found in (OLD, NEW)
        seen.append(found == NEW)
        leftovers.update(os.listdir(tmp_path))
        give_up(target)
        assert tree(target) == found
    assert seen == sorted(seen)  # old until one moment, new from then on
    assert {False, True} == set(seen)
    assert len(seen) > 30
    assert len(leftovers) > 10  # there was something to clean


def test_killed_before_any_call_without_exchange(tmp_path):
    seen = []
    for target in killed_at_every_call(tmp_path, exchange=False, old=True):
        if target.exists():
            found = tree(target)
            assert found in (OLD, NEW)
            seen.append("old" if found == OLD else "new")
        else:
            found = OLD
            seen.append("missing")
        give_up(target)
        assert tree(target) == found
    assert list(dict.fromkeys(seen)) == ["old", "missing", "new"]
    assert seen.count("missing") == 1  # only between the two renames


def test_killed_before_any_call_while_writing_a_first_export(tmp_path):
    seen = []
    for target in killed_at_every_call(tmp_path, exchange=True, old=False):
        seen.append(target.exists())
        if target.exists():
            assert tree(target) == NEW
        with FolderSink(target, force=True) as sink:
            sink.write("manifest", b"next")
            sink.publish()
        assert tree(target) == {"manifest": b"next"}
    assert seen == sorted(seen)
    assert {False, True} == set(seen)


def test_a_missing_export_is_back_before_a_run_without_force_is_refused(tmp_path):
    for target in killed_at_every_call(tmp_path, exchange=False, old=True):
        if target.exists():
            give_up(target)
            continue
        with pytest.raises(OutputError, match="is not empty"), FolderSink(target, force=False):
            pytest.fail("entered")
        assert tree(target) == OLD
        return
    pytest.fail("the target was never missing")


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_random_moments(tmp_path, exchange):
    if exchange and not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange")
    target, clock = tmp_path / "out", random.Random(0)
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, target, str(exchange)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "1\n"
            time.sleep(clock.uniform(0, 0.05))
            child.kill()
        assert child.returncode == -signal.SIGKILL
        if exchange:
            assert target.is_dir()
        give_up(target)
        found = tree(target)
        assert set(found) == {str(i) for i in range(10)}
        assert len(set(found.values())) == 1
        assert os.listdir(tmp_path) == ["out"]


def test_readers_never_miss_the_target_where_it_can_be_exchanged(tmp_path):
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange")
    target: Path = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", LOOP, target, "True"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "1\n"
        generations, end = set(), time.monotonic() + 1
        while time.monotonic() < end:
            generations.add((target / "9").read_bytes())
        child.kill()
    assert len(generations) > 5
    assert all(len(content) % 100 == 0 and content for content in generations)
