"""The encode path alone, on one core: bounds, quantisation and gzip with CRC, gene by gene, from sparse columns.

    python -m benchmarks.macro.encode_genes

Time per non-zero, and bytes beside zlib 6 (what cellucid writes), ISA-L and zlib 9 on the same columns.
Every file is inflated again and compared. Times are medians of `-n` passes over all genes in pieces
as the export makes them; sizes are sums over every `--every`-th gene, since zlib takes its time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from benchmarks import synthetic
from benchmarks.macro.prepare_vs_cellucid import BITS, REAL, machine
from scipy.sparse import csc_matrix

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.engine.columns import SparseColumns
from atlaswriter.formats.cellucid.values import ValueEncoder


def columns_of(genes: csc_matrix) -> SparseColumns:
    """All genes as the engine hands them over."""
    return SparseColumns(genes.indices.astype(np.uint32), genes.data, genes.indptr.astype(np.int64))


def measure(genes: csc_matrix, bits: int | None, level: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time of encoding all genes, and their size beside that of others."""
    columns, encoder = columns_of(genes), ValueEncoder(genes.shape[0], bits, "nearest")
    piece = max(1, min(64, (1 << 17) * len(columns) // genes.nnz))
    passes = []
    for _ in range(options.repetitions + 1):
        begin = time.thread_time()
        for first in range(0, len(columns), piece):
            _files(encoder, _some(columns, first, first + piece), level)
        passes.append(time.thread_time() - begin)
    seconds = statistics.median(passes[1:])
    sizes, worst = np.zeros(4), 0.0
    for ours, *others in (
        _sizes(encoder, _some(columns, g, g + 1), level) for g in range(0, len(columns), options.every)
    ):
        sizes += [ours, *others]
        worst = max(worst, ours / others[1])
    return {
        "nonzeros": int(genes.nnz),
        "genes": int(genes.shape[1]),
        "ns_per_nonzero": seconds / genes.nnz * 1e9,
        "us_per_gene": seconds / genes.shape[1] * 1e6,
        "of_zlib_6": sizes[0] / sizes[1],
        "of_isal": sizes[0] / sizes[2],
        "of_zlib_9": sizes[0] / sizes[3],
        "largest_of_isal_in_one_gene": worst,
    }


def _some(columns: SparseColumns, first: int, last: int) -> SparseColumns:
    offsets = columns.offsets[first : last + 1]
    entries = slice(offsets[0], offsets[-1])
    return SparseColumns(columns.rows[entries], columns.values[entries], offsets - offsets[0])


def _files(encoder: ValueEncoder, columns: SparseColumns, level: int) -> list[memoryview]:
    coded = encoder.encode(columns)
    return sparse_gzip.compress(coded.entries, coded.offsets, encoder.n_cells, coded.rules.backgrounds, level)


def _sizes(encoder: ValueEncoder, gene: SparseColumns, level: int) -> Iterator[int]:
    (file,) = _files(encoder, gene, level)
    dense = encoder.dense(encoder.encode(gene), 0)
    assert zlib.decompress(file, 31) == dense.tobytes()
    yield len(file)
    yield len(gzip.compress_small(dense, 6))
    yield len(gzip.compress(dense, 6))
    yield len(gzip.compress_small(dense, 9))


def _inputs(options: argparse.Namespace) -> Iterator[tuple[str, csc_matrix]]:
    for density in options.densities:
        matrix = synthetic.expression_matrix(options.cells, options.genes, density, np.random.default_rng(0))
        yield f"synthetic, {density:.0%}", matrix.tocsc()
    if options.file.exists():
        yield options.file.stem, anndata.read_h5ad(options.file).X.tocsc()


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=REAL, help=f"an .h5ad (default: {REAL})")
    parser.add_argument("--densities", type=float, nargs="*", default=[0.07, 0.01], help="of synthetic atlases")
    parser.add_argument("--cells", type=int, default=200_000, help="of the synthetic atlases")
    parser.add_argument("--genes", type=int, default=500, help="of the synthetic atlases")
    parser.add_argument("--quantize", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--levels", type=int, nargs="+", default=[6, 9])
    parser.add_argument("--every", type=int, default=10, help="size every so many genes")
    parser.add_argument("-n", "--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    results = {}
    for name, genes in _inputs(options):
        print(f"\n{name}: {genes.shape[0]:,} cells × {genes.shape[1]:,} genes, {genes.nnz:,} non-zeros")
        print(
            f"{'':<18} {'ns/non-zero':>12} {'us/gene':>9} {'zlib 6':>8} {'ISA-L':>8} {'zlib 9':>8} {'worst gene':>11}"
        )
        for bits in options.quantize:
            for level in options.levels:
                found = measure(genes, BITS[bits], level, options)
                results[f"{name}, {bits}, level {level}"] = found
                label = f"{bits if bits != 'none' else 'float32'}, level {level}"
                print(
                    f"{label:<18} {found['ns_per_nonzero']:>12.1f} {found['us_per_gene']:>9.1f} "
                    f"{found['of_zlib_6']:>8.3f} {found['of_isal']:>8.3f} {found['of_zlib_9']:>8.3f} "
                    f"{found['largest_of_isal_in_one_gene']:>11.3f}",
                    flush=True,
                )
    if options.json:
        report = {"benchmark": "encode_genes", "machine": machine(), "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
