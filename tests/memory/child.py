"""Runs exports in a process of its own and says what memory each took: a line of JSON in, a line of JSON out.

Peaks are read from ``/proc/self/status`` by the process itself: what ``getrusage`` says of a child begins with what
its parent held when it forked. That of an export counts from the end of the last one that was not refused.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path


def main():
    for line in sys.stdin:
        job = json.loads(line)
        if job.get("data_limit"):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (job["data_limit"], job["data_limit"]))
        from atlaswriter.errors import BudgetError

        try:
            found = {**HOW[job["how"]](job), **memory()}
        except BudgetError as error:
            found = {"refused": str(error), **memory()}
        else:
            with suppress(OSError):  # the next peak is then the larger of both
                Path("/proc/self/clear_refs").write_text("5")
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def memory():
    """Bytes: the largest resident size, and what is private now, as reserved and as touched."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    keys = {"peak": "VmHWM", "private": "VmData", "touched": "RssAnon", "files": "RssFile"}
    return {name: int(lines[key].split()[0]) * 1024 for name, key in keys.items()}


def done(report):
    contents = {"contents": report.contents, "regrouping": report.contents.get("regrouping")}
    return {**contents, "spilled": report.spill_bytes, "n_files": report.files, "said": report.peak_memory}


def cellucid(job):
    """From a file, as the command line does it."""
    import atlaswriter as aw

    return done(aw.cellucid(job["source"], job["out"], **job["options"]))


def landscape(job):
    import atlaswriter as aw

    return done(aw.landscape(job["source"], job["out"], progress=False, **job["options"]))


def deepcell(job):
    import atlaswriter as aw

    return done(aw.deepcell(job["source"], job["out"], *job["labels"], progress=False, **job["options"]))


def deepcell_export(job):
    import atlaswriter as aw

    return done(aw.deepcell_export(job["source"], job["out"], progress=False, **job["options"]))


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


HOW = {one.__name__: one for one in (cellucid, landscape, deepcell, deepcell_export, mapped, dask)}

if __name__ == "__main__":
    # Not the folder of this script, in which "inputs.py" lies.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    main()
