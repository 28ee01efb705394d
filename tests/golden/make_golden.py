"""Makes the golden exports beside this file; run it with the environment of cellucid 0.0.9.

    /path/to/cellucid009/bin/python tests/golden/make_golden.py

Writes into ``tests/golden/exports``:

plain
    float32 throughout, uncompressed, all three dimensions.
gz8
    8 bit, gzip, a graph.
gz16
    16 bit, gzip, a graph, vectors, source; uint16 codes.
rstyle
    8 bit, gzip, a single 1D embedding, with the one-element lists unboxed as R's jsonlite does.

All are made from the same 40 cells and 4 genes. `created_at` is fixed and the gzip headers carry
no time, so that the files only change when their content does.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from cellucid import prepare
from scipy import sparse

HERE = Path(__file__).parent / "exports"
N_CELLS = 40


def inputs() -> dict:
    """Arguments of `prepare` that all exports share."""
    rng = np.random.default_rng(2024)
    score = rng.normal(size=N_CELLS).astype(np.float32)
    score[3] = np.nan
    labels = np.repeat(["B cell", "T/NK", "mono"], [15, 15, 10])
    cell_type = pd.Categorical(labels, categories=["mono", "T/NK", "B cell", "unseen"])
    cell_type = pd.Series(cell_type).mask(np.arange(N_CELLS) == 7)
    genes = rng.poisson(0.7, size=(N_CELLS, 4)) * rng.random((N_CELLS, 4))
    genes[:, 2] = 0
    return {
        "latent_space": rng.normal(size=(N_CELLS, 5)),
        "obs": pd.DataFrame(
            {"cell type": cell_type, "score": score, "batch": ["a", "b"] * 20, "n": np.arange(N_CELLS)}
        ),
        "var": pd.DataFrame(index=["CD3E", "HLA-A", "MT-ND1", "IL2 (alt)"]),
        "gene_expression": sparse.csr_matrix(genes.astype(np.float32)),
        "dataset_name": "Golden",
        "dataset_id": "golden",
    }


def graph() -> sparse.csr_matrix:
    """A symmetric graph without self-loops."""
    rng = np.random.default_rng(7)
    half = sparse.triu(sparse.random(N_CELLS, N_CELLS, 0.1, random_state=rng), k=1)
    return (half + half.T).tocsr()


def embedding(dim: int) -> np.ndarray:
    """Points of one dimension."""
    return np.random.default_rng(dim).normal(size=(N_CELLS, dim))


def make(name: str, **options: object) -> Path:
    """One export, made anew and independent of the clock."""
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    prepare(**{**inputs(), **options}, out_dir=out)
    edit(out / "dataset_identity.json", lambda identity: identity.update(created_at="2026-01-02T03:04:05Z"))
    for path in out.rglob("*.gz"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 6, mtime=0))
    return out


def edit(path: Path, change: object) -> None:
    """Apply a function to a JSON file's content."""
    content = json.loads(path.read_text())
    change(content)
    indent = 2 if path.name == "dataset_identity.json" else None
    path.write_text(json.dumps(content, indent=indent))


def unbox(value: object) -> object:
    """What R's jsonlite makes of vectors with one element."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def unbox_export(out: Path) -> None:
    """Turn an export into the shapes that the R package writes."""

    def identity(content: dict) -> None:
        content["embeddings"]["available_dimensions"] = unbox(content["embeddings"]["available_dimensions"])
        content["stats"]["n_genes"] = 4.0

    def obs(content: dict) -> None:
        for field in content["_categoricalFields"]:
            field[1] = unbox(field[1])
            for centroid in field[4]["1"]:
                centroid["position"] = unbox(centroid["position"])

    edit(out / "dataset_identity.json", identity)
    edit(out / "obs_manifest.json", obs)


def main() -> None:
    """Make all golden exports."""
    points = {f"X_umap_{dim}d": embedding(dim) for dim in (1, 2, 3)}
    make("plain", **points)
    compressed = {"compression": 6, "connectivities": graph()}
    make("gz8", X_umap_2d=embedding(2), var_quantization=8, obs_continuous_quantization=8, **compressed)
    make(
        "gz16",
        **points,
        **compressed,
        var_quantization=16,
        obs_continuous_quantization=16,
        obs_categorical_dtype="uint16",
        vector_fields={"velocity_umap_2d": embedding(2) * 0.1, "drift_3d": embedding(3) * 0.1},
        source_name="Nowhere",
        source_url="https://example.org",
    )
    obs = inputs()["obs"].assign(only="one level")[["score", "only", "batch"]]
    options = {"var_quantization": 8, "obs_continuous_quantization": 8, "compression": 6}
    unbox_export(make("rstyle", X_umap_1d=embedding(1), obs=obs, **options))


if __name__ == "__main__":
    main()
