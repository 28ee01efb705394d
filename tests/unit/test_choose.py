"""What is found by name in an AnnData, and what the caller may say instead."""

import numpy as np
import pytest

from atlaswriter.errors import InputError
from atlaswriter.formats.cellucid import choose
from atlaswriter.formats.cellucid.selection import select, select_genes


def shapes(**columns):
    return {key: (10, number) for key, number in columns.items()}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (shapes(X_pca=50, X_umap=2), {2: "X_umap"}),
        (shapes(X_umap=3), {3: "X_umap"}),
        (shapes(X_umap_3d=3, X_umap_1d=1, X_umap_2d=2, X_umap=2), {1: "X_umap_1d", 2: "X_umap_2d", 3: "X_umap_3d"}),
        (shapes(X_umap=2, X_umap_3d=3), {2: "X_umap", 3: "X_umap_3d"}),
        (shapes(X_UMAP=2), {2: "X_UMAP"}),
        (shapes(umap=2), {2: "umap"}),
        (shapes(X_umap_2d=3, X_umap=3), {3: "X_umap"}),
        (shapes(X_pca=50, X_tsne=2), {2: "X_tsne"}),
        (shapes(X_tsne=2, X_umap=2), {2: "X_umap"}),
        (shapes(X_diffmap=3, X_tsne=2), {2: "X_tsne", 3: "X_diffmap"}),
        (shapes(spatial=2, X_pca=50), {2: "spatial"}),
        (shapes(X_pca=2), {2: "X_pca"}),
    ],
)
def test_embeddings_are_found(found, expected):
    assert choose.embeddings(found, None) == expected


@pytest.mark.parametrize("found", [{}, shapes(X_pca=50), {"X_umap": (10,)}])
def test_no_embedding_is_refused_with_what_is_there(found):
    with pytest.raises(InputError) as caught:
        choose.embeddings(found, None)
    for key in found:
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["X_tsne"], {2: "X_tsne"}),
        (["c", "X_tsne"], {2: "X_tsne", 3: "c"}),
        ({"2d": "X_tsne", "3": "c"}, {2: "X_tsne", 3: "c"}),
        ({2: "X_tsne"}, {2: "X_tsne"}),
        ({"4D": "four"}, {4: "four"}),
    ],
)
def test_embeddings_by_name(chosen, expected):
    assert choose.embeddings(shapes(X_tsne=2, c=3, four=4, X_umap=2), chosen) == expected


@pytest.mark.parametrize(
    ("chosen", "word"),
    [
        (["nope"], "'nope' does not exist"),
        ("X_umap", "single text"),
        (["X_umap", "X_tsne"], "both 2D"),
        (["X_umap", "X_umap"], "both 2D"),
        ({"2d": "X_umap", "2": "X_tsne"}, "both 2D"),
        ({"3d": "X_umap"}, "'X_umap' has 2 columns"),
        ({"5d": "X_pca"}, "not a dimension"),
        ({"x": "X_pca"}, "not a dimension"),
        (["X_pca"], "50 columns"),
    ],
)
def test_wrong_embeddings(chosen, word):
    with pytest.raises(InputError, match=word):
        choose.embeddings(shapes(X_umap=2, X_tsne=2, X_pca=50), chosen)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (shapes(X_pca=50, X_scVI=10), "X_scVI"),
        (shapes(X_scVI=10, X_scANVI=10), "X_scANVI"),
        (shapes(X_pca=50, X_pca_harmony=50), "X_pca_harmony"),
        (shapes(X_umap=2, X_pca=50), "X_pca"),
        (shapes(X_umap=2), None),
    ],
)
def test_latent_space(found, expected):
    assert choose.latent(found, None) == expected
    assert choose.latent(found, False) is None
    assert choose.latent(found, next(iter(found))) == next(iter(found))
    with pytest.raises(InputError, match="latent"):
        choose.latent(found, "nope")


@pytest.mark.parametrize(
    ("key", "columns", "embedding", "expected"),
    [
        ("velocity_umap", 2, "X_umap", True),
        ("T_fwd_umap", 2, "X_umap", True),
        ("velocity_umap_2d", 2, "X_umap_2d", True),
        ("velocity_umap_3d", 3, "X_umap_3d", True),
        ("T_fwd_umap_2d", 2, "X_umap", True),
        ("velocity_UMAP", 2, "X_umap", True),
        ("velocity_tsne", 2, "X_tsne", True),
        ("velocity_tsne", 2, "X_umap", False),
        ("velocity_umap", 30, "X_umap", False),
        ("X_velocity_umap", 2, "X_umap", False),
        ("umap", 2, "X_umap", False),
        ("X_pca", 2, "X_umap", False),
    ],
)
def test_vector_fields_are_found(key, columns, embedding, expected):
    found = choose.vectors({embedding: (10, 2), key: (10, columns)}, None, [embedding])
    assert found == ([key] if expected else [])


def test_vector_fields_by_name():
    known = shapes(X_umap=2, a=2, b=3)
    assert choose.vectors(known, ["b", "a", "b"], ["X_umap"]) == ["b", "a"]
    assert choose.vectors(known, False, ["X_umap"]) == []
    for wrong in ("a", True, ["nope"]):
        with pytest.raises(InputError, match="vector_fields"):
            choose.vectors(known, wrong, ["X_umap"])


def test_graph():
    assert choose.graph(["distances", "connectivities"], None) == "connectivities"
    assert choose.graph(["distances"], None) is None
    assert choose.graph(["distances"], "distances") == "distances"
    assert choose.graph(["connectivities"], False) is None
    with pytest.raises(InputError, match="graph: 'nope' does not exist"):
        choose.graph(["distances"], "nope")


def test_selection_keeps_the_order():
    assert select(["b", "a"], ["a", "b", "c"], "obs", "columns") == ["b", "a"]
    assert select((), ["a"], "obs", "columns") == []


def test_selection_names_everything_wrong_at_once():
    with pytest.raises(InputError) as caught:
        select(["x", "a", "a", "y"], ["a", "b"], "obs", "columns")
    assert len(caught.value.problems) == 2
    for part in ("'x', 'y'", "'a'", "'a', 'b'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("wrong", ["a", 5, None, True])
def test_selection_must_be_a_list(wrong):
    with pytest.raises(InputError, match="list of names"):
        select(wrong, ["a"], "obs", "columns")


def test_genes():
    names = ["a", "b", "c", "b"]
    ids, columns = select_genes(names, None, "genes")
    assert (ids, columns.tolist()) == (names, [0, 1, 2, 3])
    ids, columns = select_genes(names, np.array(["c", "a"]), "genes")
    assert (ids, columns.tolist(), columns.dtype) == (["c", "a"], [2, 0], np.int64)
    with pytest.raises(InputError, match="several genes have the name: 'b'"):
        select_genes(names, ["b"], "genes")
    ids, columns = select_genes(names, [], "genes")
    assert (ids, columns.tolist()) == ([], [])
