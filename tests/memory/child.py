"""Runs one export in a process of its own and says what memory it took: ``python child.py JOB`` (JSON in, JSON out).

Peaks are read from ``/proc/self/status`` by the process itself: what ``getrusage`` says of a child begins with what
its parent held when it forked.
"""

import json
import os
import sys
from pathlib import Path


def main():
    job = json.loads(sys.argv[1])
    if job.get("data_limit"):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (job["data_limit"], job["data_limit"]))
    from atlaswriter.errors import BudgetError

    try:
        found = {"cellucid": cellucid, "mapped": mapped, "dask": dask}[job["how"]](job)
    except BudgetError as error:
        found = {"refused": str(error)}
    sys.stdout.write(json.dumps({**found, **memory()}) + "\n")


def memory():
    """Bytes: the largest resident size, and what is private now, as reserved and as touched."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    keys = {"peak": "VmHWM", "private": "VmData", "touched": "RssAnon", "files": "RssFile"}
    return {name: int(lines[key].split()[0]) * 1024 for name, key in keys.items()}


def done(report):
    return {"spilled": report.spill_bytes, "regrouping": report.contents.get("regrouping"), "n_files": report.files}


def cellucid(job):
    """From a file, as the command line does it."""
    import atlaswriter as aw

    return done(aw.cellucid(job["source"], job["out"], **job["options"]))


def mapped(job):
    """`prepare` with the contiguous arrays of a file, mapped."""
    import h5py
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    from atlaswriter import prepare

    with h5py.File(job["source"]) as file:

        def arr(name):
            dataset = file[name]
            return np.memmap(job["source"], dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)

        if isinstance(file["X"], h5py.Group):
            # Without the checks of its constructor, which would map all indices before we begin.
            matrix = sp.csr_matrix(tuple(file["X"].attrs["shape"]), dtype=np.float32)
            matrix.data, matrix.indices, matrix.indptr = arr("X/data"), arr("X/indices"), arr("X/indptr")
        else:
            matrix = arr("X")
        given = {"X_umap_2d": arr("obsm/X_umap_2d"), "latent_space": arr("obsm/X_umap_3d")}
        obs = pd.DataFrame({"score": file["obs/score"][:]})
    var = pd.DataFrame(index=[f"gene-{position}" for position in range(matrix.shape[1])])
    return done(prepare(obs=obs, var=var, gene_expression=matrix, out_dir=job["out"], **given, **job["options"]))


def dask(job):
    """`prepare` with dask arrays that read a file."""
    import h5py
    import pandas as pd
    from dask import array as da

    from atlaswriter import prepare

    rows = 1 << 14
    with h5py.File(job["source"]) as file:

        def arr(name):
            return da.from_array(file[name], chunks=(rows, file[name].shape[1]))

        if isinstance(file["X"], h5py.Group):
            from anndata.experimental import read_elem_lazy

            matrix = read_elem_lazy(file["X"], chunks=(rows, file["X"].attrs["shape"][1]))
        else:
            matrix = arr("X")
        given = {"X_umap_2d": arr("obsm/X_umap_2d"), "latent_space": arr("obsm/X_umap_3d")}
        obs = pd.DataFrame({"score": file["obs/score"][:]})
        var = pd.DataFrame(index=[f"gene-{position}" for position in range(matrix.shape[1])])
        return done(prepare(obs=obs, var=var, gene_expression=matrix, out_dir=job["out"], **given, **job["options"]))


if __name__ == "__main__":
    # Not the folder of this script, in which "inputs.py" lies.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    main()
