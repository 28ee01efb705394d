"""Cell metadata: values, codes, centroids and outlier quantiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.spill import spill_error
from atlaswriter.engine.work import Unit
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas
from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.payload import Payload
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import groups
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import AnyArray, Array, Categorical, Column, Continuous, n_bytes, row_blocks

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


def obs_units(atlas: Atlas, job: Job) -> Iterator[Unit]:
    """The fields of an export: one unit for numbers, two for categories."""
    for number, (key, column) in enumerate(atlas.obs):
        what, n_bytes_out = f"obs[{key!r}]", atlas.n_cells
        if isinstance(column, Continuous):
            writer = partial(_continuous, atlas, key, column, job)
            size = n_bytes(column.values)
            yield Unit(_name(number, "values"), what, writer, costs.continuous(column), size, n_bytes_out)
            continue
        bits = layout.codes_bits(len(column.categories), job.options.obs_categorical_dtype)
        coordinates = sum(n_bytes(array) for array in atlas.embeddings.values())
        latent = 0 if atlas.latent is None else n_bytes(atlas.latent)
        for part, write, (fixed, rooms), read in (
            ("codes", _codes, costs.codes(atlas, column, bits), coordinates),
            ("outliers", _outliers, costs.outliers(atlas, column, bits), latent),
        ):
            room = rooms.within(job.team.budget.free - fixed)
            writer = partial(write, atlas, key, column, bits, room, job)
            size = n_bytes(column.codes) + read
            yield Unit(_name(number, part), what, writer, fixed + room, size, n_bytes_out)


def obs_entries(atlas: Atlas, options: Options, results: Mapping[str, Any]) -> list[Entry]:
    """What the manifests say of the fields, in their order, from the results of units."""
    return [_entry(number, key, column, options, results) for number, (key, column) in enumerate(atlas.obs)]


def obs_spill_bytes(atlas: Atlas, results: Mapping[str, Any]) -> int:
    """Bytes of temporary files that the fields took."""
    numbers = [number for number, (_, column) in enumerate(atlas.obs) if not isinstance(column, Continuous)]
    return sum(results[_name(number, "outliers")]["spill_bytes"] for number in numbers)


def _name(number: int, part: str) -> str:
    return f"obs/{number}/{part}"


def _entry(number: int, key: str, column: Column, options: Options, results: Mapping[str, Any]) -> Entry:
    if isinstance(column, Continuous):
        found = results[_name(number, "values")]
        return Entry([key, *found["bounds"]], {"key": key, "kind": "continuous"}, found["warnings"])
    bits = layout.codes_bits(len(column.categories), options.obs_categorical_dtype)
    centroids = results[_name(number, "codes")]
    manifest = [key, column.categories, layout.DTYPES[bits], layout.MISSING[bits], centroids]
    manifest += results[_name(number, "outliers")]["bounds"]
    return Entry(manifest, {"key": key, "kind": "category", "n_categories": len(column.categories)}, [])


def _continuous(atlas: Atlas, key: str, column: Continuous, job: Job, files: Files) -> dict[str, Any]:
    options = job.options
    pattern = layout.values_pattern(
        options.layout.obs_dir, options.obs_continuous_quantization, options.level is not None
    )
    bounds, n_missing = _write_values(atlas, pattern, key, column.values, replace(job, sink=files))
    warnings = []
    if n_missing:
        warnings.append(f"obs[{key!r}]: {n_missing:,} values are NaN or infinite, stored as missing")
    if options.obs_continuous_quantization is None and _loses_integers(column.values):
        warnings.append(f"obs[{key!r}]: whole numbers above {_EXACT_INTEGERS:,} are rounded to float32")
    return {"bounds": bounds, "warnings": warnings}


def _write_values(atlas: Atlas, pattern: str, key: str, values: AnyArray, job: Job) -> tuple[list[float], int]:
    """Write a column; its bounds as stored, and how many values are missing."""
    options = job.options
    encoder = ValueEncoder(atlas.n_cells, options.obs_continuous_quantization, options.quantizer)
    encoded = encoder.encode_dense(values)
    job.write_small(layout.resolve(pattern, key), encoded.payload)
    return encoded.bounds, encoded.n_missing


def _codes(
    atlas: Atlas, key: str, column: Categorical, bits: int, room: int, job: Job, files: Files
) -> dict[str, list[dict[str, Any]]]:
    """Write the codes; the centroids by dimension."""
    options, job = job.options, replace(job, sink=files)
    codes, counts = stored_codes(column, bits)
    path = layout.codes_pattern(options.layout.obs_dir, options.level is not None)
    job.write_small(layout.resolve(path, key, layout.EXTENSIONS[bits]), Payload.of(codes))
    quantile = options.centroid_outlier_quantile
    return {
        str(dim): []
        if quantile is None
        else centroids(
            coords,
            atlas.frames[dim],
            codes,
            counts,
            column.categories,
            quantile=quantile,
            min_points=options.centroid_min_points,
            room=room,
        )
        for dim, coords in sorted(atlas.embeddings.items())
    }


def _outliers(
    atlas: Atlas, key: str, column: Categorical, bits: int, room: int, job: Job, files: Files
) -> dict[str, Any]:
    """Write the outlier quantiles; their bounds, and bytes of temporary files."""
    options, job = job.options, replace(job, sink=files)
    codes, counts = stored_codes(column, bits)
    spilled: list[int] = []

    def scratch() -> Path:
        spilled.append(costs.spilled_distances(atlas.n_cells))
        return files.scratch()

    if atlas.latent is None:
        quantiles = np.full(codes.size, np.nan, np.float32)
    else:
        least = options.centroid_min_points
        try:
            quantiles = outlier_quantiles(atlas.latent, codes, counts, min_points=least, room=room, spill=scratch)
        except OSError as error:
            raise spill_error(files.scratch(), error, costs.spilled_distances(codes.size)) from error
    pattern = layout.outliers_pattern(
        options.layout.obs_dir, options.obs_continuous_quantization, options.level is not None
    )
    bounds, _ = _write_values(atlas, pattern, key, quantiles, job)
    return {"bounds": bounds, "spill_bytes": sum(spilled)}


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
