"""Makes the golden LandscapeFiles beside this file; run it from the root with the environment of celldega 0.27.0.

    /path/to/celldega027/bin/python -m tests.golden.make_landscape_golden

The original writes `golden_bundle` twice, as loose tiles and as row groups, with its defaults (tiles of 250
pixels, four channels). What it wrote goes to ``tests/golden/landscape``, condensed:

``transcripts.parquet``, ``outlines.parquet``, ``cbg.parquet``
    All tiles and all genes, one after the other, rows as in their files: ``i, j, name, x, y``; outlines with lists of
    x and y; ``gene, cell, count``. In ``row_groups/`` the tiles once more, numbered by the place of their row group.
``cell_metadata.parquet``, ``meta_gene.parquet``, ``df_sig.parquet``, ``cluster.parquet``, ``meta_cluster.parquet``
    As they are; they were the same in both modes. So are the transform, ``dapi.dzi`` and the parameters.
``images.npz``
    ``<channel>_<level>``: the decoded tiles, put together; of the full resolution only the first channel.
``files.json``, ``schemas.json``, ``versions.json``
    Names of all files of loose tiles; columns and types of every kind of file; what made them.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.bundles import Truth, make_bundle

HERE = Path(__file__).parent / "landscape"
TABLES = (
    "cell_metadata.parquet",
    "meta_gene.parquet",
    "df_sig.parquet",
    "cell_clusters/cluster.parquet",
    "cell_clusters/meta_cluster.parquet",
)
TEXTS = ("landscape_parameters.json", "micron_to_image_transform.csv", "pyramid_images/dapi.dzi")
# Folders of many files of one kind.
KINDS = ("cbg", "transcript_tiles", "cell_segmentation", "transcripts", "pyramid_images")
TILE, TOP_LEVEL = 512, 10

Tile = tuple[int, int, pa.Table]


def golden_bundle(folder: Path) -> Truth:
    """The bundle that the golden files are made of.

    Transcripts end exactly at a tile's edge, and before some of the cells do; a gene is white, names have dots and
    dashes, one gene and one control have no counts.
    """
    names = ("HLA-DRA", "Trbc1.1", "Zeb2", "aaa", "Blank-1", "ACTA2", "ACTA2")
    return make_bundle(folder, seed=27, image=(560, 830), channels=4, names=names, extent=(750, 500))


def loose_tiles(folder: Path) -> Iterator[Tile]:
    """Tiles of their own files, column by column."""
    places = {tuple(map(int, path.stem.split("_")[2:])): path for path in folder.glob("*.parquet")}
    for (i, j), path in sorted(places.items()):
        yield i, j, pq.read_table(path)


def grouped_tiles(folder: Path, rows: int) -> Iterator[Tile]:
    """Tiles of row groups, `rows` in a column; those that are not empty."""
    for place, table in enumerate(_row_groups(folder)):
        i, j = divmod(place, rows)
        assert set(zip(table["tile_x"].to_pylist(), table["tile_y"].to_pylist(), strict=True)) <= {(i, j)}
        if len(table):
            yield i, j, table


def _row_groups(folder: Path) -> Iterator[pa.Table]:
    for chunk in sorted(folder.glob("chunk_*.parquet"), key=lambda path: int(path.stem[6:])):
        file = pq.ParquetFile(chunk)
        yield from (file.read_row_group(number) for number in range(file.num_row_groups))


def transcripts(tiles: Iterator[Tile]) -> pa.Table:
    """All tiles of transcripts in one table."""
    parts = []
    for i, j, table in tiles:
        x, y = np.array(table["geometry"].to_pylist()).T
        parts.append(pa.table({"i": [i] * len(x), "j": [j] * len(x), "name": table["name"], "x": x, "y": y}))
    return pa.concat_tables(parts)


def outlines(tiles: Iterator[Tile]) -> pa.Table:
    """All tiles of cells in one table."""
    rows: list[dict[str, Any]] = []
    for i, j, table in tiles:
        for name, (ring,) in zip(table["name"].to_pylist(), table["GEOMETRY"].to_pylist(), strict=True):
            x, y = zip(*ring, strict=True)
            rows.append({"i": i, "j": j, "name": name, "x": x, "y": y})
    return pa.Table.from_pylist(rows)


def loose_genes(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """Genes and their files."""
    for path in folder.glob("*.parquet"):
        yield path.stem, pq.read_table(path)


def grouped_genes(folder: Path, found: dict[str, Any]) -> Iterator[tuple[str, pa.Table]]:
    """Genes and their row groups, as the parameters say."""
    groups = list(_row_groups(folder))
    for gene, place in found["gene_to_row_group"].items():
        assert set(groups[place]["gene"].to_pylist()) <= {gene}
        yield gene, groups[place]


def counts(tables: Iterator[tuple[str, pa.Table]]) -> pa.Table:
    """All genes in one table, sorted by name."""
    parts = []
    for gene, table in sorted(tables, key=lambda found: found[0]):
        cell, count = ("cell_id", "expression") if "cell_id" in table.column_names else ("__index_level_0__", gene)
        parts.append(pa.table({"gene": pa.repeat(gene, len(table)), "cell": table[cell], "count": table[count]}))
    return pa.concat_tables(parts)


def images(folder: Path) -> dict[str, np.ndarray]:
    """All levels of all channels, ``<channel>_<level>``, decoded, whether the tiles are files or row groups."""
    tiles: dict[str, dict[tuple[int, int], np.ndarray]] = defaultdict(dict)
    for path in folder.glob("*_files/*/*.webp"):
        x, y = map(int, path.stem.split("_"))
        tiles[f"{path.parts[-3].removesuffix('_files')}_{path.parts[-2]}"][x, y] = _decoded(path.read_bytes())
    for channel in folder.glob("*/chunk_0.parquet"):
        for row in pa.concat_tables(_row_groups(channel.parent)).to_pylist():
            key = f"{channel.parent.name}_{row['zoom']}"
            tiles[key][row["tile_x"], row["tile_y"]] = _decoded(row["image_data"])
    return {name: _joined(found) for name, found in sorted(tiles.items())}


def _decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def _joined(tiles: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """One image of its tiles; NaN where one is missing."""
    width = max(x * TILE + tile.shape[1] for (x, _), tile in tiles.items())
    height = max(y * TILE + tile.shape[0] for (_, y), tile in tiles.items())
    whole = np.full((height, width), np.nan, np.float32)
    for (x, y), tile in tiles.items():
        whole[y * TILE :, x * TILE :][: tile.shape[0], : tile.shape[1]] = tile
    return whole


def schemas(folder: Path) -> dict[str, dict[str, str]]:
    """Columns and types of the files of each kind; a gene's own column is called ``<gene>``."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        inside = path.relative_to(folder)
        kind = inside.parent.as_posix() if inside.parts[0] in KINDS else inside.as_posix()
        fields = {
            "<gene>" if kind == "cbg" and field.name == path.stem else field.name: str(field.type)
            for field in pq.read_schema(path)
        }
        assert found.setdefault(kind, fields) == fields, path
    return found


