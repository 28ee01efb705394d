"""Everything that README quotes, measured anew: the programs of `macro` one after the other, then `readme.py`.

    python -m benchmarks.all --folder DISK [--only NAME ...]
    python -m benchmarks.all --folder DISK --quick

Takes hours and 80 GB in DISK, where generated files stay and are used again. Results go to ``benchmarks/results``; a
program that fails (one it is compared with may not be installed, see README.md here) leaves the old result as it is,
and the exit code is 1. Exports that must not wait for a disk go to ``/dev/shm``, where there is one.

`--quick` tries all of it at small sizes in minutes; its results mean nothing and go to ``DISK/quick``, and README stays
as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import readme

ROOT = readme.ROOT
MEMORY = Path("/dev/shm")
_TOY = "--cells 20000 --genes 100 -n 1"


@dataclass(frozen=True)
class Program:
    """One of `macro`.

    Parameters
    ----------
    quick
        Options that make it small.
    usual
        Options for what README quotes, where they are not its own defaults.
    in_memory
        Whether outputs go to memory, and all files are temporary; else it takes ``--folder``.
    """

    quick: str
    usual: str = ""
    in_memory: bool = False


PROGRAMS = {
    "encode_genes": Program("--cells 20000 --genes 20 --quantize 8 --levels 6 -n 1", in_memory=True),
    "prepare_vs_cellucid": Program(f"--data synthetic --quantize 8 {_TOY}", in_memory=True),
    "whole_process": Program(_TOY, in_memory=True),
    "workers": Program(f"-j 1 2 {_TOY}", in_memory=True),
    "rivals": Program(f"--transcripts 50000 {_TOY}", in_memory=True),
    "any_size": Program("--scale 0.001 -n 1"),
    "growth": Program("--base 5000 --times 1 2 --genes 100 -n 1", "-n 2"),
    "scaling": Program("--cells 4000 8000 16000 --genes 200 --tasks 2"),
    "landscape_vs_celldega": Program("--transcripts 50000 --cells 500 --image-size 512 -n 1"),
    "landscape_large": Program("--transcripts 50000 --cells 500 --image-size 512 --sizes 20000 40000 -n 1"),
    "deepcell_vs_original": Program("--frames 2 --size 256 --cells 20 --large 0 -n 1"),
}


def run(name: str, results: Path, folder: Path, *, quick: bool) -> bool:
    """Run one program; whether it succeeded."""
    program = PROGRAMS[name]
    command = [sys.executable, "-m", f"benchmarks.macro.{name}", "--json", str(results / f"{name}.json")]
    command += (program.quick if quick else program.usual).split()
    environment = dict(os.environ)
    if not program.in_memory:
        command += ["--folder", str(folder)]
    elif MEMORY.is_dir():
        environment["TMPDIR"] = str(MEMORY)
    print(f"\n=== {name}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def main() -> None:
    """Run all that are wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for generated files, which stay")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it")
    options = parser.parse_args()
    folder = options.folder.resolve()
    results = folder / "quick" if options.quick else readme.RESULTS
    results.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.only if not run(name, results, folder, quick=options.quick)]
    if options.quick:
        print(f"\n=== README would say\n\n{readme.section(results)}")
    else:
        readme.main()
    if failed:
        raise SystemExit(f"failed, with results as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
