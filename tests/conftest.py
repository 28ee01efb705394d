"""What all tests share: the data of the project, the original program, and how Hypothesis searches."""

import importlib.metadata
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was():
    """The command line gives the package's logger a handler; the next test must not inherit it."""
    logger = logging.getLogger("atlaswriter")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
