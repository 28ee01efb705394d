"""Reading LandscapeFiles: every storage gives the same content, and damage gives clear errors."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import landscape_folder as made

import atlaswriter
from atlaswriter.errors import FormatError, InputError, UnknownNameError
from atlaswriter.formats import detect
from atlaswriter.formats.landscape.layout import image_levels
from atlaswriter.formats.landscape.read import Landscape

VARIANTS: dict[str, dict[str, Any]] = {
    "loose": {},
    "row groups": {"row_groups": True},
    "old": {"old": True},
    "second": {"segmentation": "proseg"},
    "second, row groups": {"segmentation": "proseg", "row_groups": True},
}


@pytest.fixture(params=VARIANTS, scope="module")
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    options = VARIANTS[request.param]
    root = made.write(tmp_path_factory.mktemp("set") / "landscape", **options)
    found = atlaswriter.open_export(root, segmentation=options.get("segmentation"))
    assert isinstance(found, Landscape)
    return found


def test_cells_and_genes(opened: Landscape) -> None:
    cells = opened.cells()
    assert cells.names == made.CELLS
    assert np.array_equal(np.stack([cells.x_px, cells.y_px], 1), made.centres())
    assert cells.x_px.dtype == np.float64
    assert opened.genes == made.GENES
    assert (opened.n_cells, opened.n_genes, opened.tile_size) == (8, 6, 250)
    table = opened.meta_gene()
    assert list(table.index) == made.GENES
    assert np.array_equal(table["mean"], made.counts().mean(0))
    assert list(table.columns) == ["mean", "std", "max", "non-zero", "color"]


def test_counts(opened: Landscape) -> None:
    counts = made.counts()
    for number, gene in enumerate(made.GENES):
        cells, values = opened.gene(gene)
        assert cells.dtype == values.dtype == np.int64
        assert np.array_equal(cells, np.flatnonzero(counts[:, number]))
        assert np.array_equal(opened.gene_dense(gene), counts[:, number])
    with pytest.raises(UnknownNameError, match="gene 'nope'"):
        opened.gene("nope")


def test_clusters_and_signatures(opened: Landscape) -> None:
    assert opened.clusters().to_dict() == dict(zip(made.CELLS, made.LABELS, strict=True))
    assert opened.cluster_colors() == {"1": "#e55050", "2": "#50E5e5"}
    assert opened.cluster_counts() == {"1": 5, "2": 2}
    signatures = opened.signatures()
    assert signatures is not None
    assert signatures.shape == (5, 2)
    assert signatures.loc["ACTB", "2"] == made.counts()[4:6, 0].mean()


def test_transcripts(opened: Landscape) -> None:
    ids, xy = made.transcripts()
    tiles = opened.transcript_tiles()
    assert tiles == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert sum(opened.transcript_counts().values()) == ids.size
    found = [opened.transcripts(*tile) for tile in tiles]
    rows = np.concatenate([np.stack([one.genes, one.x_px, one.y_px], 1) for one in found])
    wanted = np.column_stack([ids, xy])
    assert np.array_equal(rows[np.lexsort(rows.T)], wanted[np.lexsort(wanted.T)])
    for nowhere in ((2, 1), (7, 7), (-1, 0)):
        assert [len(column) for column in opened.transcripts(*nowhere)] == [0, 0, 0]


def test_outlines(opened: Landscape) -> None:
    tiles = opened.outline_tiles()
    assert set(tiles) == {tuple(tile) for tile in np.floor(made.centres() / 250).astype(int).tolist()}
    seen = {}
    for tile in tiles:
        cells, offsets, xy, n_rings = opened.outlines(*tile)
        assert n_rings.tolist() == [1] * cells.size
        assert (offsets[0], offsets[-1]) == (0, len(xy))
        seen |= {cell: xy[a:b] for cell, (a, b) in zip(cells.tolist(), pairwise(offsets), strict=True)}
    assert sorted(seen) == list(range(8))
    for cell, ring in enumerate(made.squares()):
        assert np.allclose(seen[cell], ring[0], atol=0.001)
    assert opened.outlines(9, 9).offsets.tolist() == [0]


def test_images(opened: Landscape) -> None:
    assert {name: channel.button for name, channel in opened.channels.items()} == {"dapi": "DAPI", "bound": "BOUND"}
    size = opened.image("bound")
    assert (size.width, size.height, size.tile_size) == (600, 300, 512)
    assert size.levels == made.levels()
    assert size.levels[0] == (1, 1)
    full = np.concatenate([opened.image_tile("bound", 10, column, 0) for column in range(2)], axis=1)
    assert np.array_equal(full, made.pixels("bound", 10))
    assert opened.image_tile("dapi", 0, 0, 0).shape == (1, 1, 3)
    for wrong in (("none", 0, 0, 0), ("dapi", 11, 0, 0), ("dapi", 10, 2, 0), ("dapi", 10, 0, -1)):
        with pytest.raises(UnknownNameError):
            opened.image_tile(*wrong)


def test_transform_and_text(opened: Landscape) -> None:
    assert opened.transform is not None
    assert opened.transform.tolist() == [[4.705882, 0, 0], [0, 4.705882, 0], [0, 0, 1]]
    assert "cells: 8" in repr(opened)
    assert "<table>" in opened._repr_html_()
    summary = json.loads(json.dumps(detect.summarise(opened.path)))
    assert summary["format"] == "landscape"
    assert summary["n_transcripts"] == made.transcripts()[0].size
    assert [one["n_outlines"] for one in summary["segmentations"]] == [8] * (1 + len(opened.segmentations))
    assert sum(summary["bytes"].values()) == sum(
        path.stat().st_size for path in opened.path.rglob("*") if path.is_file()
    )
    assert "dapi (600 × 300)" in detect.as_text(summary)


@pytest.mark.parametrize(("size", "n_levels"), [((1, 1), 1), ((2, 1), 2), ((512, 512), 10), ((513, 3), 11)])
def test_levels_halve_rounding_up(size: tuple[int, int], n_levels: int) -> None:
    found = image_levels(*size)
    assert len(found) == n_levels
    assert found[-1] == size
    assert found[0] == (1, 1)
    for (w, h), (wider, higher) in pairwise(found):
        assert (w, h) == (-(-wider // 2), -(-higher // 2))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a folder"):
        Landscape(tmp_path / "none")
    with pytest.raises(FormatError, match="does not exist"):
        atlaswriter.open_export(tmp_path / "none")
    assert [one.rule for one in atlaswriter.check(tmp_path / "none").findings] == ["folder.missing"]
    assert [one.rule for one in atlaswriter.check(tmp_path).findings] == ["folder.format"]
    with pytest.raises(FormatError, match=r"has none of.*landscape_parameters"):
        atlaswriter.open_export(tmp_path)
    root = made.write(tmp_path / "set")
    with pytest.raises(UnknownNameError, match="segmentation 'other'"):
        atlaswriter.open_export(root, segmentation="other")
    (root / "cell_metadata.parquet").write_bytes((root / "cell_metadata.parquet").read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"cell_metadata\.parquet.*cannot be read as Parquet"):
        atlaswriter.open_export(root).n_cells  # noqa: B018
    for name in ("df_sig.parquet", "micron_to_image_transform.csv"):
        (root / name).unlink()
    opened = atlaswriter.open_export(root)
    assert opened.signatures() is None
    assert opened.transform is None


def test_a_technology_without_image(tmp_path: Path) -> None:
    root = made.write(tmp_path / "set")
    path = root / "landscape_parameters.json"
    path.write_text(path.read_text().replace("Xenium", "Chromium"))
    opened = atlaswriter.open_export(root)
    assert opened.channels == {}
    assert "channels: none" in repr(opened)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from atlaswriter.cli.main import run

    root, other = str(made.write(tmp_path / "set")), str(made.write(tmp_path / "other", row_groups=True))
    assert run(["check", root]) == 0
    assert run(["info", root]) == 0
    assert run(["diff", root, other, "--px", "0", "--grey", "0"]) == 0
    assert run(["diff", root, other, "--steps", "1"]) == 3
    shown = capsys.readouterr()
    assert "nothing found" in shown.out
    assert "same content" in shown.out
    assert "steps: means nothing for landscape files" in shown.err
    (tmp_path / "set" / "cbg" / "ACTB.parquet").unlink()
    assert run(["check", root, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["rule"] == "counts.file"


def test_options_of_the_other_format_are_refused(tmp_path: Path) -> None:
    from atlaswriter.formats.cellucid.layout import Layout

    root = made.write(tmp_path / "set")
    export = Path(__file__).parent.parent / "golden" / "exports" / "plain"
    for refused in (
        lambda: atlaswriter.open_export(root, layout=Layout()),
        lambda: atlaswriter.open_export(export, segmentation="x"),
        lambda: atlaswriter.check(root, strict=True),
        lambda: atlaswriter.diff(root, root, steps=1),
        lambda: atlaswriter.diff(export, export, px=1),
    ):
        with pytest.raises(InputError, match="means nothing for"):
            refused()
    with pytest.raises(InputError, match="cannot be compared"):
        atlaswriter.diff(root, export)
    assert atlaswriter.open_export(export, layout=Layout()).n_cells == 40
    assert detect.summarise(export)["format"] == "cellucid"
    assert "points" in detect.as_text(detect.summarise(export))
