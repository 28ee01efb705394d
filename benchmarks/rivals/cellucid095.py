"""cellucid 0.9.5: reads an .h5ad with anndata and writes what it calls a Cellucid-ready AnnData.

    python benchmarks/rivals/cellucid095.py ATLAS.h5ad OUT.h5ad|OUT.zarr|OUT.zarr.zip

That is another job than an export folder: one AnnData with the genes in CSC, in chunks of deflate level 6, not
quantised. Needs an environment with ``cellucid==0.9.5``. See `adapter` for what is printed.
"""

from __future__ import annotations

import argparse
from typing import Any

from adapter import arguments, inputs, require, run

PACKAGES = ("cellucid", "numpy", "pandas", "scipy", "anndata", "h5py", "zarr")
FORMATS = ("zarr.zip", "zarr", "h5ad")


def format_of(name: str) -> str:
    """The format that a file name stands for."""
    found = next((one for one in FORMATS if name.endswith(f".{one}")), None)
    if found is None:
        raise SystemExit(f"{name} must end in one of {', '.join(FORMATS)}")
    return found


def write(options: argparse.Namespace) -> dict[str, Any]:
    """Read and write, with outlier quantiles, as cellucid 0.0.9's export has them."""
    import anndata
    from cellucid import prepare

    given = inputs(anndata.read_h5ad(options.source))
    embeddings = {key: array for key, array in given.items() if key.startswith("X_")}
    prepare(
        options.out,
        format=format_of(options.out.name),
        embeddings={**embeddings, "X_pca": given["latent_space"]},
        latent_key="X_pca",
        dataset_id="atlas",
        dataset_name="atlas",
        **{key: given[key] for key in ("obs", "var", "gene_expression", "connectivities")},
    )
    return {"format": format_of(options.out.name)}


if __name__ == "__main__":
    require("cellucid", "0.9.5")
    run(arguments(__doc__).parse_args(), PACKAGES, write)
