"""Which dimension of an array counts frames, channels, rows and columns: as told, as the file says, or as is usual."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from atlaswriter.errors import InputError, Problem

FRAMES, CHANNELS, ROWS, COLUMNS = "TZB", "CSF", "Y", "X"

# What a letter counts, by the letter that messages and readings use for it.
_KINDS = {letter: kind[0] for kind in (FRAMES, CHANNELS, ROWS, COLUMNS) for letter in kind}
_ORDER = "TCYX"

# numpy has no more; of so many that have size 1 all ways to leave some out are looked at.
_MOST_DIMENSIONS, _MOST_TRIED = 64, 16
# More channels than this, or than rows or columns, in the last place are taken for columns.
# Of three dimensions the last is in doubt where it is so small, and the others so many times larger.
_FEW_CHANNELS, _WIDER = 10, 8
_MOST_CHANNELS = 64
# Letters tried in turn for a segmentation, by its number of dimensions.
_OF_LABELS = {2: ("YX",), 3: ("TYX", "YXC", "CYX"), 4: ("TYXC", "CTYX", "TCYX")}

_TELL = "tell the order of its dimensions, such as axes='TYXC' (T or Z: frames, C: channels)"


@dataclass(frozen=True)
class Reading:
    """What the dimensions of an array count.

    Attributes
    ----------
    places
        The dimension of frames, channels, rows and columns; None for what it does not count. Others have size 1.
    letters
        Of these dimensions, in the order of the array.
    assumed
        Whether nothing told it, and something else might be meant.
    """

    places: tuple[int | None, int | None, int, int]
    letters: str
    assumed: bool = False

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Frames, channels, rows and columns of an array of such a shape."""
        frames, channels, rows, columns = (1 if place is None else int(shape[place]) for place in self.places)
        return frames, channels, rows, columns

    def backwards(self, n: int) -> Reading:
        """The reading of the array of `n` dimensions with these in the opposite order."""
        frames, channels = (None if place is None else n - 1 - place for place in self.places[:2])
        return replace(self, places=(frames, channels, n - 1 - self.places[2], n - 1 - self.places[3]))


@dataclass(frozen=True)
class Hint:
    """What is known of an image before it is opened.

    Attributes
    ----------
    where
        Its name in messages.
    axes
        What the user says: one letter for each dimension, T, Z or B for frames, C, S or F for channels, Y and X, of
        any case and in any order; dimensions of size 1 may be left out. With a B, which first-generation programs
        wrote, X stands for rows and Y for columns where X comes first: ``"BXYC"``. None: nothing.
    labels
        Whether it is a segmentation, which is read so that it fits `like`, if it can be.
    like
        Frames, rows and columns of the image that a segmentation belongs to.
    """

    where: str
    axes: str | None = None
    labels: bool = False
    like: tuple[int, int, int] | None = None


def choose(shape: Sequence[int], hint: Hint, *, own: str | None = None, usual: str | None = None) -> Reading:
    """What the dimensions of an array count.

    Parameters
    ----------
    shape
        Of the array.
    hint
        What is known of it.
    own
        What the file says, a letter for each dimension; of unknown ones only those of size 1 are accepted, else it
        counts as nothing said.
    usual
        What the pages of such a file are; None: what arrays usually are, (frames, rows, columns) or (frames, rows,
        columns, channels), where nothing speaks against it.

    Raises
    ------
    InputError
        The axes are no axes, contradict the shape or the file, have no place in a movie, or must be told.
    """
    where, axes = hint.where, hint.axes
    _refuse_shape(shape, where)
    said = None if own is None else _of_file(own, shape, where)
    if axes is not None:
        letters = _checked(axes, where)
        if said is None:
            return _as_told(letters, shape, where)
        if _contradicts(letters, own or "", shape):
            found = f"is said to have the axes {axes!r}, the file says {said.letters!r} (shape {_shown(shape)})"
            raise InputError(Problem(where, found, "leave axes out, or correct one of the two"))
    return said or _assumed(tuple(shape), usual, hint)


