"""Cell metadata: values, codes, centroids and outlier quantiles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas
from atlaswriter.formats.cellucid.groups import centroids, kernel_coords, outlier_quantiles
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import DenseColumn, ValueEncoder
from atlaswriter.kernels import groups
from atlaswriter.sources.base import Array, Categorical, Column, Continuous

# float32 holds every whole number up to here.
_EXACT_INTEGERS = 2**24


@dataclass(frozen=True)
class Entry:
    """What the manifests say of one field, and what the user should know of it."""

    manifest: list[Any]
    summary: dict[str, Any]
    warnings: list[str]


class ObsWriter:
    """Writes the obs fields of one export."""

    def __init__(self, atlas: Atlas, frames: dict[int, Frame], job: Job) -> None:
        options = job.options
        compressed = options.level is not None
        self.job = job
        self._atlas = atlas
        self._frames = frames
        self._coords = {dim: kernel_coords(array) for dim, array in atlas.embeddings.items()}
        self._latent = kernel_coords(atlas.latent) if isinstance(atlas.latent, np.ndarray) else atlas.latent
        self._bits = options.obs_continuous_quantization
        self._encoder = ValueEncoder(job.n_cells, self._bits, options.quantizer)
        self._values = layout.values_pattern(options.layout.obs_dir, self._bits, compressed)
        self._codes = layout.codes_pattern(options.layout.obs_dir, compressed)
        self._outliers = layout.outliers_pattern(options.layout.obs_dir, self._bits, compressed)

    def submit(self) -> list[Callable[[], Entry]]:
        """Start writing every field; the entries come in the order of the fields."""
        return [self._submit_field(key, column) for key, column in self._atlas.obs]

    def _submit_field(self, key: str, column: Column) -> Callable[[], Entry]:
        n_cells, team = self.job.n_cells, self.job.team
        what = f"obs[{key!r}]"
        if isinstance(column, Continuous):
            return team.submit(self._write_continuous, key, column, memory=costs.continuous(n_cells), what=what).result
        bits = layout.codes_bits(len(column.categories), self.job.options.obs_categorical_dtype)
        codes = stored_codes(column, bits)
        counts = np.zeros(len(column.categories), np.int64)
        groups.count(codes, counts)
        first = team.submit(self._write_codes, key, column, codes, counts, memory=costs.codes(n_cells), what=what)
        memory = costs.outliers(n_cells, self._atlas.latent, counts.size)
        second = team.submit(self._write_outliers, key, codes, counts, memory=memory, what=what)
        return lambda: self._categorical_entry(key, column, bits, first, second)

    def _write_continuous(self, key: str, column: Continuous) -> Entry:
        encoded = self._write_values(self._values, key, column.values)
        warnings = []
        if encoded.n_missing:
            warnings.append(f"obs[{key!r}]: {encoded.n_missing:,} values are NaN or infinite, stored as missing")
        if self._bits is None and _loses_integers(column.values):
            warnings.append(f"obs[{key!r}]: whole numbers above {_EXACT_INTEGERS:,} are rounded to float32")
        return Entry([key, *encoded.bounds], {"key": key, "kind": "continuous"}, warnings)

    def _write_values(self, pattern: str, key: str, values: Array) -> DenseColumn:
        encoded = self._encoder.encode_dense(values)
        self.job.write_small(layout.resolve(pattern, key), encoded.codes)
        self.job.progress.add(encoded.codes.nbytes)
        return encoded

    def _write_codes(
        self, key: str, column: Categorical, codes: Array, counts: Array
    ) -> dict[str, list[dict[str, Any]]]:
        options = self.job.options
        self.job.write_small(layout.resolve(self._codes, key, layout.EXTENSIONS[codes.itemsize * 8]), codes)
        self.job.progress.add(codes.nbytes)
        quantile = options.centroid_outlier_quantile
        return {
            str(dim): []
            if quantile is None
            else centroids(
                coords,
                self._frames[dim],
                codes,
                counts,
                column.categories,
                quantile=quantile,
                min_points=options.centroid_min_points,
            )
            for dim, coords in sorted(self._coords.items())
        }

    def _write_outliers(self, key: str, codes: Array, counts: Array) -> DenseColumn:
        if self._latent is None:
            quantiles = np.full(codes.size, np.nan, np.float32)
        else:
            quantiles = outlier_quantiles(self._latent, codes, counts, min_points=self.job.options.centroid_min_points)
        return self._write_values(self._outliers, key, quantiles)

    def _categorical_entry(
        self,
        key: str,
        column: Categorical,
        bits: int,
        first: Future[dict[str, list[dict[str, Any]]]],
        second: Future[DenseColumn],
    ) -> Entry:
        manifest = [key, column.categories, layout.DTYPES[bits], layout.MISSING[bits], first.result()]
        manifest += second.result().bounds
        summary = {"key": key, "kind": "category", "n_categories": len(column.categories)}
        return Entry(manifest, summary, [])


def stored_codes(column: Categorical, bits: int) -> Array:
    """Codes as stored: uint8 or uint16, the missing code where there is no category."""
    codes = column.codes.astype(layout.DTYPES[bits])
    codes[column.codes < 0] = layout.MISSING[bits]
    return codes


def _loses_integers(values: Array) -> bool:
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 4 or values.size == 0:
        return False
    if int(values.max()) <= _EXACT_INTEGERS and int(values.min()) >= -_EXACT_INTEGERS:
        return False
    return bool((values.astype(np.float32).astype(np.float64) != values.astype(np.float64)).any())
