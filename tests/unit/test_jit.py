"""How kernels are compiled, cached, and made to work where no cache can be kept."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import atlaswriter
from atlaswriter.kernels import quantize
from atlaswriter.kernels._jit import Kernel, kernel, warm, warm_all

SIGNATURE = "(i8[::1],)"


def total(values):
    """Sum of the values."""
    result = 0
    for value in values:
        result += value
    return result


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A kernel that nobody has compiled, with a cache folder of its own."""
    monkeypatch.setattr(Kernel, "registry", [])
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))
    return lambda: kernel(SIGNATURE)(total)


def test_a_kernel_is_compiled_once_then_loaded(fresh):
    first, second = fresh(), fresh()
    assert first.compile(SIGNATURE)
    assert not first.compile(SIGNATURE)
    assert not second.compile(SIGNATURE)
    assert first(np.arange(5)) == second(np.arange(5)) == 10
    assert first.cache_path


def test_calling_without_preparation_works(fresh):
    one = fresh()
    assert one(np.arange(4)) == 6
    assert one.undeclared() == []


def test_undeclared_types_are_found(fresh):
    one = fresh()
    one(np.arange(4.0))
    assert len(one.undeclared()) == 1
    assert "float64" in one.undeclared()[0]


def test_only_declared_types_are_prepared(fresh):
    with pytest.raises(ValueError, match=r"test_jit\.total has no signature"):
        fresh().compile("(f4[::1],)")


def test_kernels_are_known_and_described(fresh):
    one = fresh()
    assert Kernel.registry == [one]
    assert one.__doc__ == total.__doc__


@pytest.mark.parametrize("step", ["save_overload", "load_overload"])
def test_cache_that_breaks_while_used(fresh, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    one = fresh()
    monkeypatch.setattr(one._dispatcher._cache, step, full)
    assert one.compile(SIGNATURE)
    assert one(np.arange(5)) == 10
    assert not one.compile(SIGNATURE)


def test_cache_that_breaks_without_preparation(fresh, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    one = fresh()
    monkeypatch.setattr(one._dispatcher._cache, "save_overload", full)
    assert one(np.arange(5)) == 10


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_damaged_cache_files(fresh, tmp_path, ending, content):
    assert fresh().compile(SIGNATURE)
    damaged = list(tmp_path.rglob(f"*.{ending}"))
    assert damaged
    for path in damaged:
        path.write_bytes(content)
    one = fresh()
    one.compile(SIGNATURE)
    assert one(np.arange(5)) == 10


def test_warm_says_so_once_and_only_when_it_compiles(fresh):
    said = []
    one = fresh()
    two = Kernel(lambda x: x, ("(i8,)", "(f8,)"))
    wanted = [(one, SIGNATURE), (two, "(i8,)"), (two, "(f8,)")]
    assert warm(wanted, lambda: said.append("compiling")) == 3
    assert warm(wanted, lambda: said.append("compiling")) == 0
    assert said == ["compiling"]


def test_warm_all_makes_everything_ready():
    warm_all()
    assert warm_all() == 0
    assert all(len(one._dispatcher.signatures) >= len(one.signatures) for one in Kernel.registry)


def test_every_kernel_is_serial_and_releases_the_gil():
    assert len(Kernel.registry) >= 15
    for one in Kernel.registry:
        options = one._dispatcher.targetoptions
        assert options.get("nogil")
        assert not options.get("parallel")
        assert not options.get("fastmath")


def test_threads_may_compile_and_call_at_once(fresh):
    one, barrier, results = fresh(), threading.Barrier(8), []

    def work():
        barrier.wait()
        one.compile(SIGNATURE)
        results.extend(one(np.arange(1000)) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [499500] * 160
    assert one.undeclared() == []


def test_threads_do_not_share_results():
    values = [np.full(50_000, number, np.float32) for number in range(8)]
    for number, column in enumerate(values):
        column[:number] = np.nan
    offsets, bounds, n_missing = np.array([0, 50_000]), np.empty((8, 1, 2)), np.empty((8, 1), np.int64)

    def work(number):
        for _ in range(20):
            quantize.bounds(values[number], offsets, 50_000, bounds[number], n_missing[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bounds[:, 0].tolist() == [[number, number] for number in range(8)]
    assert n_missing[:, 0].tolist() == list(range(8))


CHILD = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import numpy as np
from atlaswriter.kernels import _jit, csr
compiled = _jit.warm([(csr.in_order, "(u4[::1], i8[::1])")])
print(compiled, csr.in_order(np.array([1, 2], np.uint32), np.array([0, 2])), csr.in_order.cache_path)
"""


def child(environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    result = subprocess.run(
        [sys.executable, "-c", CHILD], env=kept | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split(maxsplit=2), result.stderr


@pytest.fixture
def package(tmp_path):
    """A copy of the package beside whose kernels nothing can be cached, not even by root."""
    source = Path(atlaswriter.__file__).parent
    copy = tmp_path / "site" / "atlaswriter"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "kernels" / "__pycache__").write_text("in the way")
    return {"PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}


def test_no_cache_folder_anywhere(package, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    nowhere = {"NUMBA_CACHE_DIR": str(blocked), "XDG_CACHE_HOME": str(blocked), "HOME": str(blocked)}
    for _ in range(2):  # nothing is kept, so it is compiled anew
        (compiled, result, *path), errors = child(package | nowhere)
        assert (compiled, result, path) == ("1", "True", [])
        assert errors == ""


def test_warm_start_loads_from_the_cache(package, tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, _ = child(package | cache)
    second, errors = child(package | cache)
    assert first[:2] == ["1", "True"]
    assert second[:2] == ["0", "True"]
    assert str(tmp_path / "cache") in second[2]
    assert errors == ""


def test_a_damaged_cache_runs_a_kernel_once(tmp_path):
    """In a process of its own: kernels add to their arguments, so running twice would show."""
    code = (
        "import pathlib, numpy as np\n"
        "from atlaswriter.kernels import groups\n"
        "groups.count.compile('(u1[::1], i8[::1])')\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).rglob('*groups*.nbi'): path.write_bytes(b'')\n"
    )
    again = (
        "import numpy as np\n"
        "from atlaswriter.kernels import groups\n"
        "counts = np.zeros(3, np.int64)\n"
        "groups.count(np.array([0, 1, 1], np.uint8), counts)\n"
        "print(counts.tolist())\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*groups*.nbi"))
    done = subprocess.run([sys.executable, "-c", again], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "[1, 2, 0]\n"
