"""Files that are missing, damaged, of another format, or made to mislead."""

import contextlib
import gzip
import json
import random
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from atlaswriter.errors import InputError
from atlaswriter.sources import lazy, parts
from atlaswriter.sources.base import Compressed, row_blocks
from atlaswriter.sources.open import open_source

# zarr 2 knows no other format.
V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}


def sparse(rng, rows, columns):
    return sp.csr_matrix(rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.2))


def example():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b"] * 50), "flag": [True, False] * 50, "size": rng.random(100)})
    obs.index = [f"c{i}" for i in range(100)]
    adata = anndata.AnnData(sparse(rng, 100, 20), obs)
    adata.layers["dense"] = rng.random((100, 20))
    adata.obsm["X_umap"] = rng.random((100, 2))
    adata.obsp["connectivities"] = sparse(rng, 100, 100)
    return adata


@pytest.fixture
def h5ad(tmp_path):
    path = tmp_path / "a.h5ad"
    example().write_h5ad(path, compression="gzip")
    return path


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "a.zarr"
    anndata.io.write_elem(zarr.open_group(str(path), mode="w", **V2), "/", example())
    return path


def read_all(path):
    source = open_source(path, workers=2)
    try:
        source.gene_names()
        source.expression()
        for name in source.obs_columns():
            source.obs(name)
        for name in source.layers():
            source.expression(layer=name)
        for name in source.obsm():
            source.obsm_array(name)
        for name in source.obsp():
            source.obsp_matrix(name)
    finally:
        source.close()


def read_in_blocks(path):
    """Every number that `read_all` leaves on disk."""
    source = open_source(path, workers=2)
    try:
        matrices = [source.expression(), *(source.expression(layer=name) for name in source.layers())]
        matrices += [*map(source.obsp_matrix, source.obsp()), *map(source.obsm_array, source.obsm())]
        columns = [source.obs(name) for name in source.obs_columns()]
        arrays = [column.values if hasattr(column, "values") else column.codes for column in columns]
        for matrix in filter(lambda matrix: matrix is not None, matrices):
            compressed = isinstance(matrix, Compressed)
            arrays += [matrix.indptr, matrix.indices, matrix.data] if compressed else [matrix]
        for array in arrays:
            for _ in row_blocks(array, 33):
                pass
    finally:
        source.close()


@pytest.fixture
def nothing_small(monkeypatch):
    """As if every array were too large to be read at once."""
    for module in (lazy, parts):
        monkeypatch.setattr(module, "SMALL_BYTES", -1)


def refused(path, *found):
    with pytest.raises(InputError) as caught:
        read_all(path)
    message = str(caught.value)
    for part in found:
        assert part in message
    assert all(problem.remedy for problem in caught.value.problems)
    return message


# Not AnnData at all


def test_no_such_file(tmp_path):
    refused(tmp_path / "no.h5ad", "no.h5ad", "there is no such file")


def test_folder_without_a_store(tmp_path):
    refused(tmp_path, "is a folder but no Zarr store")


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "is empty"), (b"some text, not data", "neither an HDF5"), (gzip.compress(b"x", mtime=0), "unpack it first")],
)
def test_other_content_under_the_usual_name(tmp_path, content, found):
    path = tmp_path / "a.h5ad"
    path.write_bytes(content)
    refused(path, found)


def test_zip_that_is_no_store(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("hello")
    refused(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "folder"), "cannot be read")


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        (["mod/rna"], "MuData"),
        (["matrix/barcodes"], "10x Genomics"),
        (["row_attrs", "col_attrs", "layers"], "loom"),
        (["obs", "X"], "has no var"),
        (["something"], "it holds 'something'"),
        ([], "it holds nothing"),
    ],
)
def test_other_formats_are_recognised(tmp_path, groups, kind):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for group in groups:
            file.create_group(group)
    refused(tmp_path / "a.h5", kind)


def test_spatialdata_is_recognised(tmp_path):
    root = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", **V2)
    for name in ("tables", "points"):
        root.create_group(name)
    refused(tmp_path / "s.zarr", "SpatialData", "tables/table")


def test_file_being_written(h5ad):
    fcntl = pytest.importorskip("fcntl")
    with h5ad.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(h5ad, "is being written by another program")


def test_unreadable_file(h5ad, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(h5ad), "open", denied)
    refused(h5ad, "cannot be opened (Permission denied)")


# Damaged


@pytest.mark.parametrize("kept", [9, 100, 0.3, 0.9, -1])
def test_truncated_file(h5ad, kept):
    content = h5ad.read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    h5ad.write_bytes(content[:size])
    refused(h5ad, "a.h5ad", "cannot be read")


