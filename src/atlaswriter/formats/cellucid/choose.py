"""Which entries of an AnnData are exported when the caller names none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.formats.cellucid.layout import DIMENSIONS, SHOWN_DIMENSIONS

Shapes = Mapping[str, tuple[int, ...]]

# Without a UMAP, the first of these with 3 and with 2 columns is taken; compared without case.
_OTHER_EMBEDDINGS = ("x_tsne", "x_phate", "x_draw_graph_fa", "x_draw_graph_fr", "x_diffmap", "x_spatial", "spatial")
# Integrated spaces first: distances in them are free of batch effects.
_LATENT = (
    "x_scanvi", "scanvi", "x_scvi", "scvi", "x_totalvi", "x_pca_harmony", "x_harmony", "harmony", "x_pca", "pca",
)  # fmt: skip
_DIMENSION = re.compile(r"([1-4])d?", re.IGNORECASE)


def _known(key: str, shapes: Shapes | Sequence[str], where: str) -> str:
    if key not in shapes:
        raise InputError(Problem(where, f"{key!r} does not exist", f"there are {listed(shapes) or 'none'}"))
    return key


def _columns(shapes: Shapes, key: str) -> int:
    shape = shapes[key]
    return shape[1] if len(shape) == 2 else 0


def embeddings(shapes: Shapes, chosen: Mapping[str, str] | Sequence[str] | None) -> dict[int, str]:
    """Dimension to obsm key, ascending.

    Parameters
    ----------
    shapes
        obsm keys with their shapes.
    chosen
        ``{"2d": key}``, or keys whose columns tell the dimension, or None to find them.
    """
    if chosen is None:
        found = _find_embeddings(shapes)
        if not found:
            remedy = f"name one with embeddings= (--embedding); obsm has {listed(shapes) or 'nothing'}"
            raise InputError(Problem("embeddings", "no 1D, 2D or 3D embedding was found", remedy))
        return found
    if isinstance(chosen, str):
        raise InputError(Problem("embeddings", "is a single text", 'pass a list of obsm keys or {"2d": key}'))
    if isinstance(chosen, Mapping):
        pairs = [(_dimension(name), key) for name, key in chosen.items()]
    else:
        pairs = [(_columns(shapes, _known(key, shapes, "embeddings")), key) for key in chosen]
    result: dict[int, str] = {}
    for dim, key in pairs:
        columns = _columns(shapes, _known(key, shapes, "embeddings"))
        if dim not in DIMENSIONS or columns != dim:
            raise InputError(Problem("embeddings", f"{key!r} has {columns} columns", "an embedding has 1 to 4"))
        if dim in result:
            raise InputError(Problem("embeddings", f"{result[dim]!r} and {key!r} are both {dim}D", "choose one"))
        result[dim] = key
    return dict(sorted(result.items()))


def _dimension(name: Any) -> int:
    match = _DIMENSION.fullmatch(str(name))
    if match is None:
        raise InputError(Problem("embeddings", f"{name!r} is not a dimension", "use '1d', '2d', '3d' or '4d'"))
    return int(match[1])


def _find_embeddings(shapes: Shapes) -> dict[int, str]:
    by_name = {key.lower(): key for key in reversed(list(shapes))}
    found: dict[int, str] = {}
    for dim in SHOWN_DIMENSIONS:
        for name in (f"x_umap_{dim}d", f"umap_{dim}d", "x_umap", "umap"):
            if name in by_name and _columns(shapes, by_name[name]) == dim:
                found.setdefault(dim, by_name[name])
    if found:
        return found
    plane = [key for key in shapes if _columns(shapes, key) in (2, 3) and key.lower().startswith("x_")]
    ordered = [by_name[name] for name in _OTHER_EMBEDDINGS if name in by_name] + plane
    for key in ordered:
        dim = _columns(shapes, key)
        if dim in (2, 3):
            found.setdefault(dim, key)
    return dict(sorted(found.items()))


def latent(shapes: Shapes, chosen: str | bool | None) -> str | None:
    """obsm key of the latent space, None for no such space."""
    if chosen is False:
        return None
    if chosen is not None:
        return _known(str(chosen), shapes, "latent")
    by_name = {key.lower(): key for key in reversed(list(shapes))}
    return next((by_name[name] for name in _LATENT if name in by_name), None)


def vectors(shapes: Shapes, chosen: Sequence[str] | bool | None, embedding_keys: Iterable[str]) -> list[str]:
    """obsm keys of vector fields; found ones are named after one of the embeddings: ``velocity_umap``."""
    if chosen is False:
        return []
    if chosen is not None:
        if isinstance(chosen, str | bool):
            raise InputError(Problem("vector_fields", f"is {chosen!r}", "pass a list of obsm keys, or False"))
        return [_known(key, shapes, "vector_fields") for key in dict.fromkeys(chosen)]
    bases = {_basis(key) for key in embedding_keys}
    return [
        key
        for key in shapes
        if _is_vectors(key, bases) and _columns(shapes, key) in SHOWN_DIMENSIONS and key not in embedding_keys
    ]


def _basis(key: str) -> str:
    """``umap`` for ``X_umap`` and ``X_umap_2d``."""
    return re.sub(r"^X_|_[1-4]d$", "", key, flags=re.IGNORECASE).lower()


def _is_vectors(key: str, bases: Collection[str]) -> bool:
    """Whether a key reads ``<field>_<basis>[_<dim>d]`` for one of the bases."""
    without_dimension = re.sub(r"_[123]d$", "", key, flags=re.IGNORECASE).lower()
    return not key.lower().startswith("x_") and any(
        without_dimension.endswith(f"_{basis}") and len(without_dimension) > len(basis) + 1 for basis in bases
    )


def graph(keys: Sequence[str], chosen: str | bool | None) -> str | None:
    """obsp key of the neighbour graph, None for no graph."""
    if chosen is False:
        return None
    if chosen is not None:
        return _known(str(chosen), keys, "graph")
    return "connectivities" if "connectivities" in keys else None
