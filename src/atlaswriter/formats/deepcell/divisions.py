"""Divisions of cells: which parent, which daughters, and the first frame that shows the daughters."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.errors import Problems
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.jsonlist import Faults, load, objects, shown, whole

_KEYS = ("parent", "daughters", "t")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Division:
    """One division.

    Attributes
    ----------
    parent
        Cell that divides.
    daughters
        Cells that it becomes.
    t
        The frame after the parent divides: the first one that shows the daughters.
    """

    parent: int
    daughters: tuple[int, ...]
    t: int

    def __str__(self) -> str:
        return f"parent {self.parent}, daughters {list(self.daughters)}, t {self.t}"


def parse_divisions(content: bytes, where: str, problems: Problems) -> list[Division] | None:
    """Divisions from JSON, a list of ``{"parent": 1, "daughters": [2, 3], "t": 1}``; None when there is a problem."""
    return objects(content, where, "divisions", _division, problems)


def _division(row: Any, name: str, faults: Faults) -> Division | None:
    if not isinstance(row, dict):
        faults.add("are no objects", f"{name} is {shown(row)}")
        return None
    missing = [key for key in _KEYS if key not in row]
    if missing:
        faults.add(f"have no {' and no '.join(missing)}", f"{name} {shown(row)}")
        return None
    parent, t, daughters = whole(row["parent"]), whole(row["t"]), _wholes(row["daughters"])
    if parent is None or t is None or daughters is None:
        faults.add("have numbers that are no whole ones", f"{name} {shown(row)}", "daughters are a list of cells")
        return None
    return Division(parent, tuple(daughters), t)


def _wholes(value: Any) -> list[int] | None:
    """A list of integers; None for anything else."""
    numbers = [whole(item) for item in value] if isinstance(value, list) else [None]
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(numbers) else None


@dataclass(frozen=True)
class _Track:
    """One entry of a lineage."""

    frames: list[int]
    parent: int | None
    daughters: list[int]
    frame_div: int | None


def from_lineage(
    content: bytes, where: str, n_frames: int, problems: Problems, warnings: list[str]
) -> list[Division] | None:
    """Divisions from a lineage of deepcell-tracking.

    The time of a division is ``frame_div``, which deepcell-tracking sets to the first frame of the daughters. Tables
    that were converted from elsewhere may have the last frame of the parent there: where it is not the first frame of
    the daughters that the lineage itself gives, that one is taken, as the format's page defines it, with a warning.

    Parameters
    ----------
    content
        JSON: ``{"<cell>": {"label", "frames", "parent", "daughters", "frame_div", "capped"}}``, or a list of one such
        object.
    where
        Its name in messages.
    n_frames
        Frames of the movie.
    problems, warnings
        Everything that contradicts itself, or is strange, is added.

    Returns
    -------
    list of Division or None
        Ordered by time and parent; None when there is a problem.
    """
    n_before = len(problems.found)
    document = problems.attempt(load, content, where)
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if isinstance(document, dict):
        faults, oddities = Faults(where, "cells"), Faults(where, "cells")
        tracks = _tracks(document, n_frames, faults)
        _check_relations(tracks, {int(key) for key in document if _NUMBER.fullmatch(key)}, faults)
        found = [
            Division(cell, tuple(track.daughters), _time(cell, track, tracks, oddities))
            for cell, track in tracks.items()
            if track.daughters and track.frame_div is not None
        ]
        faults.report(problems)
        oddities.warn(warnings)
    elif len(problems.found) == n_before:
        what = f"a list of {len(document)} movies" if isinstance(document, list) else shown(document)
        problems.add(
            where, f"holds {what}, not the lineage of one movie", "write an object with an entry for each cell"
        )
    if len(problems.found) > n_before:
        return None
    return sorted(found, key=lambda division: (division.t, division.parent))


def _tracks(document: dict[str, Any], n_frames: int, faults: Faults) -> dict[int, _Track]:
    """Entries by cell; without those that are at fault."""
    tracks = {}
    for key, entry in document.items():
        if not _NUMBER.fullmatch(key):
            faults.add("have a key that is no number from 1", shown(key))
        elif not isinstance(entry, dict):
            faults.add("are no objects", f"{key} is {shown(entry)}")
        elif "label" in entry and whole(entry["label"]) != int(key):
            faults.add("have another label than key", f"{key} has label {shown(entry['label'])}", "make them the same")
        else:
            track = _track(key, entry, n_frames, faults)
            if track is not None:
                tracks[int(key)] = track
    return tracks


def _track(cell: str, entry: dict[str, Any], n_frames: int, faults: Faults) -> _Track | None:
    frames, daughters = _wholes(entry.get("frames", [])), _wholes(entry.get("daughters") or [])
    numbers = [entry.get("parent"), entry.get("frame_div")]
    parent, frame_div = (None if number is None else whole(number) for number in numbers)
    if frames is None or daughters is None or (parent is None, frame_div is None) != tuple(n is None for n in numbers):
        kind = "have frames, a parent, daughters or frame_div that are no whole numbers"
        faults.add(kind, f"{cell} {shown(entry)}")
        return None
    if frames and not 0 <= min(frames) <= max(frames) < n_frames:
        kind = f"are in frames that are not there: there are {n_frames:,}"
        faults.add(kind, f"{cell} in frames {min(frames)} to {max(frames)}", "count from 0; is it the same movie?")
    # Some tables write 0 for no parent.
    return _Track(frames, parent or None, daughters, frame_div)


def _check_relations(tracks: dict[int, _Track], known: set[int], faults: Faults) -> None:
    """Note parents and daughters that do not know each other, and divisions without a time."""
    for cell, track in tracks.items():
        for daughter in track.daughters:
            other = tracks.get(daughter)
            if daughter not in known:
                faults.add("have a daughter that has no entry", f"{cell} has {daughter}", "add it")
            elif other is not None and other.parent != cell:
                names = "none" if other.parent is None else other.parent
                faults.add("have a daughter with another parent", f"{cell} has {daughter}, whose parent is {names}")
        if track.parent is not None and track.parent not in known:
            faults.add("have a parent that has no entry", f"{cell} has {track.parent}", "add it")
        elif track.parent in tracks and cell not in tracks[track.parent].daughters:
            faults.add("are missing in their parent's daughters", f"{cell}, whose parent is {track.parent}")
        if track.daughters and track.frame_div is None:
            faults.add("have daughters but no frame_div", str(cell), "give the first frame of the daughters")


def _time(cell: int, track: _Track, tracks: dict[int, _Track], oddities: Faults) -> int:
    """First frame of the daughters as their own entries have it, else ``frame_div``."""
    given = track.frame_div or 0
    frames = [
        min(tracks[daughter].frames) for daughter in track.daughters if daughter in tracks and tracks[daughter].frames
    ]
    first = min(frames, default=given)
    if first != given:
        kind = "have a frame_div that is not the first frame of their daughters, which is taken"
        is_last = " (the last frame of the parent)" if track.frames and given == max(track.frames) else ""
        oddities.add(kind, f"{cell} has {given}{is_last}, its daughters begin in {first}")
    return first


def validate_divisions(
    divisions: Sequence[Division], cells: Cells, n_frames: int, where: str, problems: Problems, warnings: list[str]
) -> None:
    """Note everything that is wrong with divisions.

    What makes the client delete a division or a daughter, or what it cannot mean, is a problem; what it warns of is a
    warning.

    Parameters
    ----------
    divisions
        Rows.
    cells
        Where the cells are.
    n_frames
        Frames of the movie.
    where
        Name of the divisions in messages.
    problems, warnings
        Are added to.
    """
    faults, oddities = Faults(where, "divisions"), Faults(where, "divisions")
    first, last = _spans(cells)
    _check_once(divisions, faults)
    for division in divisions:
        if not 1 <= division.t < n_frames:
            remedy = "t is the first frame that shows the daughters"
            faults.add(f"have a t outside 1 to {n_frames - 1}", str(division), remedy)
        if not division.daughters:
            faults.add("have no daughters", str(division))
        elif len(division.daughters) == 1:
            oddities.add("have one daughter", str(division))
        if first.get(division.parent, division.t) >= division.t:
            faults.add("have a parent that is in no frame before t", str(division))
        if last.get(division.parent, -1) >= division.t:
            oddities.add("have a parent that is still there at t", str(division))
        for daughter in division.daughters:
            if daughter not in last or last[daughter] < division.t:
                faults.add("have a daughter that is in no frame from t on", f"{daughter} of {division}")
            elif first[daughter] < division.t:
                oddities.add("have a daughter that is there before t", f"{daughter} of {division}")
    faults.report(problems)
    oddities.warn(warnings)


def _check_once(divisions: Sequence[Division], faults: Faults) -> None:
    """Note cells that divide twice, or are born twice or of themselves."""
    parents = Counter(division.parent for division in divisions)
    births = Counter(daughter for division in divisions for daughter in set(division.daughters))
    for division in divisions:
        if parents[division.parent] > 1:
            faults.add("have a parent that divides more than once", str(division), "make them one division")
        if division.parent in division.daughters:
            faults.add("have their parent as a daughter", str(division))
        if len(set(division.daughters)) < len(division.daughters):
            faults.add("have a daughter twice", str(division))
        if any(births[daughter] > 1 for daughter in division.daughters):
            faults.add("have a daughter of another parent", str(division), "leave it with one of them")


def _spans(cells: Cells) -> tuple[dict[int, int], dict[int, int]]:
    """First and last frame of each cell."""
    order = np.argsort(cells.cell, kind="stable")
    names, starts = np.unique(cells.cell[order], return_index=True)
    if not names.size:
        return {}, {}
    t, keys = cells.t[order], names.tolist()
    first, last = np.minimum.reduceat(t, starts), np.maximum.reduceat(t, starts)
    return dict(zip(keys, first.tolist(), strict=True)), dict(zip(keys, last.tolist(), strict=True))


def to_json(divisions: Sequence[Division]) -> Iterator[bytes]:
    """Divisions as JSON, in pieces."""
    rows = [{"parent": one.parent, "daughters": list(one.daughters), "t": one.t} for one in divisions]
    yield json.dumps(rows).encode()
