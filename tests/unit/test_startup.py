"""Start-up is quick and loads nothing heavy."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("numpy", "numba", "pandas", "scipy", "h5py", "zarr", "anndata", "tqdm", "isal", "zstandard", "click")


def loaded(code):
    """Heavy modules that are loaded after some code has run."""
    report = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout.splitlines()[-1].split()


def seconds(*arguments):
    """Best wall-clock time of several runs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_import_loads_nothing_heavy():
    assert loaded("import atlaswriter; dir(atlaswriter); atlaswriter.__version__") == []


def test_help_loads_click_only():
    code = "from atlaswriter.cli.main import run; run(['--help'])"
    assert loaded(code) == ["click"]


@pytest.mark.parametrize(
    "verb",
    ["cellucid", "landscape", "deepcell", "deepcell-export", "plan", "check", "info", "diff", "datasets", "demo"],
)
def test_help_of_a_verb_loads_no_numbers(verb):
    found = loaded(f"from atlaswriter.cli.main import run; assert run(['{verb}', '--help']) == 0")
    assert found == ["click"]


def test_preparing_loads_no_reader_of_files():
    found = loaded("import atlaswriter; atlaswriter.prepare")
    assert not {"h5py", "zarr", "anndata"} & set(found)


@pytest.mark.skipif(os.environ.get("ATLASWRITER_NO_TIMING") is not None, reason="timing is switched off")
@pytest.mark.parametrize(
    "arguments",
    [("-c", "import atlaswriter"), (str(Path(sys.executable).with_name("atlaswriter")), "--help")],
    ids=["import", "help"],
)
def test_start_takes_less_than_0_3_seconds(arguments):
    assert seconds(*arguments) < 0.3


def test_front_door():
    import atlaswriter

    assert set(atlaswriter.__all__) <= set(dir(atlaswriter))
    for name in atlaswriter.__all__:
        assert getattr(atlaswriter, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = atlaswriter.nonsense
