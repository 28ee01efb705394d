"""Celldega's own front-end opens what we write, and loads exactly what the tiles hold."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import atlaswriter

from .viewer import Seen, missing, open_in_viewer

TILE = 250
X, Y, ZOOM = 600.0, 600.0, 0.0


def front_end():
    """Module of the front-end: the one that the environment names, or that of an installed celldega."""
    if named := os.environ.get("ATLASWRITER_CELLDEGA_JS"):
        return Path(named)
    found = importlib.util.find_spec("celldega")
    return Path(found.origin).parent / "static" / "celldega.js" if found and found.origin else None


@pytest.fixture(scope="module")
def celldega_js():
    if reason := missing():
        pytest.skip(reason)
    path = front_end()
    if not path or not path.is_file():
        pytest.skip(f"no celldega.js at {path}: install celldega or name the file in ATLASWRITER_CELLDEGA_JS")
    return path


@pytest.fixture(scope="module")
def bundle(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("xenium") / "bundle"
    program = shared / "data" / "make_xenium_bundle.py"
    sizes = ["--transcripts", "100000", "--cells", "800", "--genes", "60", "--image-size", "1200", "--seed", "3"]
    subprocess.run([sys.executable, program, "--out", out, *sizes], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    if not hasattr(atlaswriter, "landscape"):
        pytest.skip("atlaswriter.landscape is not written yet")
    out = tmp_path_factory.mktemp("landscape") / "out"
    atlaswriter.landscape(bundle, out)
    return out


@pytest.fixture(scope="module")
def seen(exported, celldega_js):
    return open_in_viewer(exported, celldega_js, x=X, y=Y, zoom=ZOOM)


def tiles(seen: Seen):
    """Numbers (i, j) of the tiles that the view touches."""
    low, high = ([math.floor(seen.bounds[f"{end}_{axis}"] / TILE) for axis in "xy"] for end in ("min", "max"))
    return [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]


def test_it_opens_without_an_error(seen):
    assert seen.errors == []
    assert seen.close_up
    for start in ("landscape_parameters.json", "cell_metadata", "meta_gene", "cell_clusters/"):
        assert seen.statuses(start) == {200}, start
    assert all(r.status == 200 for r in seen.requests if r.path.startswith("pyramid_images/"))
    assert seen.statuses("pyramid_images/dapi.dzi") == {200}
    assert any(r.path.endswith(".webp") for r in seen.requests)


def test_only_files_that_are_not_there_are_missing(seen, exported):
    for kind in ("transcript_tiles/transcripts_tile", "cell_segmentation/cell_tile"):
        asked = {r.path: r.status for r in seen.requests if r.path.startswith(kind)}
        assert sorted(asked) == sorted(f"{kind}_{i}_{j}.parquet" for i, j in tiles(seen))
        assert asked == {path: 200 if (exported / path).is_file() else 404 for path in asked}
        assert 200 in asked.values()


def test_counts_are_those_of_the_tiles(seen, exported):
    genes = pq.read_table(exported / "meta_gene.parquet")["__index_level_0__"].to_pylist()
    cells = pq.read_table(exported / "cell_metadata.parquet")["name"].to_pylist()
    points, outlines, inside = {}, [], 0
    for i, j in tiles(seen):
        path = exported / f"transcript_tiles/transcripts_tile_{i}_{j}.parquet"
        for row in pq.read_table(path).to_pylist() if path.is_file() else ():
            gene = genes[row["name"]]
            points[gene] = points.get(gene, 0) + 1
            inside += all(
                seen.bounds[f"min_{axis}"] <= at <= seen.bounds[f"max_{axis}"]
                for axis, at in zip("xy", row["geometry"], strict=True)
            )
        path = exported / f"cell_segmentation/cell_tile_{i}_{j}.parquet"
        if path.is_file():
            outlines += [cells[cell] for cell in pq.read_table(path)["name"].to_pylist()]
    assert seen.cells == len(cells)
    assert seen.genes == len(genes)
    assert seen.transcripts_by_gene == points
    assert seen.transcripts_in_view == inside
    assert sorted(seen.polygon_cells) == sorted(outlines)


def test_a_gene_colours_its_cells(exported, celldega_js, seen):
    gene = max(seen.transcripts_by_gene, key=seen.transcripts_by_gene.get)
    coloured = open_in_viewer(exported, celldega_js, x=X, y=Y, zoom=ZOOM, gene=gene)
    table = pq.read_table(exported / "cbg" / f"{gene}.parquet")
    counts = dict(zip(table["__index_level_0__"].to_pylist(), table[gene].to_pylist(), strict=True))
    most = max(counts.values())
    expected = [round(math.log1p(counts.get(c, 0)) / math.log1p(most) * 255) for c in range(seen.cells)]
    assert all(abs(a - b) <= 1 for a, b in zip(coloured.expression, expected, strict=True))
