"""Well-known binary of any byte order and dimensions is decoded; damaged bytes are refused and never read past."""

import contextlib
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources.shapes import exteriors, moments, of_wkb

POINT, LINE, POLYGON, MULTI = 1, 2, 3, 6

vertices = st.tuples(*[st.floats(-1e4, 1e4)] * 4)
ring = st.lists(vertices, max_size=6)
polygon = st.lists(ring, max_size=3)
style = st.tuples(st.sampled_from("<>"), st.sampled_from(["", "Z", "M", "ZM"]), st.booleans(), st.booleans())


def header(kind, style):
    order, dims, is_ewkb, has_reference = style
    code = kind
    if is_ewkb:
        code |= 0x80000000 * ("Z" in dims) | 0x40000000 * ("M" in dims) | 0x20000000 * has_reference
        reference = struct.pack(order + "I", 4326) if has_reference else b""
    else:
        code += 1000 * ("Z" in dims) + 2000 * ("M" in dims)
        reference = b""
    return bytes([order == "<"]) + struct.pack(order + "I", code) + reference


def wkb_polygon(rings, style):
    order, dims, *_ = style
    body = struct.pack(order + "I", len(rings))
    for one in rings:
        body += struct.pack(order + "I", len(one))
        body += b"".join(struct.pack(f"{order}{2 + len(dims)}d", *vertex[: 2 + len(dims)]) for vertex in one)
    return header(POLYGON, style) + body


def wkb_multi(polygons, styles):
    body = struct.pack(styles[0][0] + "I", len(polygons))
    return header(MULTI, styles[0]) + body + b"".join(map(wkb_polygon, polygons, styles[1:]))


@st.composite
def geometries(draw):
    """Bytes, and the parts they stand for."""
    if draw(st.booleans()):
        rings = draw(polygon)
        return wkb_polygon(rings, draw(style)), [rings]
    parts = draw(st.lists(polygon, max_size=3))
    return wkb_multi(parts, [draw(style) for _ in range(len(parts) + 1)]), parts


def parts_of(shapes, number):
    """What was decoded, as nested lists of (x, y)."""
    points = list(zip(shapes.x.tolist(), shapes.y.tolist(), strict=True))
    return [
        [points[shapes.vertices[r] : shapes.vertices[r + 1]] for r in range(shapes.rings[p], shapes.rings[p + 1])]
        for p in range(shapes.parts[number], shapes.parts[number + 1])
    ]


@given(st.lists(st.one_of(st.none(), geometries()), max_size=5), st.integers(0, 3))
def test_what_is_written_is_read(some, skipped):
    values = pa.array([b"junk"] * skipped + [one and one[0] for one in some], pa.binary())[skipped:]
    shapes = of_wkb(values, "here")
    assert len(shapes) == len(some)
    for number, one in enumerate(some):
        expected = [] if one is None else [[[vertex[:2] for vertex in ring] for ring in part] for part in one[1]]
        assert parts_of(shapes, number) == expected


@given(geometries(), st.data())
def test_every_cut_is_refused(geometry, data):
    whole, _ = geometry
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    # Bytes of the next one must not be taken for its own.
    with pytest.raises(InputError, match=r"geometry 1 of 3 .* cut short"):
        of_wkb(pa.array([whole, cut, whole], pa.binary()), "here")


@given(geometries(), st.data())
def test_any_bytes_are_decoded_or_refused(geometry, data):
    """A byte changed anywhere, such as in a count: more than the bytes can hold is never made room for."""
    damaged = bytearray(geometry[0])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        shapes = of_wkb(pa.array([bytes(damaged)], pa.binary()), "here")
    except InputError:
        return
    assert 16 * shapes.x.size <= len(damaged)


@given(st.binary(max_size=64))
def test_noise_is_decoded_or_refused(noise):
    with contextlib.suppress(InputError):
        of_wkb(pa.array([noise], pa.large_binary()), "here")


@pytest.mark.parametrize("kind", [LINE, 4, 5, 7, 15, 4001])
def test_other_geometries_are_refused(kind):
    with pytest.raises(InputError, match="is no point, polygon or multipolygon"):
        of_wkb(pa.array([header(kind, ("<", "", False, False)) + bytes(40)]), "here")


def test_parts_of_a_multipolygon_must_be_polygons():
    point = header(POINT, ("<", "", False, False)) + struct.pack("<2d", 1, 2)
    multi = header(MULTI, ("<", "", False, False)) + struct.pack("<I", 1) + point
    assert of_wkb(pa.array([point]), "here").x.tolist() == [1]
    with pytest.raises(InputError, match="is no point"):
        of_wkb(pa.array([multi]), "here")


@given(st.lists(geometries(), max_size=4))
def test_the_largest_part_is_kept_and_all_else_counted(some):
    shapes = of_wkb(pa.array([one[0] for one in some], pa.binary()), "here")
    outer = exteriors(shapes, "here")
    areas = np.abs(moments(outer.offsets, outer.x, outer.y)[0])
    kept = dict(zip(outer.owners.tolist(), areas.tolist(), strict=True))
    n_rings = 0
    for number, (_, parts) in enumerate(some):
        sizes = [shoelace(part[0]) for part in parts if part and len(part[0]) >= 3]
        n_rings += sum(map(len, parts)) or 1
        assert (number in kept) == bool(sizes)
        if sizes:
            np.testing.assert_allclose(kept[number], max(sizes), rtol=1e-9, atol=1e-6)
    assert outer.n_dropped == n_rings - len(kept)


def shoelace(ring):
    x, y = np.array([vertex[:2] for vertex in ring]).T
    x, y = x - x[0], y - y[0]
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
