"""What the files of an archive or folder are for, by their names: image, segmentation, what belongs to cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from atlaswriter.errors import InputError, Problem, listed

Role = Literal["images", "labels"]
How = Literal["one", "npz", "frames", "channels", "grid"]

# One kind of array: several files of it can be one movie.
_ARRAYS = re.compile(r"(?P<stem>.*?)(?:\.ome)?\.(?P<kind>npy|npz|tiff?|png)", re.IGNORECASE)
_KINDS = {"tif": "tiff"}
_OF_BATCH = re.compile(r".*batch_(\d{1,9})_feature_(\d{1,9})(?:\.ome)?\.tiff?", re.IGNORECASE)

# Names as DeepCell Label and deepcell-tracking spell them.
_IMAGE, _LABELS, _IMAGE_OF_TRK, _LABELS_OF_TRK = "X", "y", "raw.npy", "tracked.npy"
LINEAGE, LINEAGES, SPOTS = "lineage.json", "lineages.json", "spots.csv"
_MEMBERS = ("cells.json", "divisions.json", "cellTypes.json", "embeddings.json", LINEAGE, SPOTS)
# What an export says again.
_KNOWN_UNUSED = ("channels.json",)
_REQUESTS = {
    "edit.json": ("is an edit request", "give the project that it changes"),
    "dimensions.json": ("is an export request", "make a project of it with atlaswriter deepcell-export"),
}

_ARRAYS_WANTED = "TIFF, PNG, .npy or .npz files"
_ONE_ONLY = "keep one of them"


@dataclass(frozen=True)
class Part:
    """The files that make an image or a segmentation.

    Attributes
    ----------
    names
        Of the files; frames and channels in their order.
    how
        ``"one"`` file; an ``"npz"`` to look into; each a frame (``"frames"``) or a channel (``"channels"``); or
        ``"grid"``: one file for each frame and channel.
    places
        Of a grid: frame and channel of each file, as the names number them.
    """

    names: tuple[str, ...]
    how: How = "one"
    places: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Contents:
    """What an archive or folder holds.

    Attributes
    ----------
    images, labels
        The files of the image and the segmentation; None where there are none.
    members
        Names of the other files, by the names they have in a project; of several movies under `LINEAGES`.
    unused
        Names of the rest.
    """

    images: Part | None = None
    labels: Part | None = None
    members: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def contents(names: Sequence[str], role: Role, where: str, several: How = "channels") -> Contents:
    """What files are for.

    Parameters
    ----------
    names
        Of the files, with forward slashes, in their order.
    role
        What they were given as. A segmentation is found in both roles, an image among ``"images"`` only.
    where
        The archive or folder, for messages.
    several
        What several images without a telling name are.

    Returns
    -------
    Contents
        Rules: ``X`` and ``y`` of any kind (``raw.npy`` and ``tracked.npy`` of tracking archives) are image and
        segmentation. ``..._batch_<B>_feature_<F>.tiff`` are frame B of feature F of a segmentation. Otherwise, for the
        role: the only ``.npz``; the first of several ``.npy``; one image, or several, in natural order. A segmentation
        is never taken from ``X``, nor from the image.

    Raises
    ------
    InputError
        There is more than one candidate, or none.
    """
    plain = dict(zip(_without_common_folder(names), names, strict=True))
    arrays = {name: _of_kind(name) for name in plain}
    arrays = {name: kind for name, kind in arrays.items() if kind}
    members = _members(plain)
    image_names = _named(arrays, _IMAGE, _IMAGE_OF_TRK, where)
    label_names = _named(arrays, _LABELS, _LABELS_OF_TRK, where)
    rest = {name: kind for name, kind in arrays.items() if name not in image_names + label_names}
    batches = [name for name in rest if _OF_BATCH.fullmatch(name)]
    others = {name: kind for name, kind in rest.items() if not _OF_BATCH.fullmatch(name)}
    labels = _only(label_names, arrays) or (_grid(batches) if batches else None)
    images = None
    if role == "images":
        images = _only(image_names, arrays) or _picked(others, several, where)
    elif labels is None:
        labels = _picked(others, several, where)
    elif not label_names and others:
        found = f"has files named by batch and feature beside {listed(others)}"
        raise InputError(Problem(where, found, "name all of them so, or leave the others out"))
    if not (images if role == "images" else labels or members):
        raise InputError(_nothing(role, plain, where))
    used = {*members.values(), *_KNOWN_UNUSED, *(image_names if role == "labels" else ())}
    used.update(name for part in (images, labels) if part for name in part.names)
    unused = tuple(name for name in plain if name not in used)
    return Contents(
        _as_given(images, plain), _as_given(labels, plain), {key: plain[name] for key, name in members.items()}, unused
    )


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key by which names are in the order of the numbers in them."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)], name


def _without_common_folder(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them are in."""
    paths = [PurePosixPath(name).parts for name in names]
    depth = 0
    while paths and all(len(path) > depth + 1 and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    return ["/".join(path[depth:]) for path in paths]


def _of_kind(name: str) -> str:
    match = _ARRAYS.fullmatch(name)
    kind = match["kind"].lower() if match else ""
    return _KINDS.get(kind, kind)


def _stem(name: str) -> str:
    match = _ARRAYS.fullmatch(name)
    return match["stem"] if match else name


def _members(plain: Mapping[str, str]) -> dict[str, str]:
    """Files that belong to cells, by the names they have in a project; any only ``.csv`` lists spots."""
    found = {name: name for name in (*_MEMBERS, LINEAGES) if name in plain}
    tables = [name for name in plain if name.lower().endswith(".csv")]
    if SPOTS not in found and len(tables) == 1:
        found[SPOTS] = tables[0]
    return found


def _named(arrays: Mapping[str, str], stem: str, of_trk: str, where: str) -> list[str]:
    """Arrays with a telling name, at most one."""
    found = [name for name in arrays if name == of_trk or _stem(name) == stem]
    if len(found) > 1:
        raise InputError(Problem(where, f"has {listed(found)}", _ONE_ONLY))
    return found


def _only(names: Sequence[str], arrays: Mapping[str, str]) -> Part | None:
    return Part((names[0],), "npz" if arrays[names[0]] == "npz" else "one") if names else None


def _picked(arrays: Mapping[str, str], several: How, where: str) -> Part | None:
    """Arrays without telling names, as far as they are of one kind."""
    kinds, names = set(arrays.values()), list(arrays)
    if not names:
        return None
    if len(kinds) > 1 or (kinds == {"npz"} and len(names) > 1):
        found = f"may be made of any of {listed(names)}"
        raise InputError(Problem(where, found, f"{_ONE_ONLY}, or name the image X and the segmentation y"))
    if kinds == {"npz"}:
        return Part(tuple(names), "npz")
    if kinds == {"npy"} or len(names) == 1:
        return Part((names[0],))
    return Part(tuple(sorted(names, key=natural)), several)


def _grid(names: Sequence[str]) -> Part:
    matches = [re.fullmatch(_OF_BATCH, name) for name in names]
    return Part(tuple(names), "grid", tuple((int(match[1]), int(match[2])) for match in matches if match))


def _nothing(role: Role, names: Mapping[str, str], where: str) -> Problem:
    there = f"it holds {listed(names)}" if names else "it holds no files"
    for name, (request, instead) in _REQUESTS.items():
        if name in names:
            return Problem(where, f"{request}, no project: {there}", instead)
    what = "image" if role == "images" else "segmentation, nor anything about cells"
    return Problem(where, f"has no {what}: {there}", f"give one of {_ARRAYS_WANTED}")


def _as_given(part: Part | None, plain: Mapping[str, str]) -> Part | None:
    return part and Part(tuple(plain[name] for name in part.names), part.how, part.places)
