"""The OME-TIFF writer, blocks and the stretching to 8 bit."""

import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
import tifffile

from atlaswriter.formats.deepcell import ometiff
from atlaswriter.formats.deepcell.blocks import Cut
from atlaswriter.formats.deepcell.ometiff import Images, Pages, compressed, ome_xml
from atlaswriter.formats.deepcell.scale import Extremes, Scale

DTYPES = ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"]


def random_pixels(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(0, 1e3, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def written(pixels, order="cts", names=(), *, runs=False):
    """A file of (channels, frames, rows, columns), whose strips are stored in some order."""
    n_channels, n_frames, height, width = pixels.shape
    images = Images(n_channels, n_frames, height, width, pixels.dtype, tuple(names), runs)
    pages, out = Pages(images, "test"), bytearray(Pages.header_bytes)
    places = [(c, t, s) for c in range(n_channels) for t in range(n_frames) for s in range(images.n_strips)]
    for c, t, s in sorted(places, key=lambda place: tuple(place["cts".index(axis)] for axis in order)):
        strip = compressed(pixels[c, t, s * images.strip_rows : (s + 1) * images.strip_rows], runs=runs)
        pages.note(c, t, s, offset=len(out), size=len(strip))
        out += strip
    ending, header = pages.ending(len(out))
    out += ending
    out[: len(header)] = header
    assert len(out) <= images.most
    return bytes(out), Pages.is_big(header)


def read(content, tmp_path):
    path = tmp_path / "image.ome.tiff"
    path.write_bytes(content)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert len(file.series) == 1
        assert [page.index for page in file.pages] == list(range(len(file.pages)))
        return file.series[0].asarray(squeeze=False)[0], file.series[0].axes, file.is_bigtiff


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["cts", "tsc", "stc"])
def test_pixels_are_those_given(dtype, order, tmp_path, monkeypatch):
    monkeypatch.setattr(ometiff, "STRIP_BYTES", 700)
    pixels = random_pixels((3, 4, 37, 29), dtype)
    content, _ = written(pixels, order)
    found, axes, big = read(content, tmp_path)
    assert axes == "CZYX"
    assert not big
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 5, 1), (1, 3, 1, 7), (4, 1, 2, 3), (1, 1, 300, 1200)])
@pytest.mark.parametrize("dtype", ["u1", "i4"])
def test_every_shape(shape, dtype, tmp_path):
    pixels = random_pixels(shape, dtype)
    found, _, _ = read(written(pixels)[0], tmp_path)
    np.testing.assert_array_equal(found.reshape(shape), pixels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bigtiff_where_offsets_need_it(dtype, tmp_path, monkeypatch):
    pixels = random_pixels((2, 3, 50, 40), dtype)
    classic, big = written(pixels)
    assert not big
    monkeypatch.setattr(ometiff, "_CLASSIC_END", len(classic) - 1)
    content, big = written(pixels)
    assert big
    found, _, is_big = read(content, tmp_path)
    assert is_big
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def test_offsets_beyond_4_gib(tmp_path):
    """Strips of a file with a hole of 4 GiB in front of them."""
    pixels = random_pixels((2, 1, 9, 9), "u2")
    images = Images(2, 1, 9, 9, pixels.dtype)
    pages, path, start = Pages(images, "test"), tmp_path / "large.ome.tiff", 2**32 + 1000
    with path.open("wb") as file:
        file.seek(start)
        for channel in range(2):
            strip = compressed(pixels[channel, 0])
            pages.note(channel, 0, 0, offset=file.tell(), size=len(strip))
            file.write(strip)
        ending, header = pages.ending(file.tell())
        file.write(ending)
        file.seek(0)
        file.write(header)
    assert Pages.is_big(header)
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.series[0].asarray().reshape(pixels.shape), pixels)


def test_a_missing_strip_is_noticed():
    pages = Pages(Images(1, 2, 4, 4, np.dtype("u1")), "test")
    pages.note(0, 0, 0, offset=16, size=10)
    with pytest.raises(ValueError, match="1 strips are missing"):
        pages.ending(26)


def test_integers_are_stored_as_differences():
    assert [dtype for dtype in DTYPES if Images(1, 1, 1, 1, np.dtype(dtype)).predicted] == [
        *("u1", "u2", "u4", "i1", "i2", "i4")
    ]


@pytest.mark.parametrize("kind", ["cells", "empty", "noise", "one value", "one pixel", "large values"])
def test_labels_come_in_runs(kind, tmp_path):
    """They are stored as they are, by our own encoder."""
    shape = (2, 2, 90, 170) if kind != "one pixel" else (1, 1, 1, 1)
    labels = {
        "cells": np.arange(shape[-1], dtype=np.int32) // 9 + np.arange(shape[-2])[:, np.newaxis] // 13 * 20,
        "noise": random_pixels(shape, "i4"),
        "one value": 7,
        "one pixel": 3,
        "large values": 2**31 - 1 - np.arange(shape[-1]) // 30,
    }.get(kind, 0)
    labels = np.ascontiguousarray(np.broadcast_to(labels, shape), np.int32)
    content, _ = written(labels, runs=True)
    found, _, _ = read(content, tmp_path)
    np.testing.assert_array_equal(found.reshape(shape), labels)
    with tifffile.TiffFile(tmp_path / "image.ome.tiff") as file:
        assert {page.predictor for page in file.pages} == {1}
    strip = labels[0, 0]
    assert zlib.decompress(compressed(strip, runs=True)) == strip.tobytes()
    if kind == "cells":
        assert len(compressed(strip, runs=True)) < strip.nbytes / 20