@pytest.mark.parametrize(
    "name", ["X/data", "X/indices", "X/indptr", "layers/dense", "obs/size", "obs/type/codes", "obsm/X_umap"]
)
@pytest.mark.parametrize("how", ["flip", "zero"])
def test_damaged_chunk_names_the_dataset(h5ad, name, how):
    with h5py.File(h5ad) as file:
        chunk = file[name].id.get_chunk_info(0)
    content = bytearray(h5ad.read_bytes())
    part = slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
    content[part] = bytes(chunk.size) if how == "zero" else bytes(255 - byte for byte in content[part])
    h5ad.write_bytes(content)
    refused(h5ad, name, "cannot be read", "copy or write it again")


@pytest.mark.parametrize("name", ["X", "var", "obs/size", "obs/type/codes", "obs/_index", "X/indptr", "var/_index"])
def test_missing_part(h5ad, name):
    with h5py.File(h5ad, "r+") as file:
        del file[name]
    if name == "X":
        read_all(h5ad)  # AnnData without X
    else:
        refused(h5ad, name.partition("/")[0])


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("obs/size", np.ones(99), "obs['size']: has 99 values for 100 rows"),
        ("obs/size", np.ones((100, 2)), "obs['size']: obs/size has shape (100, 2)"),
        ("obs/size", np.array(1.0), "is no column"),
        ("obs/size", np.ones(100, complex), "obs['size']: values of dtype complex128"),
        ("obs/size", np.ones(100, "i4,f4"), "obs['size']"),
        ("obs/type/codes", np.full(100, 2, "i1"), "codes go from 2 to 2 with 2 categories"),
        ("obs/type/codes", np.full(100, -2, "i1"), "codes go from -2"),
        ("obs/type/codes", np.zeros(100), "codes have dtype float64"),
        ("obs/type/codes", np.zeros(7, "i1"), "obs['type']: has 7 values"),
        ("obsm/X_umap", np.ones((99, 2)), "obsm['X_umap']: has shape (99, 2) where 100 × any is needed"),
        ("layers/dense", np.ones((20, 100)), "layers['dense']: has shape (20, 100) where 100 × 20"),
        ("layers/dense", np.array([["a"] * 20] * 100, "S1"), "layers['dense']: values of dtype |S1"),
        ("X", np.ones((100, 19)), "X: has shape (100, 19) where 100 × 20"),
        ("X/data", np.ones((3, 2)), "X: damaged sparse matrix"),
        ("X/data", np.array(["a"], object), "X: values of dtype object"),
        ("X/indices", np.ones((3, 2), int), "indices is 2-dimensional"),
        ("X/indptr", np.zeros(100, int), "indptr has 100 entries where 101"),
    ],
)
def test_parts_of_the_wrong_shape_or_type(h5ad, name, values, found):
    with h5py.File(h5ad, "r+") as file:
        attributes = dict(file[name].attrs) if "/" in name else {}
        del file[name]
        if values.dtype == object:
            values = values.astype(h5py.string_dtype())
        file[name] = values
        file[name].attrs.update({key: value for key, value in attributes.items() if "encoding" in key})
    refused(h5ad, found)


@pytest.mark.parametrize(
    ("place", "attribute", "value"),
    [
        ("X", "shape", [100, 21]),
        ("X", "shape", "wide"),
        ("X", "shape", [100]),
        ("X", "shape", None),
        ("X", "encoding-type", "csr_matrix_of_the_future"),
        ("X", "encoding-version", "9.9"),
        ("X", "encoding-type", "array"),
        ("obs", "_index", None),
        ("obs", "_index", 7),
        ("obs", "_index", "X/../nowhere"),
        ("obs", "column-order", 7),
        ("obs", "column-order", ["type", "nowhere"]),
        ("obs/type", "encoding-type", "dict"),
        ("obs/type", "encoding-version", "9.9"),
    ],
)
def test_misleading_attributes(h5ad, place, attribute, value):
    with h5py.File(h5ad, "r+") as file:
        if value is None:
            del file[place].attrs[attribute]
        else:
            file[place].attrs[attribute] = value
    refused(h5ad)


