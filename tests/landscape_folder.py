"""A tiny set of LandscapeFiles, written by hand from the facts about the format, in every variant that is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TILE = 250
WIDTH, HEIGHT = 600, 300
GRID = (3, 2)
CHANNELS = ("dapi", "bound")
# The last but one has no counts, the last none but in cells without a cluster.
GENES = ["ACTB", "CD3E", "MS4A1", "NegControlProbe_1", "Zeb2", "abc"]
CELLS = [f"cell-{k}" for k in range(8)]
LABELS = ["1", "1", "1", "1", "2", "2", None, "1"]
INDEX = "__index_level_0__"
PER_FILE = 4


def counts() -> np.ndarray:
    """Cells × genes."""
    found = np.random.default_rng(1).poisson(1.5, (len(CELLS), len(GENES)))
    found[:, 4] = 0
    found[:, 5] = [0, 0, 0, 0, 0, 0, 2, 0]
    found[0] += found[0].max(initial=1) * (np.arange(len(GENES)) < 4)
    return found


def centres() -> np.ndarray:
    """Of the cells, in pixels."""
    return np.array([[40, 40], [130, 60], [220, 200], [245, 100], [300, 40], [420, 280], [510, 30], [590, 290]], float)


def squares(exact: bool = False) -> list[list[list[list[float]]]]:
    """One closed ring around each cell."""
    corners = np.array([[-9, -8], [9, -8], [9, 8], [-9, 8], [-9, -8]]) * (1.0001 if exact else 1)
    return [[(centre + corners).tolist()] for centre in centres()]


def transcripts() -> tuple[np.ndarray, np.ndarray]:
    """Gene ids and positions; none in the tile (2, 1)."""
    rng = np.random.default_rng(2)
    xy = np.round(rng.uniform(0, [WIDTH, HEIGHT], (300, 2)), 2)
    xy = xy[(xy[:, 0] < 2 * TILE) | (xy[:, 1] < TILE)]
    return rng.integers(0, 4, len(xy)), xy


def lists(values: Any, depth: int, number: pa.DataType | None = None) -> pa.Array:
    kind = number or pa.float64()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.array(values if isinstance(values, list) else values.tolist(), kind)


def put(root: Path, name: str, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def put_groups(root: Path, name: str, tables: list[pa.Table], metadata: dict[str, Any]) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    schema = tables[0].schema.with_metadata(texts)
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(texts))


def put_chunks(
    root: Path, folder: str, tables: list[pa.Table], metadata: dict[str, Any], per_file: int
) -> dict[str, Any]:
    files = []
    for number, start in enumerate(range(0, len(tables), per_file)):
        files.append(f"chunk_{number}.parquet")
        put_groups(root, f"{folder}/{files[-1]}", tables[start : start + per_file], metadata)
    return {
        "directory": folder,
        "files": files,
        "max_row_groups_per_file": per_file,
        "total_row_groups": len(tables),
    }


def levels() -> list[tuple[int, int]]:
    return [(-(-WIDTH // 2**k), -(-HEIGHT // 2**k)) for k in range(10, -1, -1)]


def pixels(channel: str, level: int) -> np.ndarray:
    width, height = levels()[level]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    grey = ((x + 2 * y + 40 * CHANNELS.index(channel)) % 256).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def image_tiles(channel: str) -> Iterator[tuple[int, int, int, bytes]]:
    for level, (width, height) in enumerate(levels()):
        full = pixels(channel, level)
        for column in range(-(-width // 512)):
            for row in range(-(-height // 512)):
                tile = full[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]
                yield level, column, row, imagecodecs.webp_encode(np.ascontiguousarray(tile), lossless=True)


DZI = """<?xml version="1.0" encoding="UTF-8"?>
<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="webp" Overlap="0" TileSize="512">
  <Size Height="{height}" Width="{width}" />
