"""cellucid 0.0.9, in its own environment: ``python rival_cellucid.py ATLAS.h5ad OUT``, or without arguments.

Reads the file with anndata and exports it; prints one JSON object: versions, and the seconds of reading and of
`prepare`, each alone; imports are in neither, and whoever starts it measures the whole process. (In benchmarks/rivals,
seconds of the same original are those since its process began.) Without arguments only the versions. Run by its path;
it imports nothing of ours.
"""

import contextlib
import json
import platform
import sys
import time
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Run, and say how long it took; what the original prints goes to standard error."""
    del sys.path[0]  # this folder, whose modules the original must not find
    with contextlib.redirect_stdout(sys.stderr):
        import anndata
        from cellucid import prepare

        packages = ("cellucid", "anndata", "numpy", "pandas", "scipy")
        report: dict[str, Any] = {
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}}
        }
        if len(sys.argv) > 1:
            report |= export(anndata.read_h5ad, prepare, *sys.argv[1:])
    json.dump(report, sys.stdout)


def export(read: Any, prepare: Any, source: str, out: str) -> dict[str, Any]:
    """Read and export, with the choices that atlaswriter makes by itself."""
    begin = time.perf_counter()
    atlas = read(source)
    opened = time.perf_counter()
    prepare(
        latent_space=atlas.obsm["X_pca"],
        obs=atlas.obs,
        var=atlas.var,
        gene_expression=atlas.X,
        connectivities=atlas.obsp["connectivities"],
        X_umap_2d=atlas.obsm["X_umap_2d"],
        X_umap_3d=atlas.obsm["X_umap_3d"],
        var_quantization=8,
        obs_continuous_quantization=8,
        compression=6,
        out_dir=out,
        force=True,
    )
    return {"read_seconds": opened - begin, "export_seconds": time.perf_counter() - opened}


if __name__ == "__main__":
    main()
