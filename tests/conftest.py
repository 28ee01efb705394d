"""What all tests share: the data of the project, the original program, and how Hypothesis searches."""

import importlib.metadata
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from atlaswriter.sinks import fs

SHARED = Path(__file__).parents[1].parent / "shared"
ORIGINAL = "0.0.9"

# The same examples on every run and machine; "thorough" looks for new ones.
settings.register_profile(
    "steady", derandomize=True, max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


# Minutes each, as measured on two cores: workers that begin with them end together.
SLOWEST = (
    "memory/test_peak.py", "memory/test_landscape_memory.py", "memory/test_deepcell_memory.py",
    "crash/test_landscape_killed.py", "memory/test_identity.py", "crash/test_deepcell_killed.py",
    "browser/test_viewer.py", "unit/test_worked_example.py", "unit/test_dask.py", "crash/test_tasks_killed.py",
    "unit/test_slurm.py", "crash/test_resume_killed.py", "unit/test_landscape_tasks.py",
)  # fmt: skip

# Compiles kernels that no other process has claimed by making a folder; begins with those that take longest.
WARM = """
import os, sys
from atlaswriter.kernels import _jit

def unclaimed():
    for one in sorted(_jit._load_all(), key=lambda one: (not one.name.startswith("gzip."), one.name)):
        try:
            os.mkdir(os.path.join(sys.argv[1], one.name))
        except FileExistsError:
            continue
        yield from ((one, signature) for signature in one.signatures)

_jit.warm(unclaimed())
"""


def pytest_configure(config):
    """Before workers are started, that each kernel is compiled once and not by each of them."""
    workers = getattr(config.option, "numprocesses", None)
    if not workers or hasattr(config, "workerinput"):
        return
    config.option.loadscopereorder = False  # files in the order given below, not the one with most tests first
    with tempfile.TemporaryDirectory() as claims:
        processes = [subprocess.Popen([sys.executable, "-c", WARM, claims]) for _ in range(workers)]
        for process in processes:
            process.wait()


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        order = {Path(__file__).parent / name: place for place, name in enumerate(SLOWEST)}
        items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def shared():
    """Folder of test data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"the project's test data is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def original():
    """Module of cellucid 0.0.9 that `prepare` is a drop-in for."""
    try:
        found = importlib.metadata.version("cellucid")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != ORIGINAL:
        pytest.skip(f"parity needs cellucid {ORIGINAL}, {found} is installed: pip install -e '.[test]'")
    import cellucid.prepare_data

    return cellucid.prepare_data


# Where files must really get to the disk: tests of publication, and of what is killed.
DURABLE = ("unit/test_sinks.py", "unit/test_archive.py", "unit/test_tasks.py", "crash/")


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_disk(request, monkeypatch):
    """Thousands of tests publish something: 363 of bad input took 50 s, and 27 s without waiting each time."""
    if not request.path.relative_to(Path(__file__).parent).as_posix().startswith(DURABLE):
        monkeypatch.setattr(fs, "_sync_file_system", lambda folder: True)
        monkeypatch.setattr(fs, "sync_file", lambda path: None)


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was():
    """The command line gives the package's logger a handler; the next test must not inherit it."""
    logger = logging.getLogger("atlaswriter")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
