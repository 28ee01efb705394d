"""Celldega's own front-end opens what we write, and loads exactly what the tiles hold."""

import importlib.util
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

viewer = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("browser_viewer", Path(__file__).with_name("viewer.py"))
)


def front_end() -> Path | None:
    """The module of the front-end: named by the environment, or the one of an installed celldega."""
    if named := os.environ.get("ATLASWRITER_CELLDEGA_JS"):
        return Path(named)
    found = importlib.util.find_spec("celldega")
    return Path(found.origin).parent / "static" / "celldega.js" if found and found.origin else None
