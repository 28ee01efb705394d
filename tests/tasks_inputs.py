"""A small atlas in every storage, and exports of it in tasks."""

import json
import random
import subprocess
import sys
import warnings
from contextlib import contextmanager

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

import atlaswriter as aw

CELLS, GENES = 150, 23
FIXED = {"created_at": "2000-01-01T00:00:00Z", "progress": False}
STORAGES = ("csr", "csc", "dense", "zarr", "zip")


def atlas(storage="csr", *, seed=0, cells=CELLS, genes=GENES, tables=True):
    """An AnnData with everything that an export can hold, or only with an embedding and expression."""
    rng = np.random.default_rng(seed)
    kinds = pd.Categorical.from_codes(rng.integers(-1, 3, cells), ["a", "b", "c"])
    obs = pd.DataFrame({"kind": kinds, "score": rng.random(cells)}, [f"c{number}" for number in range(cells)])
    matrix = sp.random(cells, genes, 0.3, "csr", np.float32, rng=rng)
    form = {"csc": sp.csc_matrix, "dense": lambda found: found.toarray()}.get(storage, sp.csr_matrix)
    var = pd.DataFrame(index=[f"g{number}" for number in range(genes)])
    made = anndata.AnnData(form(matrix), obs if tables else obs[[]], var)
    made.obsm["X_umap"] = rng.random((cells, 2)).astype(np.float32)
    if tables:
        made.obsm["X_umap_3d"] = rng.random((cells, 3)).astype(np.float32)
        made.obsm["X_pca"] = rng.random((cells, 4)).astype(np.float32)
        made.obsm["velocity_umap"] = rng.random((cells, 2)).astype(np.float32)
        graph = sp.random(cells, cells, 0.05, "csr", np.float32, rng=rng)
        made.obsp["connectivities"] = graph + graph.T
    return made


def stored(folder, storage="csr", **recipe):
    """The path of an atlas that was written to a folder."""
    import zarr

    made = atlas(storage, **recipe)
    path = folder / {"zarr": "atlas.zarr", "zip": "atlas.zarr.zip"}.get(storage, f"{storage}.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what zarr and anndata will do by default in future
        if storage == "zarr":
            made.write_zarr(path, chunks=(40, 7))
        elif storage == "zip":
            with zarr.storage.ZipStore(str(path), mode="w") as store:
                anndata.io.write_zarr(store, made)
        else:
            made.write_h5ad(path)
    return path


def colliding(folder):
    """The path of an atlas with genes that share a file name, and categories that read the same."""
    path = stored(folder)
    with h5py.File(path, "r+") as file:
        file["var/_index"][2:4] = [b"a/b", b"a?b"]
        file["obs/kind/categories"][:] = [b"a", b"a", b"c"]
    return path


def content(out):
    """Bytes of every file of an export."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if not path.is_dir()}


def beside(out):
    """Names in the folder of an export, but for empty files that tell about the disk: killed, a process leaves them."""
    return {path.name for path in out.parent.iterdir() if not path.name.startswith(".atlaswriter-case-")}


def exported(path, folder, **options):
    """What the local export gives; its folder has the name that others of this module have."""
    out = folder / "out"
    aw.cellucid(path, out, **{**FIXED, **options})
    return content(out)


def planned(path, folder, *, task_size="2KiB", **options):
    """A plan in a new folder ``run`` of an export to ``out`` beside it: the folder, the plan and the output."""
    folder.mkdir(exist_ok=True)
    out, run = folder / "out", folder / "run"
    return run, aw.plan_tasks(path, out, run, task_size=task_size, **{**FIXED, **options}), out


def completed(path, folder, **options):
    """What an export in tasks gives, each run at once in the order of the plan."""
    run, _, out = planned(path, folder, **options)
    aw.run(run)
    aw.finish(run)
    return content(out)


# For each line it is told, a copy of itself does something, and kills itself before a call among those that change the
# disk. Libraries are loaded once; the copies say nothing unless they survive.
CHILD = """
import json, os, signal, sys
import h5py
import atlaswriter as aw
from atlaswriter.kernels import _jit
from atlaswriter.sinks import fs, lock

_jit.warm_all()

def done(what, given, kill_at, can_exchange):
    calls = []

    def mortal(function):
        def wrapper(*args, **options):
            calls.append(function.__name__)
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return wrapper

    if not can_exchange:
        def exchange(first, second):
            return False
        fs.exchange = exchange
    for name in ("write", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
        setattr(os, name, mortal(getattr(os, name)))
    for module, name in (
        (fs, "put"), (fs, "sync_tree"), (fs, "sync_files"), (fs, "exchange"), (fs, "remove_tree"), (lock, "_lock")
    ):
        setattr(module, name, mortal(getattr(module, name)))
    getattr(aw, what)(*given[0], **given[1])
    return calls

for line in sys.stdin:
    copy = os.fork()
    if not copy:
        print(json.dumps(done(*json.loads(line))), flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    print(json.dumps({"code": code}), flush=True)
"""


@contextmanager
def mortal():
    """Does what it is told, and is killed before a call, 0 for none; its exit code, and the calls if it survives."""
    command, pipe = [sys.executable, "-c", CHILD], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:

        def killed(kill_at, what, *args, can_exchange=True, **options):
            given = [[str(arg) for arg in args], options]
            child.stdin.write(json.dumps([what, given, kill_at, can_exchange]) + "\n")
            child.stdin.flush()
            calls, said = [], json.loads(child.stdout.readline())
            if isinstance(said, list):
                calls, said = said, json.loads(child.stdout.readline())
            return said["code"], calls

        yield killed
        child.stdin.close()


def moments(n_calls, n_between, *around):
    """Numbers of calls: the first and the last two, those around some, and a sample of the rest."""
    special = {1, 2, n_calls - 1, n_calls, *(near for call in around for near in (call - 1, call, call + 1))}
    special &= set(range(1, n_calls + 1))
    rest = sorted(set(range(1, n_calls + 1)) - special)
    return sorted({*special, *random.Random(n_calls).sample(rest, min(n_between, len(rest)))})
