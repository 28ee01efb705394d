"""Bad bundles: refused with what, where and what to do, the target as it was; or exported as documented, and told."""

import gzip
import json
import shutil
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from tests import landscape_truth as truths
from tests.bundles import _write_images, _write_matrix, make_bundle
from tests.landscape_truth import Meant, Written, assert_lossless

import atlaswriter as aw
from atlaswriter.errors import InputError

SMALL = {"n_cells": 12, "n_genes": 6, "n_transcripts": 300, "image": (120, 150), "channels": 1, "n_clusters": 2}
MATRIX_MARKET = ("matrix.mtx", "features.tsv", "barcodes.tsv")
CLUSTERS = "analysis/clustering/gene_expression_graphclust/clusters.csv"


@pytest.fixture
def bundle(tmp_path):
    """Makes a small bundle in a folder of its own."""
    return lambda **given: make_bundle(tmp_path / "in" / "bundle", **{**SMALL, **given})


@pytest.fixture(params=["new", "over an older one"])
def target(request, tmp_path):
    """Where an export goes; what is there must be there afterwards."""
    folder = tmp_path / "exports"
    folder.mkdir()
    if request.param != "new":
        truth = make_bundle(tmp_path / "old", **SMALL, seed=99)
        aw.landscape(truth.folder, folder / "out", progress=False)
    return folder / "out"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def export(bundle, out, **options):
    return aw.landscape(bundle, out, progress=False, **options)


def refused(bundle, target, *texts, **options):
    """The export is refused with all of these words; nothing changes."""
    source = bundle if hasattr(bundle, "rglob") else None
    before = truths.fingerprint(target.parent), source and truths.fingerprint(source)
    with pytest.raises(InputError) as caught:
        export(bundle, target, force=True, **options)
    message = str(caught.value)
    for text in texts:
        assert text in message
    for problem in caught.value.problems:
        assert problem.where
        assert problem.found
        assert problem.remedy, message
    after = truths.fingerprint(target.parent), source and truths.fingerprint(source)
    # The folder around the target may have held a staged one for a while.
    for tree in (*before, *after):
        if tree:
            tree["."] = ()
    assert before == after
    return message


def rewrite(truth, name, change):
    """A table of the bundle, changed."""
    path = truth.folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name, values):
    """A change of one column: of all values, or of those at some places."""

    def change(table):
        place = table.column_names.index(name)
        column = table[name].to_pylist()
        if isinstance(values, dict):
            for row, value in values.items():
                column[row] = value
        else:
            column = values
        kind = None if not isinstance(values, dict) else table.schema.field(name).type
        return table.set_column(place, name, pa.array(column, kind))

    return change


# --- files


def test_all_missing_files_are_named_at_once(bundle, target):
    truth = bundle(transform="none")
    for path in [*truth.folder.glob("cells.*")]:
        path.unlink()
    shutil.rmtree(truth.folder / "cell_feature_matrix")
    (truth.folder / "experiment.xenium").write_text("{}")
    message = refused(truth.folder, target, "cells.parquet", "cell_feature_matrix", "micron_to_image_transform.csv")
    assert message.startswith("3 problems")


