"""`atlaswriter.landscape`, timed stage by stage like ``celldega027.py``.

    python benchmarks/rivals/ours_landscape.py BUNDLE OUT [-j 2] [-M 4GiB] [--row-groups] [--compat]

Prints one JSON object: seconds and CPU seconds (of all threads) of each phase and of all, start-up left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import atlaswriter
from atlaswriter.report import Phase, Report

Stages = dict[str, dict[str, float]]


@contextmanager
def timed(stages: Stages, name: str) -> Iterator[None]:
    """Add what runs inside to a stage; those of one name add up."""
    begin, used = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        found = stages.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
        found["seconds"] += time.perf_counter() - begin
        found["cpu_seconds"] += time.process_time() - used


def watched(
    stages: Stages, phase: Callable[..., AbstractContextManager[Phase]]
) -> Callable[..., AbstractContextManager[Phase]]:
    """`Report.phase` that also keeps CPU seconds."""

    @contextmanager
    def both(report: Report, name: str, size: int = 0) -> Iterator[Phase]:
        with timed(stages, name), phase(report, name, size) as found:
            yield found

    return both


def main() -> None:
    """Run, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("-j", "--workers", type=int)
    parser.add_argument("-M", "--memory-budget")
    parser.add_argument("--row-groups", action="store_true")
    parser.add_argument("--compat", action="store_true")
    given: dict[str, Any] = vars(parser.parse_args())
    bundle, out = given.pop("bundle"), given.pop("out")
    stages: Stages = {}
    Report.phase = watched(stages, Report.phase)  # type: ignore[method-assign]
    with timed(stages, "all"):
        atlaswriter.landscape(bundle, out, progress=False, **{key: value for key, value in given.items() if value})
    print(json.dumps({**stages.pop("all"), "stages": stages}))


if __name__ == "__main__":
    main()
