"""Count matrices of 10x Genomics: one matrix in every form, and forms that are wrong."""

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from tests.bundles import make_bundle
from tests.unit.test_outlines import write_zarr

from atlaswriter.errors import InputError
from atlaswriter.sources import csvtable, tenx, zarrzip
from atlaswriter.sources.lazy import check_inside, load
from atlaswriter.sources.tenx import open_counts
from atlaswriter.sources.zarrzip import ZarrZip

ODD = ("NA", "nan", "β-catenin", "HLA-DRA", 'a"b', "x y", "HLA-DRA")
BANNER = "%%MatrixMarket matrix coordinate integer general\n"
FORMS = {
    "h5": ({"matrix": "h5"}, "cell_feature_matrix.h5"),
    "zarr": ({"matrix": "zarr"}, "cell_feature_matrix.zarr.zip"),
    "mex": ({"matrix": "mex"}, "cell_feature_matrix"),
    "tar": ({"matrix": "mex", "tar": True}, "cell_feature_matrix.tar.gz"),
}


def dense(counts):
    matrix = counts.matrix
    kind = (sparse.csr_array, sparse.csc_array)[matrix.axis]
    indices = load(matrix.indices)
    check_inside(indices, matrix)
    return kind((load(matrix.data), indices, load(matrix.indptr)), shape=matrix.shape).toarray()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, form):
    options, name = FORMS[form]
    truth = make_bundle(tmp_path / "a", names=ODD, layout="none", **options)
    counts, close = open_counts(tmp_path / "a" / name, "here", 2)
    np.testing.assert_array_equal(dense(counts), truth.counts)
    assert counts.matrix.axis == (form == "zarr")
    assert counts.cells.to_pylist() == truth.cells
    assert counts.features == truth.features
    assert counts.types == truth.types
    assert counts.where == "here"
    close()


def write_mex(folder, matrix, *, cells="ab", features="xyz", types="\tGene Expression", packed=False, old=False):
    folder.mkdir()
    names = {
        "matrix.mtx": matrix,
        "barcodes.tsv": "".join(f"{cell}\n" for cell in cells),
        "genes.tsv" if old else "features.tsv": "".join(f"ENSG{name}\t{name}{types}\n" for name in features),
    }
    for name, content in names.items():
        if packed:
            with gzip.open(folder / f"{name}.gz", "wt") as file:
                file.write(content)
        else:
            (folder / name).write_text(content)
    return folder


@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(-5, 2**31 - 1)), max_size=30),
    block=st.integers(8, 100),
    packed=st.booleans(),
)
def test_entries_in_any_order(tmp_path_factory, entries, block, packed):
    lines = "".join(f"{feature + 1} {cell + 1} {value}\n" for feature, cell, value in entries)
    folder = tmp_path_factory.mktemp("mex") / "a"
    write_mex(folder, f"{BANNER}%\n% note\n4 5 {len(entries)}\n{lines}", cells="abcde", features="wxyz", packed=packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvtable, "_BLOCK_BYTES", block)
        counts, _ = open_counts(folder)
    expected = np.zeros((5, 4), np.int64)
    for feature, cell, value in entries:
        expected[cell, feature] += value
    matrix = counts.matrix
    assert matrix.data.dtype == np.int32
    found = sparse.csr_array((matrix.data.astype(np.int64), matrix.indices, matrix.indptr), shape=(5, 4)).toarray()
    np.testing.assert_array_equal(found, expected)


def test_of_cell_ranger_2_and_real_and_pattern(tmp_path):
    old = write_mex(tmp_path / "a", f"{BANNER}3 2 1\n3 2 7\n", types="", old=True)
    counts, _ = open_counts(old)
    assert counts.features == ["x", "y", "z"]
    assert counts.types is None
    np.testing.assert_array_equal(dense(counts), [[0, 0, 0], [0, 0, 7]])
    real = write_mex(tmp_path / "b", f"{BANNER.replace('integer', 'real')}3 2 2\n3 2 0.5\n1 1 1e-3\n")
    np.testing.assert_array_equal(dense(open_counts(real)[0]), [[1e-3, 0, 0], [0, 0, 0.5]])
    pattern = write_mex(tmp_path / "c", f"{BANNER.replace('integer', 'pattern')}3 2 2\n3 2\n1 1\n")
    np.testing.assert_array_equal(dense(open_counts(pattern)[0]), [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ("", "does not begin"),
        (BANNER.replace("coordinate", "array") + "3 2 0\n", "does not begin"),
        (BANNER.replace("general", "symmetric") + "3 2 0\n", "does not begin"),
        (BANNER, "matrix.mtx"),
        (BANNER + "3 2\n", "matrix.mtx"),
        (BANNER + "3 2 1\n4 1 1\n", "row 4 of 3"),
        (BANNER + "3 2 1\n1 3 1\n", "column 3 of 2"),
        (BANNER + "3 2 1\n0 1 1\n", "before the first"),
        (BANNER + "3 2 1\n-9 1 1\n", "before the first"),
        (BANNER + "3 2 2\n1 1 1\n", "1 entries where 2"),
        (BANNER + "3 2 1\n1 1 1\n2 1 1\n", "2 entries where 1"),
        (BANNER + "3 2 1\n1 1\n", "matrix.mtx"),
        (BANNER + "3 2 1\n1 1 0.5\n", "0.5"),
        (BANNER + "3 2 1\n1 1 \n", "matrix.mtx"),
        (BANNER + "3 2 1\n1 1 3000000000\n", "3000000000"),
        (BANNER + "2 2 0\n", "2 × 2, with 3 features and 2 cells"),
        (BANNER + "3 9999999999 0\n", "9,999,999,999"),
        (BANNER + "3 999999999 0\n", "3 × 999999999"),
    ],
)
def test_wrong_matrices(tmp_path, matrix, said):
    with pytest.raises(InputError, match="here") as error:
        open_counts(write_mex(tmp_path / "a", matrix), "here")
    assert said in str(error.value)