@pytest.mark.parametrize("name", ["transcripts.parquet", "cell_boundaries.parquet", "analysis", "morphology_focus"])
def test_what_may_be_missing_is_told(name, bundle, out):
    truth = bundle()
    path = truth.folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if name == "morphology_focus":
        (truth.folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    report = export(truth.folder, out)
    assert [text for text in report.warnings if name.partition(".")[0] in text or "holds no" in text]
    assert aw.check(out).ok, aw.check(out)
    found = Written(out)
    assert len(found.cells[0]) == 12
    assert (len(found.transcripts) == 0) == (name == "transcripts.parquet")
    assert (len(found.outlines) == 0) == (name == "cell_boundaries.parquet")
    assert (found.parameters["image_info"] == []) == (name == "morphology_focus")
    assert (out / "df_sig.parquet").exists() == (name != "analysis")


def test_only_cells_matrix_and_transform(bundle, out):
    truth = bundle(transform="csv")
    for name in ("analysis", "morphology_focus"):
        shutil.rmtree(truth.folder / name)
    for name in ("transcripts.parquet", "cell_boundaries.parquet"):
        (truth.folder / name).unlink()
    (truth.folder / "experiment.xenium").write_text("{}")
    report = export(truth.folder, out)
    assert len(report.warnings) >= 4
    assert aw.check(out).ok


def test_all_missing_columns_are_named_at_once(bundle, target):
    truth = bundle()
    rewrite(truth, "transcripts", lambda table: table.drop_columns(["x_location", "feature_name"]))
    rewrite(truth, "cells", lambda table: table.drop_columns(["y_centroid"]))
    rewrite(truth, "cell_boundaries", lambda table: table.drop_columns(["vertex_y"]))
    refused(
        truth.folder, target, "transcripts.parquet", "x_location", "feature_name", "cells.parquet", "y_centroid",
        "cell_boundaries.parquet", "vertex_y",
    )  # fmt: skip


@pytest.mark.parametrize("kept", [0, 4, 0.5, -8])
@pytest.mark.parametrize("name", ["transcripts", "cells", "cell_boundaries"])
def test_truncated_parquet(name, kept, bundle, target):
    truth = bundle(n_transcripts=3000)
    path = truth.folder / f"{name}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(truth.folder, target, f"{name}.parquet")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["transcripts", "cell_boundaries"])
def test_parquet_with_damaged_pages(name, workers, bundle, target):
    """Found only while it is read, when much has been written already."""
    truth = bundle(n_transcripts=5000, n_cells=200)
    path = truth.folder / f"{name}.parquet"
    content = bytearray(path.read_bytes())
    part = slice(len(content) // 3, len(content) // 2)
    content[part] = bytes(255 - byte for byte in content[part])
    path.write_bytes(content)
    refused(truth.folder, target, f"{name}.parquet", workers=workers)


@pytest.mark.parametrize("codec", ["zlib", "none", "jpeg2000"])
@pytest.mark.parametrize("kept", [0, 3, 200, 0.6])
@pytest.mark.parametrize("layout", ["multi", "single"])
def test_truncated_tiff(kept, codec, layout, bundle, target):
    truth = bundle(channels=2, image=(600, 700), codec=codec, layout=layout)
    path = max((truth.folder / "morphology_focus").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(truth.folder, target, path.name)


@pytest.mark.parametrize("workers", [1, 2])
def test_tiff_with_damaged_tiles(workers, bundle, target):
    truth = bundle(channels=2, image=(600, 700))
    path = max((truth.folder / "morphology_focus").iterdir())
    content = bytearray(path.read_bytes())
    part = slice(len(content) // 3, 2 * len(content) // 3)
    content[part] = bytes(255 - byte for byte in content[part])
    path.write_bytes(content)
    refused(truth.folder, target, path.name, workers=workers)


@pytest.mark.parametrize(
    "name",
    ["experiment.xenium", "cells.zarr.zip", *(f"cell_feature_matrix/{name}.gz" for name in MATRIX_MARKET)],
)
def test_other_damaged_files(name, bundle, target):
    truth = bundle()
    path = truth.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(truth.folder, target, name.split("/")[-1].removesuffix(".gz").split(".")[0])


def test_clusters_without_their_columns(bundle, target):
    truth = bundle()
    (truth.folder / CLUSTERS).write_text("Barcode,Group\na,1\n")
    refused(truth.folder, target, "clusters.csv", "Cluster")


@pytest.mark.parametrize("matrix", ["0 0 0\n0 0 0\n0 0 1\n", "nan 0 0\n0 1 0\n0 0 1\n", "1 0\n0 1\n", "", "a b c"])
def test_a_transform_that_is_none(matrix, bundle, target):
    truth = bundle(transform="csv")
    (truth.folder / "micron_to_image_transform.csv").write_text(matrix)
    refused(truth.folder, target, "micron_to_image_transform.csv")


# --- positions


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, 3e37])
@pytest.mark.parametrize("workers", [1, 2])
def test_transcripts_nowhere(bad, workers, bundle, target):
    truth = bundle()
    rewrite(truth, "transcripts", with_column("x_location", {7: bad, 299: bad}))
    refused(truth.folder, target, "transcripts.parquet", "2 transcripts", "position", workers=workers)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, None])
