"""Processes whose memory is measured, and what they read."""

import json
import shutil
import subprocess
import sys
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
def measured(kernels, tmp_path):
    """Runs an export in a process of its own; what it says (see `child.py`)."""

    def run(how, source, *, prefix=(), fails=False, **job):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        job = {"how": how, "source": str(source), "out": str(out), **job}
        command = [*prefix, sys.executable, str(CHILD), json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if fails:
            assert done.returncode
            return done.stderr
        assert done.returncode == 0, done.stderr[-2000:]
        assert [path.name for path in tmp_path.iterdir()] == (["out"] if out.exists() else [])
        return json.loads(done.stdout.splitlines()[-1])

    return run
