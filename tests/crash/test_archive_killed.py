"""Killed at any moment, the publication of an archive leaves the whole old file or the whole new one."""

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from atlaswriter.sinks.archive import ArchiveSink

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")

# Writes an archive while counting every call that changes the disk, and kills itself before call number `kill_at`.
CHILD = """
import os, signal, sys
from pathlib import Path
from atlaswriter.sinks import fs, lock
from atlaswriter.sinks.archive import ArchiveSink

target, kill_at, way = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
calls = 0

def mortal(function):
    def wrapper(*args, **options):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return wrapper

write, from_libc = os.write, fs._from_libc
os.write = lambda descriptor, content: write(descriptor, content[:400])
fs._from_libc = lambda name: None if way == "link" else mortal(from_libc(name))
for name in ("open", "write", "lseek", "close", "mkdir", "link", "replace", "rename", "unlink", "rmdir", "fsync"):
    setattr(os, name, mortal(getattr(os, name)))
fs.remove_tree = mortal(fs.remove_tree)
lock._lock = mortal(lock._lock)

with ArchiveSink(target, force=way == "replace") as sink:
    (sink.scratch() / "spilled").write_bytes(b"x")
    with sink.member("X", 1 << 40) as member:
        member.append(bytes(8))
        member.append(b"new" * 200)
        member.fill(b"12345678")
    sink.write("manifest", [b"new"])
    sink.publish()
"""

# Replaces an archive again and again; every member of one generation holds its number.
LOOP = """
import itertools, sys
from pathlib import Path
from atlaswriter.sinks import fs
from atlaswriter.sinks.archive import ArchiveSink
fs.sync_file = lambda path: None  # a process that dies does not lose what it wrote, and we want many rounds
for generation in itertools.count(1):
    with ArchiveSink(Path(sys.argv[1]), force=True) as sink:
        for i in range(10):
            sink.write(str(i), [str(generation).encode() * 100])
        sink.publish()
    print(generation, flush=True)
"""

NEW = {"X": b"12345678" + b"new" * 200, "manifest": b"new"}
OLD = {"old": b"old"}


def content(path):
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def make_old(target):
    with zipfile.ZipFile(target, "w") as file:
        for name, data in OLD.items():
            file.writestr(name, data)


def give_up(target):
    """A next run that publishes nothing, and so leaves what it found, cleaned up."""
    with ArchiveSink(target, force=True):
        pass


@pytest.mark.parametrize("way", ["replace", "new", "link"])
def test_killed_before_any_call(tmp_path, way):
    parent = tmp_path / "out"
    target = parent / "out.zip"
    seen, leftovers = [], set()
    for kill_at in range(1, 500):
        if way == "replace":
            parent.mkdir(exist_ok=True)
            make_old(target)
        child = subprocess.run([sys.executable, "-c", CHILD, target, str(kill_at), way], check=False)
        assert child.returncode in (0, -signal.SIGKILL)
        found = content(target) if target.exists() else None
        assert found in ((OLD, NEW) if way == "replace" else (None, NEW))
        if child.returncode == 0:
            assert found == NEW
            assert os.listdir(parent) == ["out.zip"]
            break
        seen.append(found == NEW)
        if parent.exists():
            leftovers.update(os.listdir(parent))
            give_up(target)
            assert os.listdir(parent) == (["out.zip"] if found else [])
            assert (content(target) if target.exists() else None) == found
            target.unlink(missing_ok=True)
            parent.rmdir()
    else:
        pytest.fail("never came to an end")
    assert seen == sorted(seen)  # old until one moment, new from then on
    assert {False, True} == set(seen)
    assert len(seen) > 30
    assert len(leftovers) > 20  # there was something to clean


def test_killed_at_random_moments(tmp_path):
    target, clock = tmp_path / "out.zip", random.Random(0)
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", LOOP, target], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "1\n"
            time.sleep(clock.uniform(0, 0.05))
            child.kill()
        assert child.returncode == -signal.SIGKILL
        found = content(target)
        assert set(found) == {str(i) for i in range(10)}
        assert len(set(found.values())) == 1
        give_up(target)
        assert content(target) == found
        assert os.listdir(tmp_path) == ["out.zip"]


def test_readers_never_miss_the_target(tmp_path):
    target: Path = tmp_path / "out.zip"
    with subprocess.Popen([sys.executable, "-c", LOOP, target], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "1\n"
        generations, end = set(), time.monotonic() + 1
        while time.monotonic() < end:
            generations.update(content(target).values())
        child.kill()
    assert len(generations) > 5