def test_references_are_no_text(h5ad):
    with h5py.File(h5ad, "r+") as file:
        del file["obs/size"]
        file.create_dataset("obs/size", (100,), h5py.ref_dtype)
    refused(h5ad, "obs['size']: values of dtype object")


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_is_noticed_or_harmless(h5ad, seed):
    chance = random.Random(seed)
    content = bytearray(h5ad.read_bytes())
    for _ in range(chance.choice([1, 20, 300])):
        content[chance.randrange(8, len(content))] = chance.randrange(256)
    h5ad.write_bytes(content)
    with contextlib.suppress(InputError):
        read_all(h5ad)


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("seed", range(60))
def test_random_damage_of_what_is_read_in_blocks(h5ad, seed):
    chance = random.Random(seed)
    content = bytearray(h5ad.read_bytes())
    for _ in range(chance.choice([1, 20, 300])):
        content[chance.randrange(8, len(content))] = chance.randrange(256)
    h5ad.write_bytes(content)
    with contextlib.suppress(InputError):
        read_in_blocks(h5ad)


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("name", ["X/data", "X/indices", "layers/dense", "obs/size", "obsm/X_umap"])
def test_damaged_chunks_are_found_where_they_are_read(h5ad, name):
    with h5py.File(h5ad) as file:
        chunk = file[name].id.get_chunk_info(0)
    content = bytearray(h5ad.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    h5ad.write_bytes(content)
    read_all(h5ad)
    with pytest.raises(InputError, match=f"{name}: cannot be read from .*copy or write it again"):
        read_in_blocks(h5ad)


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("change", [{0: 1}, {50: 10**6}, {50: -1}, {100: 3}, {100: 10**6}])
def test_offsets_that_lie_are_found_at_opening(h5ad, change):
    with h5py.File(h5ad, "r+") as file:
        for place, value in change.items():
            file["X/indptr"][place] = value
    refused(h5ad, "X: damaged sparse matrix: indptr", "write it again from its source")


def test_older_layout_that_anndata_cannot_read(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["obs"] = np.zeros(3)
        file["var"] = np.zeros(3)
    refused(tmp_path / "a.h5ad", "older AnnData layout")


# Zarr


def test_damaged_zarr_chunk(store):
    (store / "layers" / "dense" / "0.0").write_bytes(b"garbage")
    refused(store, "layers/dense", "cannot be read")


@pytest.mark.parametrize("name", [".zgroup", "obs/.zattrs", "X/.zattrs", "X/data/.zarray"])
def test_damaged_zarr_metadata(store, name):
    (store / name).write_text("{ not json")
    refused(store)


def test_missing_zarr_parts(store):
    shutil.rmtree(store / "obs" / "size")
    refused(store, "obs/size", "is missing")


def test_truncated_zip(store, tmp_path):
    path = tmp_path / "a.zarr.zip"
    shutil.move(shutil.make_archive(str(tmp_path / "z"), "zip", store), path)
    read_all(path)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "a.zarr.zip")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a program hidden in the file was run",))


def spoil_with_pickle(array):
    metadata = json.loads((array / ".zarray").read_text())
    metadata.update(filters=[{"id": "pickle", "protocol": 5}], compressor=None)
    (array / ".zarray").write_text(json.dumps(metadata))
    import pickle

    chunk = next(path for path in array.iterdir() if path.name[0].isdigit())
    chunk.write_bytes(pickle.dumps(Bomb()))


def test_pickled_zarr_arrays_are_refused(store):
    spoil_with_pickle(store / "obs" / "size")
    refused(store, "obs/size", "pickle")


def test_pickled_arrays_in_older_stores_are_refused(store):
    spoil_with_pickle(store / "obs" / "size")
    attributes = json.loads((store / "obs" / ".zattrs").read_text())
    (store / "obs" / ".zattrs").write_text(json.dumps(attributes | {"encoding-version": "0.1.0"}))
    refused(store, "obs", "pickle")


# Data from elsewhere


@pytest.fixture
def secret(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(100.0)
    (tmp_path / "secret.bin").write_bytes(bytes(800))
    return tmp_path


def plant(file, secret, kind):
    del file["obs/size"]
    if kind == "link":
        file["obs/size"] = h5py.ExternalLink(str(secret / "secret.h5"), "x")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((100,), "f8")
        layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), "x", (100,))
        file.create_virtual_dataset("obs/size", layout)
    else:
        file["obs"].create_dataset("size", (100,), "f8", external=[(str(secret / "secret.bin"), 0, 800)])


@pytest.mark.parametrize("layout", ["current", "older"])
@pytest.mark.parametrize("kind", ["link", "virtual", "external"])
def test_data_of_other_files_is_not_read(h5ad, secret, kind, layout):
    with h5py.File(h5ad, "r+") as file:
        plant(file, secret, kind)
        if layout == "older":
            file["obs"].attrs["encoding-version"] = "0.1.0"
    refused(h5ad, "obs/size", "lies in another file")


def test_soft_links_stay_inside(h5ad):
    with h5py.File(h5ad, "r+") as file:
        file.move("obs/size", "elsewhere")
        file["obs/size"] = h5py.SoftLink("/elsewhere")
    read_all(h5ad)
    with h5py.File(h5ad, "r+") as file:
        del file["obs/flag"]
        file["obs/flag"] = h5py.SoftLink("/obs/flag")
    refused(h5ad, "obs/flag")