def save(table: pa.Table, name: str) -> None:
    """Write one condensed table."""
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd", compression_level=19)


def write_json(name: str, content: Any) -> None:
    """Write one JSON file."""
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Make all of it anew."""
    from benchmarks.rivals.celldega027 import run

    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        bundle, loose, grouped = (Path(folder, name) for name in ("golden", "loose", "grouped"))
        truth = golden_bundle(bundle)
        sizes = [truth.clusters.count(label) for label in set(truth.clusters)]
        assert len(set(sizes)) == len(sizes), "clusters of one size: the original's order of these is not defined"
        report = run(bundle, loose, row_groups=False)
        run(bundle, grouped, row_groups=True)
        for name in (*TABLES, *TEXTS):
            shutil.copy(loose / name, HERE)
        for name in TABLES:
            assert pq.read_table(loose / name).equals(pq.read_table(grouped / name)), name
        parameters = json.loads((grouped / "landscape_parameters.json").read_text())
        rows = parameters["tile_grid"]["num_tiles_y"]
        save(transcripts(loose_tiles(loose / "transcript_tiles")), "transcripts.parquet")
        save(outlines(loose_tiles(loose / "cell_segmentation")), "outlines.parquet")
        save(transcripts(grouped_tiles(grouped / "transcripts", rows)), "row_groups/transcripts.parquet")
        save(outlines(grouped_tiles(grouped / "cell_segmentation", rows)), "row_groups/outlines.parquet")
        shutil.copy(grouped / "landscape_parameters.json", HERE / "row_groups")
        genes = counts(loose_genes(loose / "cbg"))
        assert genes.equals(counts(grouped_genes(grouped / "cbg", parameters["row_group_files"]["cbg"])))
        save(genes, "cbg.parquet")
        levels = {name: level.astype(np.uint8) for name, level in images(loose / "pyramid_images").items()}
        kept = {name: level for name, level in levels.items() if not name.endswith(f"_{TOP_LEVEL}") or "dapi" in name}
        np.savez_compressed(HERE / "images.npz", **kept)
        files = sorted(path.relative_to(loose).as_posix() for path in loose.rglob("*") if path.is_file())
        write_json("files.json", files)
        write_json("schemas.json", {"loose": schemas(loose), "row_groups": schemas(grouped)})
        write_json("versions.json", report["versions"])


if __name__ == "__main__":
    main()
