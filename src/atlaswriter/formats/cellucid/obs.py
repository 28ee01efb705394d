"""Cell metadata: values, codes, centroids and outlier quantiles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.spill import spill_error
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas
from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.payload import Payload
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import groups
from atlaswriter.sources.base import AnyArray, Array, Categorical, Column, Continuous, row_blocks

# float32 holds every whole number up to here.
_EXACT_INTEGERS = 2**24
# Rows looked at together.
_BLOCK_ROWS = 1 << 18


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
        self.spill_bytes = 0
        self._atlas = atlas
        self._frames = frames
        self._bits = options.obs_continuous_quantization
        self._encoder = ValueEncoder(job.n_cells, self._bits, options.quantizer)
        self._values = layout.values_pattern(options.layout.obs_dir, self._bits, compressed)
        self._codes = layout.codes_pattern(options.layout.obs_dir, compressed)
        self._outliers = layout.outliers_pattern(options.layout.obs_dir, self._bits, compressed)

    def submit(self) -> list[Callable[[], Entry]]:
        """Start writing every field; the entries come in the order of the fields."""
        return [self._submit_field(key, column) for key, column in self._atlas.obs]

    def _submit_field(self, key: str, column: Column) -> Callable[[], Entry]:
        team, what = self.job.team, f"obs[{key!r}]"
        if isinstance(column, Continuous):
            return team.submit(self._write_continuous, key, column, memory=costs.continuous(column), what=what).result
        bits = layout.codes_bits(len(column.categories), self.job.options.obs_categorical_dtype)
        fixed, rooms = costs.codes(self._atlas, column, bits)
        room = rooms.within(team.budget.free - fixed)
        first = team.submit(self._write_codes, key, column, bits, room, memory=fixed + room, what=what)
        fixed, rooms = costs.outliers(self._atlas, column, bits)
        room = rooms.within(team.budget.free - fixed)
        second = team.submit(self._write_outliers, key, column, bits, room, memory=fixed + room, what=what)
        return lambda: self._categorical_entry(key, column, bits, first, second)

    def _write_continuous(self, key: str, column: Continuous) -> Entry:
        bounds, n_missing = self._write_values(self._values, key, column.values)
        warnings = []
        if n_missing:
            warnings.append(f"obs[{key!r}]: {n_missing:,} values are NaN or infinite, stored as missing")
        if self._bits is None and _loses_integers(column.values):
            warnings.append(f"obs[{key!r}]: whole numbers above {_EXACT_INTEGERS:,} are rounded to float32")
        return Entry([key, *bounds], {"key": key, "kind": "continuous"}, warnings)

    def _write_values(self, pattern: str, key: str, values: AnyArray) -> tuple[list[float], int]:
        """Write a column; its bounds as stored, and how many values are missing."""
        encoded = self._encoder.encode_dense(values)
        self.job.write_small(layout.resolve(pattern, key), encoded.payload)
        return encoded.bounds, encoded.n_missing

    def _write_codes(self, key: str, column: Categorical, bits: int, room: int) -> dict[str, list[dict[str, Any]]]:
        codes, counts = stored_codes(column, bits)
        self.job.write_small(layout.resolve(self._codes, key, layout.EXTENSIONS[bits]), Payload.of(codes))
        options = self.job.options
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
                room=room,
            )
            for dim, coords in sorted(self._atlas.embeddings.items())
        }

    def _write_outliers(self, key: str, column: Categorical, bits: int, room: int) -> list[float]:
        codes, counts = stored_codes(column, bits)
        if self._atlas.latent is None:
            quantiles = np.full(codes.size, np.nan, np.float32)
        else:
            try:
                quantiles = outlier_quantiles(
                    self._atlas.latent,
                    codes,
                    counts,
                    min_points=self.job.options.centroid_min_points,
                    room=room,
                    spill=self._scratch,
                )
            except OSError as error:
                raise spill_error(self.job.sink.scratch(), error, costs.spilled_distances(codes.size)) from error
        return self._write_values(self._outliers, key, quantiles)[0]

    def _scratch(self) -> Path:
        self.spill_bytes += costs.spilled_distances(self.job.n_cells)
        return self.job.sink.scratch()

    def _categorical_entry(
        self,
        key: str,
        column: Categorical,
        bits: int,
        first: Future[dict[str, list[dict[str, Any]]]],
        second: Future[list[float]],
    ) -> Entry:
        manifest = [key, column.categories, layout.DTYPES[bits], layout.MISSING[bits], first.result()]
        manifest += second.result()
        summary = {"key": key, "kind": "category", "n_categories": len(column.categories)}
        return Entry(manifest, summary, [])


def stored_codes(column: Categorical, bits: int) -> tuple[Array, NDArray[np.int64]]:
    """Codes as stored, uint8 or uint16, the missing code where there is no category; and the cells of each category."""
    stored = np.empty(column.codes.shape[0], layout.DTYPES[bits])
    for first, codes in row_blocks(column.codes, _BLOCK_ROWS):
        block = codes.astype(stored.dtype)
        block[codes < 0] = layout.MISSING[bits]
        stored[first : first + block.size] = block
    counts = np.zeros(len(column.categories), np.int64)
    groups.count(stored, counts)
    return stored, counts


def _loses_integers(values: AnyArray) -> bool:
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 4:
        return False
    for _, block in row_blocks(values, _BLOCK_ROWS):
        large = int(block.max()) > _EXACT_INTEGERS or int(block.min()) < -_EXACT_INTEGERS
        if large and (block.astype(np.float32).astype(np.float64) != block.astype(np.float64)).any():
            return True
    return False