def _shown(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _refuse_shape(shape: Sequence[int], where: str) -> None:
    if not 2 <= len(shape) <= _MOST_DIMENSIONS:
        raise InputError(Problem(where, f"has {len(shape)} dimensions", "give an image of rows and columns"))
    if min(shape) < 1:
        raise InputError(Problem(where, f"is empty (shape {_shown(shape)})", "give an image that has pixels"))


def _kinds(letters: str) -> list[str]:
    """What each letter counts: T, C, Y or X."""
    old = "B" in letters and letters.index("X") < letters.index("Y")
    swapped = {"X": "Y", "Y": "X"} if old else {}
    return [_KINDS[swapped.get(letter, letter)] for letter in letters]


def _checked(axes: str, where: str) -> str:
    letters = axes.upper()
    found = ""
    unknown = sorted(set(letters) - set(_KINDS))
    if unknown:
        found = f"axes {axes!r} have the unknown letter {unknown[0]!r}"
    elif len(set(letters)) < len(letters):
        found = f"axes {axes!r} have a letter twice"
    elif not {"X", "Y"} <= set(letters):
        found = f"axes {axes!r} lack X or Y"
    if found:
        remedy = "use Y and X once each, T, Z or B for frames, C, S or F for channels or features"
        raise InputError(Problem(where, found, remedy))
    return letters


def _placed(letters: Iterable[str], kinds: Sequence[str], dims: Sequence[int], shape: Sequence[int]) -> Reading | str:
    """The reading by which these dimensions count such kinds; of several of a kind one may be larger than 1."""
    chosen: dict[str, int] = {}
    names = dict(zip(dims, letters, strict=True))
    for kind, dim in zip(kinds, dims, strict=True):
        before = chosen.get(kind)
        if before is not None and shape[before] > 1 and shape[dim] > 1:
            return f"{names[before]} ({shape[before]}) and {names[dim]} ({shape[dim]})"
        if before is None or shape[dim] > 1:
            chosen[kind] = dim
    frames, channels = chosen.get("T"), chosen.get("C")
    used = "".join(names[dim] for dim in sorted(chosen.values()))
    return Reading((frames, channels, chosen["Y"], chosen["X"]), used)


def _no_place(clash: str, shape: Sequence[int], where: str) -> InputError:
    """Two axes of a kind."""
    if clash[0] in FRAMES:
        found = f"is a time lapse of stacks: {clash} (shape {_shown(shape)}), for which a project has no place"
        return InputError(Problem(where, found, "give one plane of each stack, their projection, or one time point"))
    found = f"has channels along two axes: {clash} (shape {_shown(shape)})"
    return InputError(Problem(where, found, "give colours and channels along one axis"))


def _of_file(own: str, shape: Sequence[int], where: str) -> Reading | None:
    """The reading that a file tells."""
    letters = own.upper()
    known = [dim for dim, letter in enumerate(letters) if letter in _KINDS]
    others = [size for letter, size in zip(letters, shape, strict=True) if letter not in _KINDS]
    names = [letters[dim] for dim in known]
    if max(others, default=1) > 1 or not {"X", "Y"} <= set(names):
        return None
    reading = _placed(names, [_KINDS[name] for name in names], known, shape)
    if isinstance(reading, str):
        raise _no_place(reading, shape, where)
    return reading


def _contradicts(letters: str, own: str, shape: Sequence[int]) -> bool:
    """Whether the user's axes differ from the file's, apart from dimensions of size 1."""
    sizes = dict(zip(own.upper(), shape, strict=True))
    said = [_KINDS[name] for name, size in sizes.items() if name in _KINDS and (size > 1 or name in "XY")]
    told = [(name, kind) for name, kind in zip(letters, _kinds(letters), strict=True) if kind in said]
    # "ZCYX" means the T of a file whose Z has size 1; "TZCYX" does not mean two axes of frames.
    narrower = [kind for name, kind in told if sizes.get(name) != 1 or name in "XY"]
    return said not in ([kind for _, kind in told], narrower)


def _as_told(letters: str, shape: Sequence[int], where: str) -> Reading:
    """The reading that the user tells; either side may have left out dimensions of size 1."""
    readings = dict[tuple[int, ...], Reading]()
    clashes = []
    for chosen, dims in _matches(letters, shape):
        kinds = [_kinds(letters)[place] for place in chosen]
        reading = _placed([letters[place] for place in chosen], kinds, dims, shape)
        if isinstance(reading, str):
            clashes.append(reading)
        else:
            readings.setdefault(reading.sizes(shape), reading)
    if clashes and not readings:
        raise _no_place(clashes[0], shape, where)
    if len(readings) != 1:
        several = "fit in several ways" if readings else "do not fit"
        found = f"the axes {letters!r} {several}: the shape is {_shown(shape)}"
        raise InputError(Problem(where, found, f"give {len(shape)} letters, one for each dimension"))
    return next(iter(readings.values()))


def _matches(letters: str, shape: Sequence[int]) -> Iterable[tuple[Sequence[int], Sequence[int]]]:
    """Places in the letters and dimensions that belong together."""
    missing = len(letters) - len(shape)
    places, dims = range(len(letters)), range(len(shape))
    if missing > 0:
        free = [place for place in places if letters[place] not in "XY"]
        for dropped in itertools.combinations(free, missing):
            yield [place for place in places if place not in dropped], dims
        return
    single = [dim for dim in dims if shape[dim] == 1]
    if len(single) <= _MOST_TRIED:
        for dropped in itertools.combinations(single, -missing):
            yield places, [dim for dim in dims if dim not in dropped]


def _by_letters(letters: str) -> Reading:
    """The reading of an array by a letter for each dimension, one of each kind."""
    frames, channels, rows, columns = (letters.find(kind) for kind in _ORDER)
    return Reading((None if frames < 0 else frames, None if channels < 0 else channels, rows, columns), letters)


def _assumed(shape: tuple[int, ...], usual: str | None, hint: Hint) -> Reading:
    where = hint.where
    n, doubtful = len(shape), usual is None
    usual = usual or {2: "YX", 3: "TYX", 4: "TYXC"}.get(n)
    if usual is None:
        raise InputError(Problem(where, f"has {n} dimensions (shape {_shown(shape)})", _TELL))
    if hint.labels:
        for letters in (usual, *_OF_LABELS.get(n, ())):
            reading = _by_letters(letters)
            frames, _, rows, columns = reading.sizes(shape)
            if (frames, rows, columns) == hint.like:
                return reading
    elif doubtful and n == 3 and _may_be_channels(shape):
        may = f"may be one image of {shape[2]} channels or {shape[0]} narrow frames"
        found = f"has the shape {_shown(shape)}, which {may}"
        raise InputError(Problem(where, found, "give axes='YXC' or axes='TYX'"))
    elif doubtful and n == 4 and shape[3] > min(_MOST_CHANNELS, *shape[1:3]):
        found = f"has the shape {_shown(shape)}, where {shape[3]} channels in the last place are unlikely"
        raise InputError(
            Problem(where, found, "give axes='TCYX', 'CTYX' or what it is, or 'TYXC' if they are channels")
        )
    return replace(_by_letters(usual), assumed="T" in usual)


def _may_be_channels(shape: tuple[int, ...]) -> bool:
    """Whether the last of three dimensions may count colours or channels as well as columns."""
    narrow, others = shape[2], min(shape[:2])
    return (narrow in (3, 4) and others > 4) or (narrow <= _FEW_CHANNELS and others >= _WIDER * narrow)