</Image>
"""


def write(root: Path, *, row_groups: bool = False, old: bool = False, segmentation: str | None = None) -> Path:
    """A complete set.

    Parameters
    ----------
    root
        New folder.
    row_groups
        Few files with many row groups, instead of one file a tile.
    old
        As early writers did: names for ids, unrounded vertices, the old name of the transform.
    segmentation
        Name of a second segmentation, with the same content.
    """
    root.mkdir(parents=True)
    parameters: dict[str, Any] = {
        "technology": "Xenium",
        "segmentation_approach": ["default", *([segmentation] if segmentation else [])],
        "max_pyramid_zoom": len(levels()) - 1,
        "tile_size": TILE,
        "image_info": [{"name": name, "button_name": name.upper(), "color": [0, 0, 255]} for name in CHANNELS],
        "image_format": ".webp",
    }
    if not old:
        parameters |= {"use_int_index": True, "use_row_groups": row_groups}
    for name in [None, segmentation] if segmentation else [None]:
        end = f"_{name}" if name else ""
        _tables(root, end)
        _counts(root, end, old, parameters if row_groups and not name else None)
        _outlines(root, end, old, parameters if row_groups and not name else None)
    _transcripts(root, old, parameters if row_groups else None)
    _images(root, parameters if row_groups else None)
    matrix = "4.705882 0.0 0.0\n0.0 4.705882 0.0\n0.0 0.0 1.0\n"
    (root / ("xenium_transform.csv" if old else "micron_to_image_transform.csv")).write_text(matrix)
    (root / "landscape_parameters.json").write_text(json.dumps(parameters, indent=4))
    return root


def _tables(root: Path, end: str) -> None:
    found = counts()
    put(root, f"cell_metadata{end}.parquet", {"name": CELLS, "geometry": lists(centres(), 1)})
    statistics = {
        "mean": found.mean(0),
        "std": found.std(0),
        "max": found.max(0).astype(float),
        "non-zero": (found > 0).mean(0),
    }
    put(root, f"meta_gene{end}.parquet", {**statistics, "color": ["#e55050"] * len(GENES), INDEX: GENES})
    put(root, f"cell_clusters{end}/cluster.parquet", {"cluster": LABELS, INDEX: CELLS})
    clusters = {"color": ["#e55050", "#50E5e5"], "count": [5, 2], INDEX: ["1", "2"]}
    put(root, f"cell_clusters{end}/meta_cluster.parquet", clusters)
    means = {label: found[[one == label for one in LABELS]].mean(0) for label in ("1", "2")}
    kept = [k for k, gene in enumerate(GENES) if "NegControl" not in gene]
    signatures = {label: mean[kept] for label, mean in means.items()}
    put(root, f"df_sig{end}.parquet", {**signatures, INDEX: [GENES[k] for k in kept]})


def _counts(root: Path, end: str, old: bool, parameters: dict[str, Any] | None) -> None:
    found, tables, groups = counts(), [], {}
    # In the order of the matrix, which is another than that of the ids.
    for number in reversed(range(len(GENES))):
        cells = np.flatnonzero(found[:, number])
        if not cells.size:
            continue
        gene, values = GENES[number], found[cells, number]
        if parameters is None:
            key = [CELLS[k] for k in cells] if old else cells
            put(root, f"cbg{end}/{gene}.parquet", {gene: values, INDEX: key})
        else:
            groups[gene] = len(tables)
            tables.append(pa.table({"cell_id": cells, "expression": values, "gene": [gene] * cells.size}))
    if parameters is not None:
        entry = put_chunks(root, "cbg", tables, {"gene_to_row_group": groups}, PER_FILE)
        parameters.setdefault("row_group_files", {})["cbg"] = {**entry, "gene_to_row_group": groups}


def _tiled(
    root: Path, part: str, xy: np.ndarray, columns: dict[str, pa.Array], loose: str, parameters: dict[str, Any] | None
) -> None:
    """Rows to the tiles of their positions."""
    tiles = np.floor(xy / TILE).astype(int)
    table, tables = pa.table(columns), []
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            rows = np.flatnonzero((tiles == [i, j]).all(1))
            one = table.take(rows)
            tables.append(
                one.append_column("tile_x", pa.array([i] * rows.size, pa.int32())).append_column(
                    "tile_y", pa.array([j] * rows.size, pa.int32())
                )
            )
            if parameters is None and rows.size:
                path = root / loose.format(i, j)
                path.parent.mkdir(exist_ok=True)
                pq.write_table(one, path)
    if parameters is not None:
        grid = {"tile_size": TILE, "num_tiles_x": GRID[0], "num_tiles_y": GRID[1]}
        parameters["tile_grid"] = grid
        entry = put_chunks(root, part, tables, {"tile_grid_info": grid}, PER_FILE)
        parameters.setdefault("row_group_files", {})[part] = entry


def _transcripts(root: Path, old: bool, parameters: dict[str, Any] | None) -> None:
    ids, xy = transcripts()
    names = pa.array([GENES[k] for k in ids]) if old else pa.array(ids, pa.int64())
    loose = "transcript_tiles/transcripts_tile_{}_{}.parquet"
    _tiled(root, "transcripts", xy, {"name": names, "geometry": lists(xy, 1)}, loose, parameters)


def _outlines(root: Path, end: str, old: bool, parameters: dict[str, Any] | None) -> None:
    names = pa.array(CELLS) if old else pa.array(range(len(CELLS)), pa.int64())
    columns = {"GEOMETRY": lists(squares(old), 3), "name": names}
    if old:
        columns["cell_id"] = names
    _tiled(
        root,
        f"cell_segmentation{end}",
        centres(),
        columns,
        f"cell_segmentation{end}/cell_tile_{{}}_{{}}.parquet",
        parameters,
    )


def _images(root: Path, parameters: dict[str, Any] | None) -> None:
    for channel in CHANNELS:
        tiles = list(image_tiles(channel))
        images = root / "pyramid_images"
        images.mkdir(exist_ok=True)
        (images / f"{channel}.dzi").write_text(DZI.format(width=WIDTH, height=HEIGHT))
        if parameters is None:
            for level, column, row, content in tiles:
                path = images / f"{channel}_files" / str(level) / f"{column}_{row}.webp"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            (images / f"{channel}_files" / "vips-properties.xml").write_text("<image/>")
            continue
        info: dict[str, Any] = {}
        for number, (level, column, row, _) in enumerate(tiles):
            one = info.setdefault(str(level), {"row_group_offset": number})
            one |= {"num_tiles_x": column + 1, "num_tiles_y": row + 1, "num_tiles": (column + 1) * (row + 1)}
        places = ("zoom", "tile_x", "tile_y")
        tables = [
            pa.table({key: pa.array([tile[k]], pa.int32()) for k, key in enumerate(places)} | {"image_data": [tile[3]]})
            for tile in tiles
        ]
        entry = put_chunks(root, f"pyramid_images/{channel}", tables, {"zoom_info": info}, 5)
        files = parameters["row_group_files"].setdefault("images", {})
        files[channel] = {**entry, "zoom_info": info, "zoom_levels": sorted(map(int, info))}
        parameters["image_dimensions"] = {"width": WIDTH, "height": HEIGHT, "tile_size": 512}