def test_files_that_are_missing_cut_short_or_there_twice(tmp_path):
    folder = write_mex(tmp_path / "a", BANNER + "3 2 1\n1 1 1\n")
    (folder / "barcodes.tsv").rename(folder / "other.tsv")
    with pytest.raises(InputError, match="holds no barcodes"):
        open_counts(folder)
    folder = write_mex(tmp_path / "b", BANNER + "3 2 1\n1 1 1\n", packed=True)
    content = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(content[:-12])
    with pytest.raises(InputError, match=r"matrix\.mtx\.gz"):
        open_counts(folder)
    folder = write_mex(tmp_path / "c", BANNER + "3 2 1\n1 1 1\n")
    (folder / "genes.tsv").write_text("x\n")
    with pytest.raises(InputError, match="features twice"):
        open_counts(folder)


def test_names_in_a_tar_lead_nowhere(tmp_path):
    folder = write_mex(tmp_path / "in", BANNER + "3 2 1\n1 1 7\n")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(f"../../{path.name}")
            info.size = path.stat().st_size
            file.addfile(info, io.BytesIO(path.read_bytes()))
        link = tarfile.TarInfo("barcodes.tsv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(dense(open_counts(tmp_path / "a.tar.gz")[0]), [[7, 0, 0], [0, 0, 0]])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("form", FORMS)
def test_barcodes_that_occur_twice(tmp_path, form, monkeypatch):
    options, name = FORMS[form]
    make_bundle(tmp_path / "a", layout="none", n_cells=5, **options)
    path = tmp_path / "a" / name
    counts, close = open_counts(path)
    twice = replace(counts, cells=counts.cells.take([0, 1, 2, 3, 3]))
    monkeypatch.setattr(tenx, "_counts", lambda *_: twice)
    with pytest.raises(InputError, match=r"here: 1 of 5 barcodes occur more than once"):
        open_counts(path, "here")
    close()


@pytest.mark.parametrize("form", ["h5", "zarr", "tar"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_files_that_are_cut_short(tmp_path, form, kept):
    options, name = FORMS[form]
    make_bundle(tmp_path / "a", layout="none", **options)
    path = tmp_path / "a" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match="here"):
        dense(open_counts(path, "here")[0])


def test_other_files(tmp_path):
    (tmp_path / "a").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="here"):
        open_counts(tmp_path / "a", "here")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["obs"] = [1]
    with pytest.raises(InputError, match="no group 'matrix'; it holds 'obs'"):
        open_counts(tmp_path / "b.h5")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(InputError, match="here"):
        open_counts(tmp_path / "c.zip", "here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["matrix/shape"].write_direct(np.array([9, 9], np.int32)), "9 × 9"),
        (lambda file: file["matrix/indptr"].write_direct(file["matrix/indptr"][:][::-1].copy()), "indptr"),
        (lambda file: file.pop("matrix/features/feature_type"), "feature_type"),
        (lambda file: file.move("matrix/data", "matrix/other"), "matrix/data"),
    ],
)
def test_wrong_hdf5(tmp_path, change, said):
    make_bundle(tmp_path / "a", layout="none", matrix="h5")
    with h5py.File(tmp_path / "a" / "cell_feature_matrix.h5", "r+") as file:
        change(file)
    with pytest.raises(InputError, match=said):
        open_counts(tmp_path / "a" / "cell_feature_matrix.h5")


def test_names_of_cells(tmp_path):
    ids = np.array([[0, 1], [0x0123ABCD, 2], [2**32 - 1, 1]], np.uint32)
    write_zarr(tmp_path / "a.zip", {"cell_id": ids, "first": np.array([3, 1], np.uint32)})
    with ZarrZip(tmp_path / "a.zip", "here") as store:
        assert store.cell_names().to_pylist() == ["aaaaaaaa-1", "abcdklmn-2", "pppppppp-1"]
        assert store.cell_names("first").to_pylist() == ["3", "1"]
        assert not store.has("second")


def test_zarr_that_claims_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(zarrzip, "_HARMLESS_BYTES", 10_000)
    described = {"compressor": None, "filters": None, "fill_value": 0, "order": "C", "zarr_format": 2, "dtype": "<u4"}
    for shape, chunks in (([10**9, 2], [100, 2]), ([2, 2], [10**9, 2])):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr(".zgroup", '{"zarr_format": 2}')
            file.writestr("cell_id/.zarray", json.dumps({**described, "shape": shape, "chunks": chunks}))
        with ZarrZip(tmp_path / "a.zip", "here") as store, pytest.raises(InputError, match=r"here/cell_id.*GiB"):
            store.cell_names()
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
        file.writestr("cell_id/0.0", bytes(10_000_000))
    with pytest.raises(InputError, match=r"here/cell_id/0\.0"):
        ZarrZip(tmp_path / "b.zip", "here")
