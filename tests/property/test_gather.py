"""Gathering: no way to cut the source into parts, no room and no threads change what comes out."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.engine.gather import Gathering, Part

keys = st.one_of(st.integers(-3, 3), st.integers(-(2**62), 2**62))


@st.composite
def problems(draw):
    """Records of the source, (key, number of values in the second column), cut into parts; room and threads."""
    records = draw(st.lists(st.tuples(keys, st.integers(0, 4)), max_size=60))
    cuts = sorted(draw(st.lists(st.integers(0, len(records)), max_size=6)))
    bounds = [0, *cuts, len(records)]
    order = draw(st.permutations(range(len(bounds) - 1)))
    return records, bounds, order, draw(st.integers(0, 3000)), draw(st.integers(1, 4)), draw(st.integers(1, 300))


def part_of(records, first):
    """One record is one value in the first column, and some in the second; values tell where they come from."""
    by_key = {}
    for place, (key, n_more) in enumerate(records, first):
        one, more = by_key.setdefault(key, ([], []))
        one.append(place)
        more.extend([-place - 1] * n_more)
    offsets, columns = [], []
    for number, dtype in enumerate(("u2", "i4")):
        ordered = [by_key[key][number] for key in sorted(by_key)]
        offsets.append(np.cumsum([0, *map(len, ordered)], dtype=np.int64))
        columns.append(np.array(list(itertools.chain(*ordered)), dtype))
    return Part(np.array(sorted(by_key), np.int64), tuple(offsets), tuple(columns))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(problems())
def test_records_of_every_key_in_the_order_of_the_source(problem):
    records, bounds, order, room, threads, piece_bytes = problem
    with TemporaryDirectory() as folder:
        gathering = Gathering((np.dtype("u2"), np.dtype("i4")), room, lambda: Path(folder) / "spill")

        def add(number):
            first, last = bounds[number], bounds[number + 1]
            if first < last:
                gathering.add((number, 0), part_of(records[first:last], first))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, order))
        assert gathering.held <= room
        expected = {}
        for place, (key, n_more) in enumerate(records):
            one, more = expected.setdefault(key, ([], []))
            one.append(place)
            more.extend([-place - 1] * n_more)
        assert gathering.keys.tolist() == sorted(expected)
        found = {}
        for piece in gathering.pieces(piece_bytes):
            grouped = gathering.read(piece)
            for position, key in enumerate(grouped.keys.tolist()):
                found[key] = tuple(values.tolist() for values in grouped.of(position))
        assert found == expected
        gathering.release()
        assert gathering.held == 0
