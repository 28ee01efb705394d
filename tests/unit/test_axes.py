"""What the dimensions of an array count: as told, as the file says, or as is usual."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources import axes as module
from atlaswriter.sources.axes import Hint, Reading

SIZES = {"T": 5, "C": 2, "Y": 40, "X": 50}


def choose(shape, *, own=None, usual=None, **known):
    return module.choose(shape, Hint(**known), own=own, usual=usual)


def shape_of(letters, sizes=SIZES):
    return tuple(sizes[letter] for letter in letters)


def sizes_of(shape, **options):
    return choose(shape, where="images", **options).sizes(shape)


@pytest.mark.parametrize("letters", ["".join(order) for n in (2, 3, 4) for order in itertools.permutations("TCYX", n)])
def test_every_order_is_obeyed(letters):
    if not {"X", "Y"} <= set(letters):
        with pytest.raises(InputError, match="lack X or Y"):
            choose(shape_of(letters), axes=letters, where="images")
        return
    for told in (letters, letters.lower(), letters.replace("T", "Z"), letters.replace("C", "S")):
        reading = choose(shape_of(letters), axes=told, where="images")
        places = tuple(letters.index(kind) if kind in letters else None for kind in "TCYX")
        assert reading == Reading(places, told.upper())
        expected = tuple(SIZES[kind] if kind in letters else 1 for kind in "TCYX")
        assert reading.sizes(shape_of(letters)) == expected


@pytest.mark.parametrize(
    ("axes", "found"),
    [
        ("TQYX", "unknown letter 'Q'"),
        ("T YX", "unknown letter ' '"),
        ("TTYX", "a letter twice"),
        ("TCY", "lack X or Y"),
        ("", "lack X or Y"),
        ("TCYX", "do not fit: the shape is 5 × 40 × 50 × 2 × 3"),
        ("YX", "do not fit"),
        ("TZCYX", r"time lapse of stacks: T \(5\) and Z \(40\)"),
        ("CSTYX", r"channels along two axes: C \(5\) and S \(40\)"),
    ],
)
def test_wrong_axes_are_refused(axes, found):
    with pytest.raises(InputError, match=found) as caught:
        choose((5, 40, 50, 2, 3), axes=axes, where="movie.tif")
    assert str(caught.value).startswith("movie.tif: ")
    assert "→" in str(caught.value)


def test_the_first_generation_counted_rows_by_x():
    shape = (5, 40, 50, 2)
    assert sizes_of(shape, axes="BXYC") == sizes_of(shape, axes="TYXC") == (5, 2, 40, 50)
    assert sizes_of(shape, axes="BYXC") == (5, 2, 40, 50)
    assert sizes_of((2, 40, 50, 5), axes="CXYB") == (5, 2, 40, 50)
    assert sizes_of((40, 50, 5), axes="xyb") == (5, 1, 40, 50)
    # Without a B it is what it says.
    assert sizes_of(shape, axes="TXYC") == (5, 2, 50, 40)


def test_dimensions_of_size_one_may_be_left_out_where_that_is_clear():
    assert sizes_of((1, 5, 40, 50), axes="TYX") == (5, 1, 40, 50)
    assert sizes_of((1, 1, 5, 40, 50, 1), axes="TYX") == (5, 1, 40, 50)
    assert sizes_of((40, 50), axes="TCYX") == (1, 1, 40, 50)
    assert sizes_of((40, 50), axes="YXTC") == (1, 1, 40, 50)
    assert sizes_of((5, 2, 40, 50), axes="TZCYX") == (5, 2, 40, 50)
    assert sizes_of((5, 1, 2, 40, 50), axes="TZCYX") == (5, 2, 40, 50)
    assert sizes_of((1, 5, 2, 40, 50), axes="TZCYX") == (5, 2, 40, 50)
    assert sizes_of((5, 1, 1, 40, 50), axes="TCYX") == (5, 1, 40, 50)
    for shape, axes in [((5, 40, 50), "TCYX"), ((1, 40, 50, 1), "TYX")]:
        with pytest.raises(InputError, match="fit in several ways"):
            choose(shape, axes=axes, where="images")
    with pytest.raises(InputError, match="do not fit"):
        choose((1,) * 60, axes="TYX", where="images")


def test_what_the_file_says():
    shape = (5, 1, 2, 40, 50)
    assert choose(shape, own="TZCYX", where="i") == Reading((0, 2, 3, 4), "TCYX")
    for axes in ("TCYX", "tzcyx", "ZCYX", "TZCYX"):
        assert choose(shape, own="TZCYX", axes=axes, where="i").sizes(shape) == (5, 2, 40, 50)
    for axes in ("CTYX", "TCXY", "TYX", "CYX", "TYXC", "YX"):
        with pytest.raises(InputError, match=rf"is said to have the axes '{axes}', the file says 'TCYX'"):
            choose(shape, own="TZCYX", axes=axes, where="i")
    assert choose((40, 50, 3), own="YXS", where="i").sizes((40, 50, 3)) == (1, 3, 40, 50)
    with pytest.raises(InputError, match=r"time lapse of stacks: T \(5\) and Z \(3\).*→"):
        choose((5, 3, 40, 50), own="TZYX", where="i")
    with pytest.raises(InputError, match="channels along two axes"):
        choose((5, 40, 50, 3), own="CYXS", where="i")


def test_a_file_that_says_nothing_known():
    assert sizes_of((5, 40, 50), own="QYX", axes="YXC") == (1, 50, 5, 40)
    assert sizes_of((5, 40, 50), own="RYX") == (5, 1, 40, 50)
    assert sizes_of((1, 5, 40, 50), own="RTYX") == (5, 1, 40, 50)


def test_what_is_usual():
    assert choose((40, 50), where="i") == Reading((None, None, 0, 1), "YX")
    assert choose((5, 40, 50), where="i") == Reading((0, None, 1, 2), "TYX", assumed=True)
    assert choose((5, 40, 50, 2), where="i") == Reading((0, 3, 1, 2), "TYXC", assumed=True)
    assert choose((5, 40, 3), usual="TYX", where="i").sizes((5, 40, 3)) == (5, 1, 40, 3)
    assert choose((40, 50, 3), usual="YXC", where="i") == Reading((None, 2, 0, 1), "YXC")
    assert sizes_of((2, 3, 3)) == (2, 1, 3, 3)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((40, 50, 3), "may be one image of 3 channels or 40 narrow frames → give axes='YXC' or axes='TYX'"),
        ((40, 50, 4), "may be one image of"),
        ((5, 2, 400, 500), "500 channels in the last place are unlikely → give axes='TCYX'"),
        ((5, 2, 30, 20), "20 channels in the last place"),
        ((1, 5, 2, 40, 50), "has 5 dimensions .* → tell the order"),
        ((2,) * 6, "has 6 dimensions"),
        ((7,), "has 1 dimensions"),
        ((), "has 0 dimensions"),
        ((1,) * 65, "has 65 dimensions"),
        ((5, 0, 50), "is empty"),
    ],
)
def test_what_must_be_told(shape, found):
    with pytest.raises(InputError, match=found):
        choose(shape, where="images")


def test_labels_are_read_so_that_they_fit():
    def read(shape, like, **options):
        return choose(shape, labels=True, like=like, where="labels", **options)

    assert read((40, 50), (1, 40, 50)).letters == "YX"
    assert read((5, 40, 50), (5, 40, 50)).letters == "TYX"
    assert read((40, 50, 3), (1, 40, 50)).letters == "YXC"
    assert read((2, 40, 50), (1, 40, 50)).letters == "CYX"
    assert read((2, 40, 50), (1, 40, 50), usual="TYX").letters == "CYX"
    assert read((5, 40, 50, 2), (5, 40, 50)).letters == "TYXC"
    assert read((2, 5, 40, 50), (5, 40, 50)).letters == "CTYX"
    assert read((5, 2, 40, 50), (5, 40, 50)).letters == "TCYX"
    assert not read((5, 2, 40, 50), (5, 40, 50)).assumed
    # What does not fit is left to whoever compares the two.
    assert read((6, 40, 50), (5, 40, 50)).letters == "TYX"
    assert read((6, 2, 40, 50), (5, 40, 50)).letters == "TYXC"
    # What is told counts more than what fits.
    assert read((40, 50, 3), (1, 40, 50), axes="TYX").sizes((40, 50, 3)) == (40, 1, 50, 3)


@given(
    shape=st.lists(st.integers(0, 70), max_size=7),
    axes=st.none() | st.text("TZBCSFYXtcyxQ1", max_size=7),
    own=st.none() | st.text("TZBCSFYXQI", min_size=7, max_size=7),
    like=st.none() | st.tuples(*[st.integers(1, 70)] * 3),
)
def test_whatever_is_said_all_pixels_are_counted_or_it_is_refused(shape, axes, own, like):
    own = own and own[: len(shape)]
    if own and len(set(own)) < len(own):
        own = None
    try:
        reading = choose(shape, axes=axes, own=own, labels=like is not None, like=like, where="images")
    except InputError:
        return
    total = 1
    for size in shape:
        total *= size
    frames, channels, rows, columns = reading.sizes(shape)
    assert frames * channels * rows * columns == total
    used = [place for place in reading.places if place is not None]
    assert len(set(used)) == len(used) == len(reading.letters)