@pytest.mark.parametrize(
    "name", ["DAPI", "a&b", "<i>", 'say "x"', "it's", "both \" and '", "é ж 細胞", "a > b", "&amp;"]
)
def test_names_survive_xml(name):
    xml = ome_xml(Images(2, 3, 4, 5, np.dtype("u2"), (name, "other")), 'at"las & writer')
    root = ET.fromstring(xml.encode())
    space = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    pixels = root.findall("o:Image/o:Pixels", space)
    assert len(pixels) == 1
    assert [channel.attrib["Name"] for channel in pixels[0].findall("o:Channel", space)] == [name, "other"]
    sizes = {key: pixels[0].attrib[f"Size{key}"] for key in "XYZCT"}
    assert sizes == {"X": "5", "Y": "4", "Z": "3", "C": "2", "T": "1"}
    assert pixels[0].attrib["DimensionOrder"] == "XYZCT"
    assert pixels[0].attrib["Type"] == "uint16"


@pytest.mark.parametrize(("name", "shown"), [("a > b", "a > b"), ('"x"', '"x"'), ("it's", "it's")])
def test_names_that_the_client_shows_as_they_are(name, shown):
    """It does not decode entities."""
    xml = ome_xml(Images(1, 1, 1, 1, np.dtype("u1"), (name,)), "test")
    assert re.search(r"<Channel ID=\S+ Name=(['\"])(.*?)\1 Samples", xml)[2] == shown


def test_channels_without_names_have_none():
    assert " Name=" not in ome_xml(Images(2, 1, 1, 1, np.dtype("u1")), "t").replace('Name="Image0"', "").replace(
        "  ", " "
    )


# Stretching


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f2", "f4", "f8"])
def test_stretched_as_the_client_does(dtype):
    rng = np.random.default_rng(0)
    pixels = (rng.random((40, 50)) * 100 - (30 if np.dtype(dtype).kind in "if" else 0)).astype(dtype)
    found = Extremes.of(pixels)
    assert (found.low, found.high, found.n_missing) == (pixels.min(), pixels.max(), 0)
    scaled = Scale.between(found).apply(pixels)
    expected = np.floor((pixels.astype("f8") - found.low) / (found.high - found.low) * 255 + 0.5)
    assert scaled.dtype == np.uint8
    np.testing.assert_array_equal(scaled, expected)
    assert (scaled.min(), scaled.max()) == (0, 255)


def test_extremes_add_up():
    pixels = random_pixels((20, 30), "i2")
    assert Extremes.of(pixels[:7]) | Extremes.of(pixels[7:]) == Extremes.of(pixels)


def test_what_is_not_finite_counts_for_nothing():
    pixels = np.array([[1.0, np.nan, np.inf], [-np.inf, 3.0, 2.0]], "f4")
    found = Extremes.of(pixels)
    assert found == Extremes(1, 3, 3)
    np.testing.assert_array_equal(Scale.between(found).apply(pixels), [[0, 0, 255], [0, 255, 128]])
    nothing = np.full((2, 2), np.nan)
    assert Extremes.of(nothing).n_missing == 4
    np.testing.assert_array_equal(Scale.between(Extremes.of(nothing)).apply(nothing), 0)


@pytest.mark.parametrize("dtype", ["u2", "i4", "f8", "b1"])
def test_a_channel_of_one_value_is_black(dtype):
    pixels = np.ones((3, 4), dtype)
    np.testing.assert_array_equal(Scale.between(Extremes.of(pixels)).apply(pixels), 0)


def test_masks_become_black_and_white():
    pixels = np.array([[True, False]])
    np.testing.assert_array_equal(Scale.between(Extremes.of(pixels)).apply(pixels), [[255, 0]])


# Blocks


class Rows:
    """A stack that remembers what was asked for."""

    def __init__(self, pixels, grain, together):
        self.pixels, self.grain, self.together = pixels, grain, together
        self.shape, self.dtype, self.overhead = pixels.shape, pixels.dtype, 0

    def read(self, frame, channels, rows):
        return self.pixels[frame, channels, rows]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("grain", [1, 5, 64, 100])
@pytest.mark.parametrize("strip_rows", [1, 7, 100])
def test_blocks_cover_every_pixel_once(together, grain, strip_rows, monkeypatch):
    monkeypatch.setattr("atlaswriter.formats.deepcell.blocks._BLOCK_BYTES", 3000)
    stack = Rows(random_pixels((2, 3, 100, 40), "u2"), grain, together)
    cut, seen = Cut.of(stack, strip_rows), np.zeros(stack.shape, int)
    largest = 0
    for block in cut:
        assert block.rows.start % strip_rows == 0
        assert block.rows.stop - block.rows.start >= min(grain, 100 - block.rows.start)
        seen[block.frame, block.channels, block.rows] += 1
        held = 0
        for channel, image in block.images(stack):
            np.testing.assert_array_equal(image, stack.pixels[block.frame, channel, block.rows])
            assert image.flags.c_contiguous
            held += image.nbytes
        largest = max(largest, held)
    assert (seen == 1).all()
    assert largest <= cut.room
    assert cut.content_bytes == stack.pixels.nbytes
