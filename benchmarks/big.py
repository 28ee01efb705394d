"""Atlases of any size as .h5ad, as `atlaswriter bench` makes them: the command line.

python -m benchmarks.big atlas.h5ad --cells 100_000_000 --genes 40 --density 0.03
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from atlaswriter.bench.atlas import DEFAULT_OBS, Recipe, describe, ensure, generate, is_made_by
from atlaswriter.bench.settings import number
from atlaswriter.units import format_bytes

__all__ = ["Recipe", "describe", "ensure", "generate", "is_made_by", "number"]


def main() -> None:
    """Generate one file and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=number, required=True)
    parser.add_argument("--genes", type=number, required=True)
    parser.add_argument("--density", type=float, default=0.07)
    parser.add_argument("--latent", type=int, default=10, help="dimensions of X_pca, 0 for none")
    parser.add_argument("--obs", nargs="*", default=DEFAULT_OBS, help="NAME (continuous) or NAME:CATEGORIES")
    parser.add_argument("--layout", choices=["csr", "csc", "dense"], default="csr")
    parser.add_argument("--compression", choices=["none", "gzip", "lzf"], default="none")
    parser.add_argument("--chunk", type=number, default=0, help="entries of a chunk; 0: contiguous, or h5py chooses")
    parser.add_argument("--neighbors", type=int, default=0, help="of each cell in the graph, 0 for no graph")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    out = options.pop("out")
    begin = time.perf_counter()
    generate(out, Recipe(**{**options, "obs": tuple(options["obs"])}))
    found, times = describe(out), os.times()
    print(
        f"{found['cells']:,} cells × {found['genes']:,} genes, {found['nonzeros']:,} non-zeros, "
        f"{format_bytes(found['input_bytes'])} in {time.perf_counter() - begin:.1f} s "
        f"({times.user + times.system:.1f} s CPU)"
    )


if __name__ == "__main__":
    main()
