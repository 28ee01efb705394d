"""The demo atlas is the same every time and looks right; its command leaves all or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest

import atlaswriter
from atlaswriter import demo
from atlaswriter.cli.main import run
from atlaswriter.demo import demo_atlas
from atlaswriter.errors import InputError, OutputError
from atlaswriter.findings import CheckResult, Finding
from atlaswriter.formats.cellucid import check as check_module
from atlaswriter.formats.cellucid import convert
from atlaswriter.names import safe_name

SMALL = ["--cells", "2000", "--genes", "200"]


@pytest.fixture(scope="module")
def atlas():
    return demo_atlas(2000, 200)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_same_numbers_same_atlas(atlas):
    again, other = demo_atlas(2000, 200), demo_atlas(2000, 200, seed=1)
    assert (again.X != atlas.X).nnz == 0
    assert (again.obsp["connectivities"] != atlas.obsp["connectivities"]).nnz == 0
    assert again.obs.equals(atlas.obs)
    for key in atlas.obsm:
        np.testing.assert_array_equal(again.obsm[key], atlas.obsm[key])
    assert (other.X != atlas.X).nnz > 0


def test_expression_is_sparse_and_normalised(atlas):
    assert atlas.X.dtype == np.float32
    assert 0.05 < atlas.X.nnz / np.prod(atlas.shape) < 0.09
    assert atlas.X.has_canonical_format
    assert np.array_equal(atlas.obs["n_genes"], np.diff(atlas.X.indptr))
    assert (atlas.obs["n_counts"] == 0).mean() < 0.01
    per_cell = np.asarray(np.expm1(atlas.X).sum(axis=1))[atlas.obs["n_counts"] > 0]
    assert np.ptp(per_cell) < 1e-3 * per_cell.mean()


@pytest.mark.parametrize(
    ("gene", "types"),
    [
        ("CD3E", {"CD4 T", "CD8 T"}),
        ("MS4A1", {"B"}),
        ("NKG7", {"CD8 T", "NK"}),
        ("LYZ", {"Monocyte", "Macrophage", "DC"}),
        ("EPCAM", {"Basal", "Secretory", "Ciliated"}),
    ],
)
def test_markers_mark_their_types(atlas, gene, types):
    values = atlas[:, gene].X.toarray().ravel()
    inside = atlas.obs["cell_type"].isin(types) & ~atlas.obs["is_doublet"]
    assert values[inside].mean() > 8 * values[~inside].mean()
    assert set(atlas.var.loc[gene, "marker_of"].split(", ")) == types


def test_genes_have_plain_distinct_names():
    genes = demo_atlas(200, 3000).var_names
    assert genes.is_unique
    assert len({safe_name(gene).lower() for gene in genes}) == 3000


def test_pseudotime_and_velocity_follow_the_trajectories(atlas):
    on_trajectory = (
        atlas.obs["cell_type"].isin(["HSPC", "Monocyte", "Macrophage", "Basal", "Secretory", "Ciliated"]).to_numpy()
    )
    pseudotime = atlas.obs["pseudotime"].to_numpy()
    assert np.array_equal(np.isfinite(pseudotime), on_trajectory)
    assert np.nanmin(pseudotime) >= 0
    assert np.nanmax(pseudotime) <= 1
    speed = np.linalg.norm(atlas.obsm["velocity_umap_3d"], axis=1)
    assert speed[on_trajectory].mean() > 5 * speed[~on_trajectory].mean()


def test_neighbours_are_mutual_and_of_one_kind(atlas):
    graph = atlas.obsp["connectivities"]
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert np.diff(graph.indptr).min() >= demo.NEIGHBORS
    rows, columns = graph.nonzero()
    types = atlas.obs["cell_type"].cat.codes.to_numpy()
    assert (types[rows] == types[columns]).mean() > 0.75


def test_too_small_atlases_are_refused_at_once():
    with pytest.raises(InputError) as refusal:
        demo_atlas(99, 19)
    assert [problem.where for problem in refusal.value.problems] == ["n_cells", "n_genes"]


def test_command_writes_checks_and_says_where(home, capsys):
    assert run(["demo", *SMALL]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    folder = home / "atlaswriter-demo"
    assert names_in(folder) == ["demo.h5ad", "export"]
    assert names_in(home) == ["atlaswriter-demo"]
    for text in ("atlaswriter-demo/demo.h5ad", "ok: ", "open_export('atlaswriter-demo/export')", "cellucid serve"):
        assert text in shown.err
    export = atlaswriter.open_export(folder / "export")
    stored = anndata.read_h5ad(folder / "demo.h5ad")
    assert export.n_cells == stored.n_obs == 2000
    np.testing.assert_allclose(export.gene("CD3E"), stored[:, "CD3E"].X.toarray().ravel(), atol=0.01)
    assert atlaswriter.check(folder / "export").ok


def test_everything_a_viewer_can_show_is_exported(home, capsys):
    assert run(["demo", "out", *SMALL, "--json"]) == 0
    contents = json.loads(capsys.readouterr().out)["export"]["contents"]
    assert contents["embeddings"] == ["2D", "3D"]
    assert contents["latent space"] == "X_pca"
    assert contents["graph"] == "connectivities"
    assert contents["vector fields"] == ["velocity_umap"]


def test_json_is_one_object(home, capsys):
    assert run(["demo", "out", *SMALL, "--json", "-j", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert result["check"]["ok"] is True
    assert result["atlas"] == str(Path("out", "demo.h5ad"))
    assert result["export"]["contents"]["source"] == result["atlas"]
    assert result["export"]["contents"]["cells"] == 2000


def test_occupied_folder_is_refused_before_anything_is_made(home, monkeypatch, capsys):
    (home / "out").mkdir()
    (home / "out" / "notes.txt").write_text("mine")
    monkeypatch.setattr(demo, "demo_atlas", lambda *_: pytest.fail("made an atlas"))
    assert run(["demo", "out"]) == 3
    assert "not empty" in capsys.readouterr().err
    assert run(["demo", "out", "--force"]) == 3
    assert "notes.txt" in capsys.readouterr().err
    assert names_in(home / "out") == ["notes.txt"]


def test_force_replaces_a_demo(home):
    assert run(["demo", "out", *SMALL]) == 0
    assert run(["demo", "out", *SMALL]) == 3
    assert run(["demo", "out", "--cells", "300", "--genes", "50", "--force"]) == 0
    assert anndata.read_h5ad(home / "out" / "demo.h5ad").shape == (300, 50)
    assert atlaswriter.open_export(home / "out" / "export").n_cells == 300
    assert names_in(home / "out") == ["demo.h5ad", "export"]


@pytest.mark.parametrize("size", [["--cells", "99"], ["--genes", "19"]])
def test_too_small_demos_are_refused(home, size):
    assert run(["demo", *size]) == 3
    assert names_in(home) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutputError("no"), 5),
        (OSError(28, "No space left on device"), 5),
        (KeyboardInterrupt(), 130),
        (InputError([]), 3),
    ],
)
@pytest.mark.parametrize("where", ["write_h5ad", "cellucid"])
@pytest.mark.parametrize("existing", [False, True])
def test_failure_leaves_everything_as_it_was(home, monkeypatch, error, code, where, existing):
    if existing:
        assert run(["demo", "deep/out", "--cells", "300", "--genes", "50"]) == 0
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(*((anndata.AnnData, "write_h5ad") if where == "write_h5ad" else (convert, "cellucid")), fail)
    assert run(["demo", "deep/out", *SMALL, "--force"]) == code
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert names_in(home) == (["deep"] if existing else [])


def test_failed_check_is_told_by_the_exit_code(home, monkeypatch, capsys):
    broken = CheckResult("out/export", False, [Finding("error", "points.bad", "points_2d.bin.gz", "is bad", "mend it")])
    monkeypatch.setattr(check_module, "check", lambda *_args, **_options: broken)
    assert run(["demo", "out", *SMALL, "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["ok"] is False
    assert "NOT OK" in shown.err
