"""cellucid 0.0.9: reads an .h5ad with anndata and exports all of it.

    python benchmarks/rivals/cellucid009.py ATLAS.h5ad OUT [--bits 8|16|none] [--compression 6]

Needs an environment with ``cellucid==0.0.9`` and ``pandas<3``. See `adapter` for what is printed: seconds are those
since the process began, with imports and reading (`atlaswriter bench` shows those of `prepare` alone as "of data").
"""

from __future__ import annotations

import argparse

from adapter import BITS, export_arguments, inputs, require, run

PACKAGES = ("cellucid", "numpy", "pandas", "scipy", "anndata")


def export(options: argparse.Namespace) -> None:
    """Read and export."""
    import anndata
    from cellucid import prepare

    bits = BITS[options.bits]
    prepare(
        **inputs(anndata.read_h5ad(options.source)),
        out_dir=options.out,
        var_quantization=bits,
        obs_continuous_quantization=bits,
        compression=options.compression,
    )


if __name__ == "__main__":
    require("cellucid", "0.0.9")
    run(export_arguments(__doc__).parse_args(), PACKAGES, export)
