"""Each rule of `check` is broken alone in a copy of a tiny set of LandscapeFiles, and found."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import landscape_folder as made

from atlaswriter import check
from atlaswriter.formats.landscape import check as check_module
from atlaswriter.formats.landscape.rules_tiles import centres_of_area
from atlaswriter.sources import untrusted

SOURCES = Path(check_module.__file__).parent
PARAMETERS = "landscape_parameters.json"
CELLS, GENES = "cell_metadata.parquet", "meta_gene.parquet"
CLUSTERS, LABELS = "cell_clusters/cluster.parquet", "cell_clusters/meta_cluster.parquet"
TRX, CELL = "transcript_tiles/transcripts_tile_0_0.parquet", "cell_segmentation/cell_tile_0_0.parquet"
ACTB = "cbg/ACTB.parquet"
TRANSFORM, OLD_TRANSFORM = "micron_to_image_transform.csv", "xenium_transform.csv"
ZOOM = ("row_group_files", "images", "dapi", "zoom_info")
LEVEL = {"num_tiles_x": 1, "num_tiles_y": 1}
FINEST = "pyramid_images/dapi_files/10/0_0.webp"

VARIANTS: dict[str, dict[str, Any]] = {
    "loose": {},
    "groups": {"row_groups": True},
    "old": {"old": True},
    "second": {"segmentation": "proseg"},
    "second groups": {"segmentation": "proseg", "row_groups": True},
}
Break = Callable[[Path], object]


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landscape")
    for name, options in VARIANTS.items():
        made.write(folder / name, **options)
    return folder


@pytest.fixture
def copy(sets: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(sets / name, tmp_path / name))


def put(*path: Any, to: Any) -> Break:
    """Set one value deep in the parameters."""

    def apply(root: Path) -> None:
        file = root / PARAMETERS
        content = json.loads(file.read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        file.write_text(json.dumps(content))

    return apply


def drop(key: str) -> Break:
    def apply(root: Path) -> None:
        content = json.loads((root / PARAMETERS).read_text())
        del content[key]
        (root / PARAMETERS).write_text(json.dumps(content))

    return apply


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Break:
    """Change the content of a Parquet file of one row group."""
    return lambda root: pq.write_table(change(pq.read_table(root / name)), root / name)


def column(name: str, key: str, values: Callable[[list[Any]], list[Any] | pa.Array]) -> Break:
    """Change one column, keeping its type unless an array is given."""

    def change(found: pa.Table) -> pa.Table:
        new = values(found[key].to_pylist())
        new = new if isinstance(new, pa.Array) else pa.array(new, found[key].type)
        return found.set_column(found.column_names.index(key), key, new)

    return table(name, change)


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    """Another first value."""
    return lambda values: [value(values[0]) if callable(value) else value, *values[1:]]


def rename(name: str, old: str, new: str) -> Break:
    return table(name, lambda found: found.rename_columns([new if key == old else key for key in found.column_names]))


def groups(name: str, change: Callable[[list[pa.Table]], list[pa.Table]]) -> Break:
    """Change the row groups of a file."""

    def apply(root: Path) -> None:
        with pq.ParquetFile(root / name) as file:
            metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
            found = change([file.read_row_group(k) for k in range(file.num_row_groups)])
        made.put_groups(root, name, found, metadata)

    return apply


def group_column(name: str, number: int, key: str, value: Any) -> Break:
    def change(tables: list[pa.Table]) -> list[pa.Table]:
        found = tables[number]
        new = pa.array([value] * found.num_rows, found[key].type)
        tables[number] = found.set_column(found.column_names.index(key), key, new)
        return tables

    return groups(name, change)


def metadata(name: str, **values: Any) -> Break:
    def apply(root: Path) -> None:
        with pq.ParquetFile(root / name) as file:
            found = [file.read_row_group(k) for k in range(file.num_row_groups)]
        made.put_groups(root, name, found, values)

    return apply


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Break:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def remove(name: str) -> Break:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def new(name: str, content: bytes = b"x") -> Break:
    def apply(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(content)

    return apply


def move(name: str, to: str) -> Break:
    return lambda root: (root / name).rename(root / to)


def each(*breaks: Break) -> Break:
    return lambda root: [one(root) for one in breaks]


def link_out(root: Path) -> None:
    outside = root.parent / "outside"
    shutil.move(root / TRX, outside)
    (root / TRX).symlink_to(outside)


def flip_all(name: str) -> Break:
    """Change every byte of the pages, leaving the footer."""

    def change(raw: bytes) -> bytes:
        size = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
        return raw[:4] + bytes(255 - byte for byte in raw[4:size]) + raw[size:]

    return rewrite(name, change)


def change_a_checked_byte(root: Path) -> None:
    """In a page with a checksum, where nothing else would tell."""
    pq.write_table(pq.read_table(root / TRX), root / TRX, compression="none", write_page_checksum=True)
    assert not check(root).findings
    rewrite(TRX, lambda raw: raw[:400] + bytes([raw[400] ^ 1]) + raw[401:])(root)


def webp(height: int, width: int) -> bytes:
    return imagecodecs.webp_encode(np.zeros((height, width, 3), np.uint8), level=80)


def ring(change: Callable[[list[list[float]]], list[list[float]]]) -> Callable[[list[Any]], list[Any]]:
    """Change the first outline's first ring."""
    return first(lambda polygon: [change(polygon[0]), *polygon[1:]])


