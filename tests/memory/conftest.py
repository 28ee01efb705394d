"""Processes whose memory is measured, and what they read."""

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture(scope="session")
def kernels():
    """Compiled before anything is measured: compiling takes memory of its own, once on a machine."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here to read a process's largest resident size from")
    warm = "from atlaswriter.cli.main import run; raise SystemExit(run(['info', '--warm']))"
    subprocess.run([sys.executable, "-c", warm], check=True, capture_output=True)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Gives the path of an input, made on first use; all are deleted at the end."""
    folder = tmp_path_factory.mktemp("memory-inputs")
    known = {}

    def get(make, **recipe):
        key = make.__name__, json.dumps(recipe)
        if key not in known:
            suffix = "zarr" if make.__name__ == "store" else "h5ad"
            path = folder / f"input-{len(known)}.{suffix}"
            make(path, **recipe)
            known[key] = path
        return known[key]

    yield get
    shutil.rmtree(folder)


@pytest.fixture
def process(kernels, tmp_path):
    """Opens a process that exports what it is told to; what it says of each export (see `child.py`), and its ``out``.

    ``prefix`` is what the process is started by; an export that ``fails`` ends it, and gives what it complained of.
    """

    @contextmanager
    def opened(*, prefix=()):
        command, pipes = [*prefix, sys.executable, str(CHILD)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (
            tempfile.TemporaryFile("w+") as stderr,
            subprocess.Popen(command, **pipes, stderr=stderr, text=True) as child,
        ):
            yield partial(exported, child, stderr)
            child.stdin.close()

    def exported(child, stderr, how, source, *, fails=False, suffix="", **job):
        out = (tmp_path / "out").with_suffix(suffix)
        remove(out)
        child.stdin.write(json.dumps({"how": how, "source": str(source), "out": str(out), **job}) + "\n")
        child.stdin.flush()
        answer = child.stdout.readline()
        if not answer:
            assert child.wait()
            stderr.seek(0)
            complaint = stderr.read()
            assert fails, complaint[-2000:]
            return complaint
        assert not fails
        assert [path.name for path in tmp_path.iterdir()] == ([out.name] if out.exists() else [])
        return {**json.loads(answer), "out": out}

    return opened


@pytest.fixture
def measured(process):
    """Runs one export in a process of its own."""

    def run(how, source, *, prefix=(), **job):
        with process(prefix=prefix) as export:
            return export(how, source, **job)

    return run


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