def test_cells_nowhere(bad, bundle, target):
    truth = bundle()
    rewrite(truth, "cells", with_column("y_centroid", {3: bad}))
    refused(truth.folder, target, "cells.parquet", "1 cells", truth.cells[3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_outlines_nowhere(bad, bundle, target):
    truth = bundle()
    rewrite(truth, "cell_boundaries", with_column("vertex_x", {5: bad}))
    refused(truth.folder, target, "cell_boundaries.parquet", "1 outlines")


@pytest.mark.parametrize("name", ["transcripts", "cell_boundaries", "cells"])
def test_positions_that_are_text(name, bundle, target):
    truth = bundle()
    column = {"transcripts": "x_location", "cell_boundaries": "vertex_x", "cells": "x_centroid"}[name]
    rewrite(truth, name, lambda table: table.set_column(
        table.column_names.index(column), column, pc.cast(table[column], pa.string())
    ))  # fmt: skip
    refused(truth.folder, target, f"{name}.parquet", column)


@pytest.mark.parametrize(("far", "tile_size"), [(655_360, 1), (1_000_000, 1), (20_000_000, 1), (16_400_000, 250)])
@pytest.mark.parametrize("row_groups", [False, True])
def test_positions_far_apart(far, tile_size, row_groups, bundle, tmp_path):
    """Refused or written, but never a crash: tiles are counted in 64 bits."""
    truth = bundle(transform="csv")
    truths.put_transform(truth, np.eye(3))
    truths.put_transcripts(truth, np.array([[0.0, 0], [far, far], [far - 3, 5]]))
    code = (
        "import sys, atlaswriter as aw\nfrom atlaswriter.errors import InputError\n"
        "try:\n    aw.landscape(sys.argv[1], sys.argv[2], progress=False, tile_size=int(sys.argv[3]),"
        " row_groups=sys.argv[4] == 'True')\n"
        "except InputError as error:\n    print(error)\n"
    )
    arguments = [str(truth.folder), str(tmp_path / "out"), str(tile_size), str(row_groups)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stderr[-500:]) == (0, "") or done.stdout
    assert done.returncode == 0, done.stderr[-500:]
    if (tmp_path / "out").exists():
        assert sum(map(len, Written(tmp_path / "out").transcripts.values())) == 3
    else:
        assert "tile" in done.stdout
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


# --- features


def test_features_that_the_matrix_does_not_have(bundle, out):
    """They get a row of zeros among the genes; their transcripts are there."""
    truth = bundle()
    changed = [f"New{k}" if k % 50 == 0 else truth.features[g] for k, g in enumerate(truth.gene)]
    rewrite(truth, "transcripts", with_column("feature_name", changed))
    report = export(truth.folder, out)
    (said,) = [text for text in report.warnings if "not in the matrix" in text]
    assert said.startswith("6 features")
    assert "'New100'" in said
    found = Written(out)
    table = found.table("meta_gene.parquet").to_pylist()
    rows = [row for row in table if row[truths.INDEX].startswith("New")]
    assert [row[truths.INDEX] for row in rows] == ["New0", "New100", "New150", "New200", "New250", "New50"]
    for row in rows:
        assert [row[key] for key in ("mean", "std", "max", "non-zero")] == [0] * 4
        assert not (out / "cbg" / f"{row[truths.INDEX]}.parquet").exists()
    assert found.genes == sorted([*truth.features, *(row[truths.INDEX] for row in rows)])
    names = [found.genes[gene] for tile in found.transcripts.values() for gene in tile[:, 0]]
    assert sorted(names) == sorted(changed)
    assert aw.check(out).ok


def test_transcripts_without_a_feature(bundle, target):
    truth = bundle()
    rewrite(truth, "transcripts", with_column("feature_name", {5: None, 6: None}))
    refused(truth.folder, target, "transcripts.parquet", "2 transcripts", "feature_name")


@pytest.mark.parametrize("row_groups", [False, True])
@pytest.mark.parametrize("parquet", [True, False])
@pytest.mark.parametrize("matrix", ["mex", "h5", "zarr"])
def test_names_that_a_url_cannot_hold_and_names_that_look_like_nothing(row_groups, parquet, matrix, bundle, out):
    """Renamed everywhere and told; NA and nan are names like others, and genes of one name get numbers."""
    names = ("a/b", "c\\d", "e?f", "g#h", "i%20j", "N/A", "NA", "nan", "NaN", "null", "None", "1", "1.0", "TRUE")
    names = (*names, "TP53", "TP53")
    truth = bundle(names=names, n_genes=20, n_transcripts=900, parquet=parquet, matrix=matrix)
    report = export(truth.folder, out, row_groups=row_groups)
    told = {(kind, old): new for kind, old, new in report.renamed}
    assert {old: new for (_, old), new in told.items() if old != "TP53"} == {
        "a/b": "a_b", "c\\d": "c_d", "e?f": "e_f", "g#h": "g_h", "i%20j": "i_20j", "N/A": "N_A",
    }  # fmt: skip
    assert ("gene", "TP53", "TP53_1") in report.renamed
    assert_lossless(out, Meant(truth), images=False)
    assert aw.check(out).ok, aw.check(out)


def test_names_that_collide_once_renamed(bundle, target):
    truth = bundle(names=("a/b", "a?b", "c"))
    refused(truth.folder, target, "'a/b'", "'a?b'", "'a_b'")


def test_names_that_collide_with_one_of_transcripts_alone(bundle, target):
    """Known only after all transcripts were read."""
    truth = bundle(names=("a/b", "c"))
    rewrite(truth, "transcripts", with_column("feature_name", {9: "a#b"}))
    refused(truth.folder, target, "'a/b'", "'a#b'")


@pytest.mark.parametrize("name", ["..", ".", " ", "a\nb", "x" * 260, "é" * 130])
@pytest.mark.parametrize("where", ["matrix", "transcripts"])
def test_names_that_no_file_can_have(name, where, bundle, target):
    """Refused; or harmless, where the front-end can ask for such a file (``..`` is ``...parquet``)."""
    truth = bundle(names=("good",), matrix="h5")
    if where == "transcripts":
        rewrite(truth, "transcripts", with_column("feature_name", {9: name}))
    else:
        truth.features[0] = name
        (truth.folder / "cell_feature_matrix.h5").unlink()
        _write_matrix(truth, "h5", np.zeros((12, 2), "<u4"))
        table = {"feature_name": [truth.features[g] for g in truth.gene]}
        rewrite(truth, "transcripts", with_column("feature_name", table["feature_name"]))
    refused(truth.folder, target, "genes")


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..\\evil", "C:evil", "con", "a" * 240])
def test_names_that_lead_elsewhere_lead_nowhere(name, bundle, out):
    truth = bundle(names=(name, "good"))
    truth.counts[:, 0] = 1
    shutil.rmtree(truth.folder / "cell_feature_matrix")
    _write_matrix(truth, "mex", np.zeros((12, 2), "<u4"))
    export(truth.folder, out)
    new = name.translate(truths.ASKABLE)
    assert (out / "cbg" / f"{new}.parquet").is_file()
    assert new in Written(out).genes
    assert sorted(path.name for path in out.parent.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("name", ["cell_id", "__index_level_0__", "expression", "gene", "index", "barcode", "name"])
@pytest.mark.parametrize("row_groups", [False, True])
def test_genes_called_like_columns(name, row_groups, bundle, target):
    """Their counts stay theirs, as the front-end finds them; or they are refused or renamed."""
    truth = bundle(names=(name,))
    truth.counts[:, 0] = np.arange(1, 13)
    shutil.rmtree(truth.folder / "cell_feature_matrix")
    _write_matrix(truth, "mex", np.zeros((12, 2), "<u4"))
    try:
        report = export(truth.folder, target, row_groups=row_groups, force=True)
    except InputError as error:
        if name not in str(error):
            raise
        return
    new = {old: new for _, old, new in report.renamed}.get(name, name)
    # The front-end takes the first of these columns for the cells.
    if not row_groups:
        columns = pq.read_table(target / "cbg" / f"{new}.parquet").column_names
        keys = ["cell_id", "__index_level_0__", "cell_name", "barcode", "barcodes", "index"]
        assert next(key for key in keys if key in columns) == "__index_level_0__"
        assert sorted(columns) == sorted([new, "__index_level_0__"])
    cells, values = Written(target).counts[new]
    order = np.argsort(np.array(truth.cells))
    assert cells.tolist() == list(range(12))
    assert values.tolist() == truth.counts[order, 0].tolist()


def test_names_that_are_no_text(bundle, target):
    truth = bundle()
    values = [b"\xff\xfe" if k == 3 else truth.features[g].encode() for k, g in enumerate(truth.gene)]
    rewrite(truth, "transcripts", with_column("feature_name", values))
    refused(truth.folder, target, "transcripts.parquet")


# --- cells


def test_cells_without_an_outline_and_outlines_without_a_cell(bundle, out):
    truth = bundle()
    names = [f"stranger-{k}" if k < 3 else cell for k, cell in enumerate(truth.cells)]
    truths.put_outlines(truth, truth.rings, names)
    report = export(truth.folder, out)
    assert "3 outlines are of cells that cells.parquet does not have: left out" in report.warnings
    assert "3 cells have no outline" in report.warnings
    found = Written(out)
    drawn = sorted(cell for tile in found.outlines.values() for cell, _ in tile)
    assert [found.cells[0][cell] for cell in drawn] == sorted(truth.cells[3:])


def test_rings_of_all_kinds(bundle, out):
    """Open ones are closed, those that cross themselves stay as they are, what is no ring is left out and counted."""
    truth = bundle()
    x, y = 10.0, 12.0
    kinds = [
        [(x, y), (x + 2, y), (x + 2, y + 2), (x, y + 2)],
        [(x, y), (x + 2, y + 2), (x + 2, y), (x, y + 2), (x, y)],
        [(x, y)],
        [(x, y), (x + 1, y)],
        [(x, y), (x + 1, y), (x, y)],
        [(x, y)] * 4,
    ]
    rings = [np.array(kinds[k]) if k < len(kinds) else ring for k, ring in enumerate(truth.rings)]
    truths.put_outlines(truth, rings)
    report = export(truth.folder, out)
    assert "4 outlines have fewer than three distinct vertices: left out" in report.warnings
    assert "4 cells have no outline" in report.warnings
    found, names = Written(out), sorted(truth.cells)
    drawn = {names[cell]: ring for tile in found.outlines.values() for cell, ring in tile}
    assert len(drawn) == len(rings) - 4
    for cell, ring in zip(truth.cells, rings, strict=True):
        if cell in drawn:
            px = np.rint(truths.pixels_of(truths.spelled(truth.matrix), ring) * 100).astype(int)
            closed = px if (px[0] == px[-1]).all() else np.vstack([px, px[:1]])
            np.testing.assert_array_equal(drawn[cell], closed)
    assert aw.check(out).ok


def test_no_outline_is_good(bundle, out):
    truth = bundle()
    truths.put_outlines(truth, [ring[:1] for ring in truth.rings])
    report = export(truth.folder, out)
    assert "12 cells have no outline" in report.warnings
    assert Written(out).outlines == {}


def test_vertices_of_a_cell_in_several_places(bundle, out):
    truth = bundle()
    truths.put_outlines(truth, [*truth.rings, truth.rings[0] + 1], [*truth.cells, truth.cells[0]])
    report = export(truth.folder, out)
    assert "1 cells have a further outline, which is exported too" in report.warnings
    assert sum(map(len, Written(out).outlines.values())) == 13


@pytest.mark.parametrize("row_groups", [False, True])
def test_no_transcripts(row_groups, bundle, out):
    truth = bundle()
    rewrite(truth, "transcripts", lambda table: table.slice(0, 0))
    report = export(truth.folder, out, row_groups=row_groups)
    assert "there are no transcripts to export" in report.warnings
    assert (report.contents["transcripts"], report.contents["tiles of transcripts"]) == (0, 0)
    found = Written(out)
    assert found.transcripts == {}
    assert len(found.outlines) > 0
    assert aw.check(out).ok


def test_no_transcripts_of_the_wanted_quality(bundle, out):
    truth = bundle()
    report = export(truth.folder, out, min_qv=1000)
    assert "there are no transcripts to export" in report.warnings
    assert report.contents["transcripts left out"] == ["300 of lower quality"]
    assert Written(out).transcripts == {}
    assert len(Written(out).genes) == len(truth.features)


def test_no_cells(bundle, target):
    truth = bundle()
    rewrite(truth, "cells", lambda table: table.slice(0, 0))
    refused(truth.folder, target, "cells.parquet")


def test_names_of_cells_that_repeat_or_are_missing(bundle, target):
    truth = bundle()
    rewrite(truth, "cells", with_column("cell_id", {1: truth.cells[0], 2: truth.cells[0]}))
    refused(truth.folder, target, "cells.parquet", "more than once", truth.cells[0])
    rewrite(truth, "cells", with_column("cell_id", {1: None, 2: None}))
    refused(truth.folder, target, "cells.parquet", "no name")


def test_outlines_without_the_name_of_a_cell(bundle, target):
    truth = bundle()
    rewrite(truth, "cell_boundaries", with_column("cell_id", {0: None}))
    refused(truth.folder, target, "cell_boundaries.parquet", "cell_id")


def test_cells_with_odd_names(bundle, out):
    """As text, whatever they look like; of any length."""
    truth = bundle()
    odd = ["NA", "nan", "-", "1", "01", "1.0", "é", "a" * 300, "a,b", 'q"q', "null", "z z"]
    table = pq.read_table(truth.folder / "cells.parquet").set_column(0, "cell_id", pa.array(odd))
    pq.write_table(table, truth.folder / "cells.parquet")
    truths.put_outlines(truth, truth.rings, odd)
    (truth.folder / CLUSTERS).write_text("Barcode,Cluster\nNA,1\n")
    barcodes = truth.folder / "cell_feature_matrix" / "barcodes.tsv.gz"
    barcodes.write_bytes(gzip.compress(("\n".join(odd) + "\n").encode()))
    report = export(truth.folder, out)
    found = Written(out)
    assert found.cells[0] == sorted(odd, key=str.encode)
    assert not [text for text in report.warnings if "outline" in text or "rows of" in text]
    total = sum(values.sum() for _, values in found.counts.values())
    assert total == truth.counts.sum()


def test_matrix_rows_of_unknown_cells(bundle, out):
    """Left out of counts and statistics alike, and told."""
    truth = bundle()
    for name in ("cells.parquet", "cells.csv.gz"):
        (truth.folder / name).unlink()
    table = pa.table({"cell_id": truth.cells[4:], "x_centroid": truth.xy[4:, 0], "y_centroid": truth.xy[4:, 1]})
    pq.write_table(table, truth.folder / "cells.parquet")
    report = export(truth.folder, out)
    assert "4 rows of cell_feature_matrix are of cells that cells.parquet does not have: left out" in report.warnings
    assert [text for text in report.warnings if "cells with a cluster are not in" in text]
    parts = {"cells": truth.cells[4:], "xy": truth.xy[4:], "rings": truth.rings[4:], "counts": truth.counts[4:]}
    parts["clusters"] = truth.clusters[4:]
    assert_lossless(out, Meant(truths.changed(truth, **parts)), images=False)


def test_cells_that_the_matrix_does_not_have(bundle, out):
    truth = bundle()
    path = truth.folder / "cell_feature_matrix" / "barcodes.tsv.gz"
    names = [f"x{k}" if k < 3 else cell for k, cell in enumerate(truth.cells)]
    path.write_bytes(gzip.compress(("\n".join(names) + "\n").encode()))
    report = export(truth.folder, out)
    assert [text for text in report.warnings if text.startswith("3 rows of cell_feature_matrix")]
    found = Written(out)
    lacking = {found.cells[0].index(cell) for cell in truth.cells[:3]}
    assert not lacking & {int(cell) for cells, _ in found.counts.values() for cell in cells}
    assert sum(values.sum() for _, values in found.counts.values()) == truth.counts[3:].sum()


def test_matrix_rows_that_repeat(bundle, target):
    truth = bundle()
    path = truth.folder / "cell_feature_matrix" / "barcodes.tsv.gz"
    path.write_bytes(gzip.compress(("\n".join([truth.cells[0], *truth.cells[:-1]]) + "\n").encode()))
    refused(truth.folder, target, "cell_feature_matrix", "more than once")


def test_clusters_of_unknown_cells_and_of_none(bundle, out):
    truth = bundle()
    rows = [f"{cell},{k % 2 + 1}" for k, cell in enumerate(truth.cells[:9])]
    (truth.folder / CLUSTERS).write_text("\n".join(["Barcode,Cluster", "nobody,1", "no one,7", *rows]) + "\n")
    report = export(truth.folder, out)
    assert "2 cells with a cluster are not in cells.parquet: left out" in report.warnings
    labels = [str(k % 2 + 1) if k < 9 else None for k in range(12)]
    assert_lossless(out, Meant(truths.changed(truth, clusters=labels)), images=False)


def test_a_cell_in_several_clusters(bundle, target):
    truth = bundle()
    with (truth.folder / CLUSTERS).open("a") as file:
        file.write(f"{truth.cells[0]},1\n{truth.cells[0]},2\n")
    refused(truth.folder, target, "clusters.csv", truth.cells[0])


def test_clusters_of_nobody(bundle, out):
    """Not a single name fits: another column, or another spelling."""
    truth = bundle()
    (truth.folder / CLUSTERS).write_text("Barcode,Cluster\nnobody,1\n")
    with pytest.raises(InputError, match=r"clusters.csv: names no cell of cells.parquet: it has 'nobody'"):
        export(truth.folder, out)


def test_outlines_of_nobody(bundle, out):
    truth = bundle()
    truths.put_outlines(truth, truth.rings, [f"other{k}" for k in range(len(truth.rings))])
    with pytest.raises(InputError, match=r"none of 12 outlines is of a cell of cells.parquet, such as 'other0'"):
        export(truth.folder, out)


def test_names_that_hash_alike(bundle, out, monkeypatch):
    """Cells are looked up by a hash; names that share one are told apart."""
    truth = bundle()
    monkeypatch.setattr("atlaswriter.formats.landscape.cells._hashes", lambda names: np.zeros(len(names), np.uint64))
    export(truth.folder, out)
    assert sum(values.sum() for _, values in Written(out).counts.values()) == truth.counts.sum()


def test_labels_like_columns(bundle, out):
    """Clusters may be called anything."""
    truth = bundle()
    odd = ["NA", "nan", "a/b", "cluster", "__index_level_0__x", " "]
    labels = [odd[k % len(odd)] for k in range(12)]
    rows = [f"{cell},{label}" for cell, label in zip(truth.cells, labels, strict=True)]
    (truth.folder / CLUSTERS).write_text("\n".join(["Barcode,Cluster", *rows]) + "\n")
    export(truth.folder, out)
    assert_lossless(out, Meant(truths.changed(truth, clusters=labels)), images=False)


@pytest.mark.parametrize("row_groups", [False, True])
def test_only_dapi(row_groups, bundle, out):
    truth = bundle(channels=1)
    export(truth.folder, out, row_groups=row_groups)
    assert [info["name"] for info in Written(out).parameters["image_info"]] == ["dapi"]
    assert aw.check(out).ok


def test_five_channels(bundle, out):
    truth = bundle(channels=5)
    export(truth.folder, out)
    names = [info["name"] for info in Written(out).parameters["image_info"]]
    assert names[:4] == ["dapi", "bound", "rna", "prot"]
    assert len(set(names)) == 5


def test_a_channel_without_a_single_photon(bundle, out):
    truth = bundle(channels=2)
    truth.pixels[1] = 0
    shutil.rmtree(truth.folder / "morphology_focus")
    _write_images(truth, "3", "multi", "zlib", 1)
    export(truth.folder, out)
    assert not any(level.any() for level in Written(out).image("bound"))


# --- counts


def atlas(matrix, **given):
    n_cells, n_genes = matrix.shape
    adata = ad.AnnData(matrix, obs=pd.DataFrame(index=[f"c{k}" for k in range(n_cells)]), **given)
    adata.var_names = [f"g{k}" for k in range(n_genes)]
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (n_cells, 2))
    return adata


FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row_groups", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_counts_that_are_none(bad, form, row_groups, workers, target):
    matrix = np.random.default_rng(0).poisson(1, (30, 6)).astype(np.float32)
    matrix[7, 3] = bad
    refused(atlas(FORMS[form](matrix)), target, "'g3'", row_groups=row_groups, workers=workers)


@pytest.mark.parametrize("form", FORMS)
def test_counts_of_any_size_stay(form, tmp_path):
    """Whole numbers beyond those that float32 holds one by one."""
    matrix = np.random.default_rng(0).poisson(1, (30, 6)).astype(np.float64)
    matrix[7, 3], matrix[8, 3], matrix[9, 3] = 2**24 + 1, 70_000, 2**31 + 1
    try:
        export(atlas(FORMS[form](matrix)), tmp_path / "out")
    except InputError as error:
        if "g3" not in str(error):
            raise
        return
    cells, values = Written(tmp_path / "out").counts["g3"]
    order = sorted(range(30), key=lambda k: f"c{k}")
    assert dict(zip([order[cell] for cell in cells], values.tolist(), strict=True)) == {
        k: matrix[k, 3] for k in range(30) if matrix[k, 3]
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row_groups", [False, True])
def test_values_that_are_not_whole_stay(form, row_groups, tmp_path):
    matrix = (np.random.default_rng(0).poisson(1, (30, 6)) * 0.37).astype(np.float32)
    export(atlas(FORMS[form](matrix)), tmp_path / "out", row_groups=row_groups)
    found = Written(tmp_path / "out")
    order = sorted(range(30), key=lambda k: f"c{k}")
    for gene in range(6):
        cells, values = found.counts[f"g{gene}"]
        dense = np.zeros(30, np.float32)
        dense[cells] = values
        np.testing.assert_array_equal(dense, matrix[order, gene])


def test_negative_counts_in_a_matrix_market_file(bundle, target):
    truth = bundle()
    path = truth.folder / "cell_feature_matrix" / "matrix.mtx.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[5] = " ".join([*lines[5].split()[:2], "-3"])
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    refused(truth.folder, target, "cell_feature_matrix")


def test_a_matrix_without_any_count(bundle, out):
    truth = bundle()
    truth.counts[...] = 0
    shutil.rmtree(truth.folder / "cell_feature_matrix")
    _write_matrix(truth, "mex", np.zeros((12, 2), "<u4"))
    for row_groups in (False, True):
        export(truth.folder, out, row_groups=row_groups, force=True)
        found = Written(out)
        assert found.counts == {}
        assert len(found.genes) == len(truth.features)
        assert aw.check(out).ok, aw.check(out)