def shifted(by: float) -> Callable[[list[list[float]]], list[list[float]]]:
    return lambda vertices: [[x + by, y] for x, y in vertices]


def twice(found: pa.Table) -> pa.Table:
    return pa.concat_tables([found, found.slice(0, 1)])


def recorded(root: Path) -> None:
    """What atlaswriter notes for `check`."""
    rows = {"transcripts": made.transcripts()[0].size, "cell_segmentation": len(made.CELLS)}
    put("atlaswriter", to={"rows": rows})(root)
    assert not check(root).findings


# rule, severity, variant, how it is broken
CASES: list[tuple[str, str, str, Break]] = [
    # files
    ("file.missing", "error", "loose", remove(PARAMETERS)),
    ("file.missing", "error", "loose", remove(CELLS)),
    ("file.missing", "error", "loose", remove(GENES)),
    ("file.missing", "error", "loose", remove(CLUSTERS)),
    ("file.missing", "error", "loose", remove(LABELS)),
    ("file.missing", "error", "loose", remove("pyramid_images/dapi.dzi")),
    ("file.missing", "error", "groups", remove("transcripts/chunk_1.parquet")),
    ("file.missing", "error", "groups", remove("cbg/chunk_0.parquet")),
    ("file.missing", "error", "groups", remove("pyramid_images/bound/chunk_1.parquet")),
    ("file.missing", "error", "second", remove("cell_metadata_proseg.parquet")),
    ("file.missing", "error", "loose", each(remove(CELLS), lambda root: (root / CELLS).mkdir())),
    ("file.path", "error", "loose", link_out),
    ("file.path", "error", "loose", put("image_info", 0, "name", to="../../etc")),
    ("file.path", "error", "groups", put("row_group_files", "transcripts", "directory", to="/etc")),
    ("file.unreadable", "error", "loose", put("image_info", 0, "name", to="c" * 300)),
    ("json", "error", "loose", rewrite(PARAMETERS, lambda raw: raw[:-1])),
    ("json", "error", "loose", rewrite(PARAMETERS, lambda raw: b"[]")),
    ("parquet", "error", "loose", rewrite(CELLS, lambda raw: raw[:-1])),
    ("parquet", "error", "loose", rewrite(CELLS, lambda raw: raw[: len(raw) // 2])),
    ("parquet", "error", "loose", rewrite(TRX, lambda raw: b"")),
    ("parquet", "error", "loose", rewrite(TRX, lambda raw: raw[:-9] + b"\xff" + raw[-8:])),
    ("parquet", "error", "loose", flip_all(TRX)),
    ("parquet", "error", "loose", flip_all(CELL)),
    ("parquet", "error", "loose", flip_all(ACTB)),
    ("parquet", "error", "loose", flip_all("df_sig.parquet")),
    ("parquet", "error", "loose", change_a_checked_byte),
    ("parquet", "error", "groups", flip_all("transcripts/chunk_0.parquet")),
    ("parquet", "error", "groups", flip_all("pyramid_images/dapi/chunk_0.parquet")),
    # parameters
    ("json.shape", "error", "loose", drop("technology")),
    ("json.shape", "error", "loose", put("technology", to=3)),
    ("json.shape", "error", "loose", put("tile_size", to="250")),
    ("json.shape", "error", "loose", put("tile_size", to=0)),
    ("json.shape", "error", "loose", put("segmentation_approach", to="default")),
    ("json.shape", "error", "loose", put("use_int_index", to="True")),
    ("json.shape", "error", "loose", drop("image_info")),
    ("json.shape", "error", "loose", put("image_info", 0, to="dapi")),
    ("json.shape", "error", "loose", put("image_info", 0, "color", to=[0, 0])),
    ("json.shape", "error", "loose", put("image_info", 0, "color", to=[0, 0, 256])),
    ("json.shape", "error", "loose", drop("image_format")),
    ("json.shape", "error", "loose", drop("max_pyramid_zoom")),
    ("json.shape", "error", "groups", put("row_group_files", to=[])),
    ("json.shape", "error", "groups", put("row_group_files", "cbg", "files", to=[])),
    ("json.shape", "error", "groups", put("row_group_files", "cbg", "gene_to_row_group", to=None)),
    ("json.shape", "error", "groups", put("row_group_files", "images", "dapi", "zoom_info", to={"x": {}})),
    ("json.shape", "error", "groups", put("image_dimensions", to={"width": 1})),
    # columns
    ("columns", "error", "loose", rename(CELLS, "name", "names")),
    ("columns", "error", "loose", rename(GENES, made.INDEX, "gene")),
    ("columns", "error", "loose", rename(GENES, "max", "maximum")),
    ("columns", "error", "loose", rename(TRX, "name", "gene")),
    ("columns", "error", "loose", rename(CELL, "GEOMETRY", "Geometry")),
    ("columns", "error", "loose", rename(ACTB, made.INDEX, "cell")),
    ("columns", "error", "loose", table(TRX, lambda found: found.append_column("name", found["name"]))),
    ("columns", "error", "loose", table(ACTB, lambda found: found.select([made.INDEX]))),
    ("columns.missing", "error", "loose", column(CELLS, "name", first(None))),
    ("columns.missing", "error", "loose", column(CELLS, "geometry", first(None))),
    ("columns.missing", "error", "loose", column(TRX, "geometry", first([None, 1.0]))),
    ("columns.missing", "error", "loose", column(CELL, "GEOMETRY", first([None]))),
    ("columns.type", "error", "loose", column(TRX, "geometry", lambda v: pa.array([str(x) for x in v]))),
    ("columns.type", "error", "loose", column(GENES, "mean", lambda v: pa.array([str(x) for x in v]))),
    ("columns.type", "error", "loose", column(TRX, "name", lambda v: pa.array(v, pa.float64()))),
    ("columns.type", "error", "loose", column(CELLS, "name", lambda v: pa.array(range(len(v)), pa.float64()))),
    ("geometry.length", "error", "loose", column(CELLS, "geometry", first([1.0]))),
    ("geometry.length", "error", "loose", column(TRX, "geometry", first([1.0, 2.0, 3.0]))),
    ("geometry.length", "error", "loose", column(CELL, "GEOMETRY", lambda v: [[[[1.0, 2, 3]] * 5]] * len(v))),
    ("ids.kind", "error", "loose", column(TRX, "name", lambda v: pa.array([made.GENES[k] for k in v]))),
    ("ids.kind", "error", "loose", column(CELL, "name", lambda v: pa.array([made.CELLS[k] for k in v]))),
    ("ids.kind", "error", "loose", column(ACTB, made.INDEX, lambda v: pa.array([made.CELLS[k] for k in v]))),
    ("ids.kind", "error", "old", put("use_int_index", to=True)),
    ("ids.kind", "error", "loose", drop("use_int_index")),
    # cells and genes
    ("cells.unique", "error", "loose", column(CELLS, "name", first("cell-1"))),
    ("cells.finite", "error", "loose", column(CELLS, "geometry", first([np.nan, 1.0]))),
    ("genes.unique", "error", "loose", column(GENES, made.INDEX, first("CD3E"))),
    ("genes.color", "error", "loose", column(GENES, "color", first("red"))),
    ("genes.name", "error", "loose", column(GENES, made.INDEX, first("ACTB#1"))),
    ("genes.finite", "error", "loose", column(GENES, "mean", first(np.inf))),
    ("genes.mean", "error", "loose", column(GENES, "mean", first(lambda x: x * 1.01))),
    ("genes.max", "error", "loose", column(GENES, "max", first(lambda x: x + 1))),
    ("genes.max", "error", "loose", column(GENES, "max", lambda v: [*v[:4], 3.0, v[5]])),
    ("genes.std", "warning", "loose", column(GENES, "std", first(lambda x: x * 1.01))),
    ("genes.non-zero", "warning", "loose", column(GENES, "non-zero", first(lambda x: x / 2))),
    # clusters
    ("clusters.cells", "error", "loose", table(CLUSTERS, lambda found: found.slice(1))),
    ("clusters.order", "warning", "loose", table(CLUSTERS, lambda found: found.take([1, 0, 2, 3, 4, 5, 6, 7]))),
    ("clusters.label", "error", "loose", column(CLUSTERS, "cluster", first("3"))),
    ("clusters.count", "error", "loose", column(LABELS, "count", first(6))),
    ("clusters.count", "error", "second", column("cell_clusters_proseg/meta_cluster.parquet", "count", first(6))),
    ("clusters.color", "error", "loose", column(LABELS, "color", first("#12345"))),
    ("clusters.unique", "error", "loose", column(LABELS, made.INDEX, first("2"))),
    # counts
    ("counts.file", "error", "loose", remove(ACTB)),
    ("counts.file", "error", "loose", remove("cbg")),
    ("counts.gene", "error", "groups", put("row_group_files", "cbg", "gene_to_row_group", "more", to=1)),
    ("counts.cells", "error", "loose", column(ACTB, made.INDEX, lambda v: [*v[:-1], 8])),
    ("counts.cells", "error", "old", column(ACTB, made.INDEX, first("nobody"))),
    ("counts.twice", "error", "loose", column(ACTB, made.INDEX, lambda v: [*v[:-1], v[0]])),
    ("counts.order", "warning", "loose", table(ACTB, lambda found: found.take(list(range(found.num_rows))[::-1]))),
    ("counts.empty", "warning", "loose", table("cbg/abc.parquet", lambda found: found.slice(0, 0))),
    ("counts.value", "error", "loose", column(ACTB, "ACTB", first(0))),
    ("signatures.genes", "warning", "loose", column("df_sig.parquet", made.INDEX, first("none"))),
    ("signatures.genes", "warning", "loose", table("df_sig.parquet", lambda found: found.slice(1))),
    ("signatures.clusters", "warning", "loose", rename("df_sig.parquet", "2", "3")),
    ("signatures.values", "warning", "loose", column("df_sig.parquet", "2", first(99.0))),
    # transcripts
    ("transcripts.gene", "error", "loose", column(TRX, "name", first(6))),
    ("transcripts.gene", "error", "loose", column(TRX, "name", first(-1))),
    ("transcripts.gene", "error", "old", column(TRX, "name", first("none"))),
    ("transcripts.tile", "error", "loose", column(TRX, "geometry", first([10.0, 250.03]))),
    ("transcripts.tile", "error", "loose", column(TRX, "geometry", first([np.nan, 1.0]))),
    ("transcripts.tile", "error", "loose", move(TRX, "transcript_tiles/transcripts_tile_3_0.parquet")),
    ("transcripts.tile", "error", "loose", put("tile_size", to=500)),
    ("tiles.none", "warning", "loose", remove("transcript_tiles")),
    ("tiles.none", "warning", "loose", remove("cell_segmentation")),
    ("tiles.none", "warning", "second", remove("cell_segmentation_proseg")),
    ("tiles.rows", "error", "loose", each(recorded, remove(TRX))),
    ("tiles.rows", "error", "loose", each(recorded, remove("transcript_tiles"))),
    ("tiles.rows", "error", "loose", each(recorded, remove(CELL))),
    ("tiles.rows", "error", "groups", put("atlaswriter", to={"rows": {"transcripts": 3}})),
    ("json.shape", "error", "loose", put("atlaswriter", to={"rows": {"transcripts": "3"}})),
    ("tiles.empty", "warning", "loose", table(TRX, lambda found: found.slice(0, 0))),
    # outlines
    ("outlines.cell", "error", "loose", column(CELL, "name", first(8))),
    ("outlines.cell", "error", "old", column(CELL, "name", first("none"))),
    ("outlines.none", "warning", "loose", remove(CELL)),
    ("outlines.twice", "warning", "loose", table(CELL, twice)),
    ("outlines.rings", "error", "loose", column(CELL, "GEOMETRY", first(lambda polygon: polygon * 2))),
    ("outlines.rings", "error", "loose", column(CELL, "GEOMETRY", first([]))),
    ("outlines.finite", "error", "loose", column(CELL, "GEOMETRY", ring(shifted(np.nan)))),
    ("outlines.short", "error", "loose", column(CELL, "GEOMETRY", ring(lambda v: [v[0], v[1], v[0]]))),
    ("outlines.open", "error", "loose", column(CELL, "GEOMETRY", ring(lambda v: v[:-1]))),
    ("outlines.tile", "error", "loose", column(CELL, "GEOMETRY", ring(shifted(300)))),
    ("outlines.centre", "warning", "loose", column(CELL, "GEOMETRY", ring(shifted(211)))),
    # images
    ("dzi", "error", "loose", rewrite("pyramid_images/dapi.dzi", lambda raw: raw[:-9])),
    ("dzi", "error", "loose", rewrite("pyramid_images/dapi.dzi", lambda raw: raw.replace(b"600", b"wide"))),
    ("dzi", "error", "loose", rewrite("pyramid_images/dapi.dzi", lambda raw: raw.replace(b"600", b"0"))),
    ("dzi", "error", "loose", rewrite("pyramid_images/dapi.dzi", lambda raw: raw.replace(b"00", b"0" * 12))),
    ("dzi", "error", "loose", new("pyramid_images/dapi.dzi", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')),
    ("images.none", "warning", "loose", put("image_info", to=[])),
    ("images.unique", "error", "loose", put("image_info", 1, "button_name", to="DAPI")),
    ("images.unique", "error", "loose", put("image_info", 1, "name", to="dapi")),
    ("images.size", "error", "loose", rewrite("pyramid_images/bound.dzi", lambda raw: raw.replace(b"300", b"299"))),
    ("images.zoom", "error", "loose", put("max_pyramid_zoom", to=9)),
    ("images.dimensions", "error", "groups", put("image_dimensions", "width", to=1024)),
    ("images.missing", "error", "loose", remove(FINEST)),
    ("images.missing", "error", "loose", remove("pyramid_images/bound_files")),
    ("images.missing", "warning", "loose", remove("pyramid_images/dapi_files/1")),
    ("images.tile", "error", "loose", new(FINEST, webp(300, 511))),
    ("image.format", "error", "loose", put("image_format", to=".gif")),
    ("image.decode", "error", "loose", rewrite(FINEST, lambda raw: raw[:-1])),
    ("image.decode", "error", "loose", rewrite(FINEST, lambda raw: raw + b"\0")),
    ("image.decode", "error", "loose", rewrite(FINEST, lambda raw: raw[:30] + bytes(len(raw) - 30))),
    ("image.decode", "error", "loose", new(FINEST, b"GIF89a")),
    ("image.decode", "error", "groups", group_column("pyramid_images/dapi/chunk_0.parquet", 2, "image_data", b"x")),
    # row groups
    ("groups.grid", "error", "groups", drop("tile_grid")),
    ("groups.grid", "error", "groups", put("tile_grid", "num_tiles_x", to=4)),
    ("groups.grid", "error", "groups", put("tile_grid", "tile_size", to=200)),
    ("groups.files", "error", "groups", put("row_group_files", "cbg", "max_row_groups_per_file", to=2)),
    ("groups.files", "error", "groups", put("row_group_files", "transcripts", "files", to=["chunk_0.parquet"] * 2)),
    ("groups.files", "error", "groups", put("row_group_files", "cbg", "gene_to_row_group", "ACTB", to=99)),
    ("groups.count", "error", "groups", groups("transcripts/chunk_1.parquet", lambda tables: tables[:-1])),
    ("groups.count", "error", "groups", groups("cbg/chunk_0.parquet", lambda tables: tables[:-1])),
    ("groups.count", "error", "groups", groups("pyramid_images/dapi/chunk_2.parquet", lambda tables: tables[:1])),
    ("groups.genes", "error", "groups", put("row_group_files", "cbg", "gene_to_row_group", "ACTB", to=0)),
    ("groups.gene", "error", "groups", groups("cbg/chunk_0.parquet", lambda tables: tables[::-1])),
    ("groups.tile", "error", "groups", group_column("transcripts/chunk_0.parquet", 1, "tile_y", 0)),
    ("groups.tile", "error", "groups", group_column("cell_segmentation/chunk_0.parquet", 0, "tile_x", 2)),
    ("groups.tile", "error", "groups", group_column("pyramid_images/dapi/chunk_0.parquet", 2, "zoom", 1)),
    ("groups.image", "error", "groups", groups("pyramid_images/dapi/chunk_0.parquet", lambda t: [t[0][:0], *t[1:]])),
    ("groups.levels", "error", "groups", put(*ZOOM, "10", "num_tiles_x", to=3)),
    ("groups.levels", "error", "groups", put(*ZOOM, "11", to={**LEVEL, "row_group_offset": 12})),
    ("groups.metadata", "warning", "groups", metadata("transcripts/chunk_0.parquet", tile_grid_info={"tile_size": 9})),
    # the transform, and what does not belong
    ("transform", "error", "loose", new(TRANSFORM, b"1 0 0\n0 1 0\n")),
    ("transform", "error", "loose", new(TRANSFORM, b"1 0 0\n0 1\n0 0 1")),
    ("transform", "error", "loose", new(TRANSFORM, b"1 0 0\n0 0 0\n0 0 1")),
    ("transform", "error", "loose", new(TRANSFORM, b"1 0 nan\n0 1 0\n0 0 1")),
    ("transform", "error", "loose", new(TRANSFORM, b"1 0 \xff\n0 1 0\n0 0 1")),
    ("transform.none", "warning", "old", remove(OLD_TRANSFORM)),
    ("transform.differ", "error", "loose", new(OLD_TRANSFORM, b"1 0 0\n0 1 0\n0 0 1")),
    ("stale.file", "warning", "loose", new("cbg/GONE.parquet")),
    ("stale.file", "warning", "loose", new("transcript_tiles/transcripts_tile_01_0.parquet")),
    ("stale.file", "warning", "loose", new("pyramid_images/dapi_files/11/0_0.webp")),
    ("stale.file", "warning", "groups", new("cbg/ACTB.parquet")),
    ("stale.file", "warning", "groups", new("transcripts/chunk_9.parquet")),
    ("stale.unknown", "warning", "loose", new("notes.txt")),
    ("stale.unknown", "warning", "second", put("segmentation_approach", to=["default"])),
]  # fmt: skip


def rules_of(root: Path) -> Counter[tuple[str, str]]:
    return Counter((finding.rule, finding.severity) for finding in check(root).findings)


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_sets_have_no_findings(sets: Path, name: str) -> None:
    result = check(sets / name)
    assert result.ok
    assert not result.findings, str(result)
    files = [path for path in (sets / name).rglob("*") if path.is_file()]
    assert result.files == len(files)
    assert result.bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(
    ("rule", "severity", "name", "damage"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_each_rule(copy, rule: str, severity: str, name: str, damage: Break) -> None:
    root = copy(name)
    damage(root)
    result = check(root)
    assert (rule, severity) in {(finding.rule, finding.severity) for finding in result.findings}, str(result)
    assert result.ok is all(finding.severity == "warning" for finding in result.findings)
    str(result).encode()


def test_every_rule_is_tested() -> None:
    own = ["header", "columns", "content", "imageread", "check"]
    files = [*SOURCES.glob("rules*.py"), *(SOURCES / f"{name}.py" for name in own), Path(untrusted.__file__)]
    text = "".join(path.read_text() for path in files)
    stated = set(
        re.findall(
            r'(?:error|warning|report|ReadError|unique|_colors|_unknown|_count)\(\s*(?:[\w.]+,\s*)?"([a-z.]+)"', text
        )
    )
    stated |= {f"genes.{key}" for key in ("mean", "max", "std", "non-zero")}
    tested = {case[0] for case in CASES} | {"folder.unreadable"}
    # Only for payloads of a declared size.
    assert stated - {"file.size"} == tested
    assert len(stated) > 60


def test_cells_alone_can_be_shown(copy) -> None:
    root = copy("loose")
    for name in ("transcript_tiles", "cell_segmentation", "pyramid_images", TRANSFORM):
        remove(name)(root)
    assert not check(root).ok
    put("image_info", to=[])(root)
    assert {finding.rule for finding in check(root).findings} == {"tiles.none", "images.none", "transform.none"}
    assert check(root).ok
    each(put("technology", to="Chromium"), put("image_info", to=[]), put("max_pyramid_zoom", to=None))(root)
    assert not check(root).findings


def test_dictionaries_and_narrow_numbers_are_understood(copy) -> None:
    root = copy("loose")
    each(
        column(TRX, "name", lambda v: pa.array(v, pa.uint16())),
        column(TRX, "geometry", lambda v: pa.array(v, pa.list_(pa.float32()))),
        column(CELLS, "geometry", lambda v: pa.array(v, pa.list_(pa.float32(), 2))),
        column(ACTB, made.INDEX, lambda v: pa.array(v, pa.int32())),
        column(GENES, "mean", lambda v: pa.array(v, pa.float32())),
        column(CLUSTERS, "cluster", lambda v: pa.array(v).dictionary_encode()),
    )(root)
    assert not check(root).findings


def test_a_folder_that_cannot_be_listed_is_a_finding(copy, monkeypatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(check_module.fs, "file_sizes", refuse)
    assert "folder.unreadable" in {finding.rule for finding in check(copy("loose")).findings}


def test_names_that_are_no_text_can_be_shown(copy) -> None:
    root = copy("loose")
    (root / os.fsdecode(b"\xff")).write_text("")
    put("image_info", 0, "name", to="\ud800")(root)
    result = check(root)
    assert not result.ok
    str(result).encode()
    json.dumps(result.to_dict())


@pytest.mark.parametrize("name", ["loose", "groups"])
def test_every_shortened_file_is_found(copy, name: str) -> None:
    root = copy(name)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix not in {".xml", ".csv"}:
            raw = path.read_bytes()
            for size in (0, len(raw) // 2, len(raw) - 2):
                path.write_bytes(raw[:size])
                assert not check(root).ok, f"{path} cut to {size}"
            path.write_bytes(raw)


def test_changed_bytes_never_raise(copy) -> None:
    root = copy("groups")
    rng = np.random.default_rng(3)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    for _ in range(150):
        path = files[rng.integers(len(files))]
        raw = path.read_bytes()
        damaged = bytearray(raw)
        for position in rng.integers(0, len(raw), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        check(root)
        path.write_bytes(raw)
    assert not check(root).findings


def test_centres_of_area() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]], float)
    triangle = np.array([[0, 0], [3, 0], [0, 3], [0, 0]], float) + 30_000
    line = np.array([[5, 5], [9, 5], [5, 5], [5, 5]], float)
    rings = [square, square[::-1] + 7, triangle, line]
    offsets = np.cumsum([0, *map(len, rings)])
    found = centres_of_area(offsets, np.concatenate(rings))
    assert np.allclose(found, [[1, 1], [8, 8], [30_001, 30_001], [7, 5]], atol=1e-9)
