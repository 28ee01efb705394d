"""Writes the files of browser viewers for single-cell and spatial atlases.

Fast, and inside a memory budget. The functions here load their modules on first use, so that
``import atlaswriter`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "cellucid": "atlaswriter.formats.cellucid.convert",
    "check": "atlaswriter.formats.detect",
    "deepcell": "atlaswriter.formats.deepcell.convert",
    "deepcell_export": "atlaswriter.formats.deepcell.exchange",
    "diff": "atlaswriter.formats.detect",
    "finish": "atlaswriter.formats.tasks",
    "generate_datasets_manifest": "atlaswriter.formats.cellucid.datasets",
    "landscape": "atlaswriter.formats.landscape.convert",
    "open_export": "atlaswriter.formats.detect",
    "plan": "atlaswriter.formats.tasks",
    "plan_tasks": "atlaswriter.formats.tasks",
    "prepare": "atlaswriter.formats.cellucid.prepare",
    "run": "atlaswriter.formats.tasks",
}

__all__ = [
    "__version__",
    "cellucid",
    "check",
    "deepcell",
    "deepcell_export",
    "diff",
    "finish",
    "generate_datasets_manifest",
    "landscape",
    "open_export",
    "plan",
    "plan_tasks",
    "prepare",
    "run",
]

if TYPE_CHECKING:
    from atlaswriter.formats.cellucid.convert import cellucid
    from atlaswriter.formats.cellucid.datasets import generate_datasets_manifest
    from atlaswriter.formats.cellucid.prepare import prepare
    from atlaswriter.formats.deepcell.convert import deepcell
    from atlaswriter.formats.deepcell.exchange import deepcell_export
    from atlaswriter.formats.detect import check, diff, open_export
    from atlaswriter.formats.landscape.convert import landscape
    from atlaswriter.formats.tasks import finish, plan, plan_tasks, run


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atlaswriter' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
