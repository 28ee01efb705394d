"""Images and segmentations of every kind equal what their writers were given; damage is refused by name."""

import gc
import io
import itertools
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from atlaswriter.errors import InputError
from atlaswriter.sources import nparray
from atlaswriter.sources.files import File
from atlaswriter.sources.moviejoin import grid, stacked
from atlaswriter.sources.movies import open_movie

V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"]
SIZES = {"T": 3, "C": 2, "Y": 20, "X": 31}


def movie_of(shape=(3, 2, 20, 31), dtype="u2", seed=0):
    """(frames, channels, rows, columns); whole range of the dtype."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype.newbyteorder("="), endpoint=True).astype(dtype)


def arranged(movie, letters):
    """A movie with its dimensions in another order; those that are left out have size 1."""
    order = ["TCYX".index(letter) for letter in letters]
    rest = [place for place in range(4) if place not in order]
    return np.ascontiguousarray(movie.transpose(*rest, *order).reshape([movie.shape[place] for place in order]))


def whole(stack):
    frames, channels, rows, _ = stack.shape
    return np.stack([stack.read(frame, slice(0, channels), slice(0, rows)) for frame in range(frames)])


def assert_movie(movie, expected):
    """All of it, parts of it, and parts by several threads at once."""
    stack = movie.stack
    assert stack.shape == expected.shape
    assert stack.dtype == expected.dtype.newbyteorder("=")
    assert stack.dtype.isnative
    assert 1 <= stack.grain <= stack.shape[2]
    assert stack.overhead >= 0
    assert isinstance(stack.together, bool)
    found = whole(stack)
    assert found.dtype == stack.dtype
    np.testing.assert_array_equal(found, expected)
    rng = np.random.default_rng(1)
    frames, channels, rows, _ = expected.shape

    def part(_):
        frame = int(rng.integers(frames))
        chosen, strip = (slice(*sorted(rng.integers(0, size + 1, 2).tolist())) for size in (channels, rows))
        np.testing.assert_array_equal(stack.read(frame, chosen, strip), expected[frame, chosen, strip])

    for number in range(6):
        part(number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda frame: _strips(stack, frame, expected), range(frames)))


def _strips(stack, frame, expected):
    step = stack.grain + 3
    strips = [
        stack.read(frame, slice(0, stack.shape[1]), slice(top, min(top + step, stack.shape[2])))
        for top in range(0, stack.shape[2], step)
    ]
    np.testing.assert_array_equal(np.concatenate(strips, axis=1), expected[frame])


def saved(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return File(folder / name)


def tiff(folder, array, name="a.tif", **options):
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(folder / name, array, **options)
    return File(folder / name)


ORDERS = ["".join(order) for order in itertools.permutations("TCYX")]
FEWER = ["YX", "XY", "TYX", "YXT", "CYX", "YXC", "XCY", "XYT"]


# --- arrays, .npy


@pytest.mark.parametrize("letters", ORDERS + FEWER)
def test_arrays_in_every_order(tmp_path, letters):
    expected = movie_of(tuple(SIZES[kind] if kind in letters else 1 for kind in "TCYX"))
    array = arranged(expected, letters)
    for given in (array, np.asfortranarray(array), array.astype(">u2")):
        assert_movie(open_movie(given, axes=letters), expected)
        movie = open_movie(saved(tmp_path, given), axes=letters.lower())
        assert_movie(movie, expected)
        assert (movie.axes, movie.assumed) == (letters, False)
    for compression in (None, "zlib"):
        assert_movie(open_movie(tiff(tmp_path, array, compression=compression), axes=letters), expected)


@pytest.mark.parametrize("letters", ORDERS)
def test_arrays_that_take_many_reads(tmp_path, letters, monkeypatch):
    """Runs of every size: pieces, single values, and whole inner blocks of which some is picked."""
    expected = movie_of()
    file = saved(tmp_path, arranged(expected, letters))
    for cost, largest in [(0, 64), (1, 300), (1 << 20, 512), (1 << 20, 2), (0, 1 << 20)]:
        monkeypatch.setattr(nparray, "_READ_COST", cost)
        monkeypatch.setattr(nparray, "_LARGEST_READ", largest)
        np.testing.assert_array_equal(whole(open_movie(file, axes=letters).stack), expected)
        assert open_movie(file, axes=letters).stack.overhead <= 2 * largest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "<>")
def test_dtypes(tmp_path, dtype, order):
    expected = movie_of(dtype=order + dtype)
    array = arranged(expected, "TYXC")
    for source in (array, saved(tmp_path, array), da.from_array(array, (2, 7, 31, 1))):
        assert_movie(open_movie(source), expected)
    for compression in (None, "zlib"):
        file = tiff(tmp_path, arranged(expected[:, :1], "TYX"), compression=compression, byteorder=order)
        assert_movie(open_movie(file), expected[:, :1])


def test_arrays_in_memory_are_not_copied():
    array = movie_of()
    read = open_movie(array, axes="TCYX").stack.read(1, slice(0, 2), slice(3, 9))
    assert np.shares_memory(read, array)


def test_memory_of_a_read_is_bounded(tmp_path):
    """Whatever the order: with frames innermost a strip lies all over the file."""
    array = np.zeros((64, 64, 1000), "u2")
    for letters in ("YXT", "XYT", "TYX"):
        stack = open_movie(saved(tmp_path, array), axes=letters).stack
        tracemalloc.start()
        read = stack.read(1, slice(0, 1), slice(10, 60))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < read.nbytes + stack.overhead + 100_000 < array.nbytes


def test_what_is_stored_together_is_told(tmp_path):
    def told(source, **options):
        stack = open_movie(source, **options).stack
        return stack.grain, stack.together

    movie = movie_of()
    for letters, expected in {"TYXC": (1, True), "TCYX": (1, False), "TXYC": (20, True), "CTXY": (20, False)}.items():
        assert told(saved(tmp_path, arranged(movie, letters)), axes=letters) == expected
    assert told(arranged(movie, "TXYC"), axes="TXYC") == (1, True)
    one_strip = tiff(tmp_path, movie[:, 0], compression="zlib", rowsperstrip=20)
    assert told(one_strip) == (20, False)
    strips = tiff(tmp_path, movie[:, 0], compression="zlib", rowsperstrip=4)
    assert told(strips) == (4, False)
    colours = movie_of((2, 3, 40, 30), "u1")
    tiles = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb"}
    assert told(tiff(tmp_path, arranged(colours, "TYXC"), **tiles)) == (16, True)
    assert told(tiff(tmp_path, colours, planarconfig="separate", **tiles)) == (16, False)
    assert told(da.from_array(movie, (1, 2, 8, 31)), axes="TCYX") == (8, True)


def test_a_part_of_a_file(tmp_path):
    """As a member of a zip that is stored as it is."""
    expected = movie_of()
    contents = []
    for write in (
        lambda to: np.save(to, arranged(expected, "TYXC")),
        lambda to: tifffile.imwrite(to, expected, ome=True),
    ):
        content = io.BytesIO()
        write(content)
        contents.append(content.getvalue())
    (tmp_path / "all").write_bytes(b"?" * 777 + b"??".join(contents) + b"?" * 99)
    file, start = File(tmp_path / "all"), 777
    for content in contents:
        part = file.part(start, len(content), "all: a part")
        assert_movie(open_movie(part), expected)
        cut = file.part(start, len(content) - 200, "all: a part")
        with pytest.raises(InputError, match=r"all: a part.* is (cut short|damaged)"):
            open_movie(cut)
        start += len(content) + 2


def npy(header, version=1, content=b""):
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + content


def header(shape="(2, 3)", descr="'<u2'", order="False", more=""):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}{more}}}\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (npy(header(), content=bytes(11)), r"is cut short: its shape \(2, 3\) needs \d+ bytes"),
        (npy(header("(1000000, 1000000)"), content=bytes(100)), "is cut short"),
        (npy(header(f"({2**62}, {2**62})"), content=bytes(100)), "is cut short"),
        (npy(header("(-1, 3)")), "shape"),
        (npy(header("(2.0, 3)")), "shape"),
        (npy(header("(True, 3)")), "shape"),
        (npy(header("[2, 3]")), "shape"),
        (npy(header("(0, 3)")), "is empty"),
        (npy(header("(3,)")), "has 1 dimensions"),
        (npy(header(f"{(1,) * 99}")), "has 99 dimensions"),
        (npy(header(order="1")), "order"),
        (npy(header(more=", 'x': 1")), "header"),
        (npy("{}"), "header"),
        (npy("__import__('os')"), "header"),
        (npy("(" * 5000), "header"),
        (npy(header(descr="'|O'"), content=pickle.dumps([1])), "Python objects"),
        (npy(header(descr="[('a', '<u2')]")), "records"),
        (npy(header(descr="'<c8'")), "dtype complex64"),
        (npy(header(descr="'<f16'")), "dtype"),
        (npy(header(descr="'<U3'")), "dtype <U3"),
        (npy(header(descr="'<M8[s]'")), "dtype"),
        (npy(header(descr="'nonsense'")), "header"),
        (npy(header(descr="'(2,2)u2'")), "dtype"),
        (npy(b"\xff\xff", 3), "header"),
        (npy(header(), 4), "no .npy file of version"),
        (npy(b" " * 20_000 + header().encode(), 2), "20048 bytes|bytes"),
        (npy(header())[:40], "header"),
        (b"\x93NUMPY", "header"),
    ],
)
def test_hostile_npy(tmp_path, content, found):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=found):
        open_movie(File(tmp_path / "a.npy"))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_of_npy(tmp_path, version):
    array = movie_of()[0, 0]
    (tmp_path / "a.npy").write_bytes(npy(header(str(array.shape)), version, array.tobytes()))
    assert_movie(open_movie(File(tmp_path / "a.npy")), array[np.newaxis, np.newaxis])


def test_what_is_refused():
    for array, found in {
        "complex": (np.zeros((2, 3, 3), complex), "dtype complex128"),
        "text": (np.full((3, 3), "a"), "dtype <U1"),
        "objects": (np.full((3, 3), None), "dtype object"),
        "records": (np.zeros((3, 3), [("a", "u1")]), "dtype"),
        "empty": (np.zeros((3, 0, 3)), "is empty"),
        "colour": (np.zeros((30, 40, 3)), "may be one image of"),
        "masked": (np.ma.zeros((30, 40)), "is a masked array"),
    }.values():
        with pytest.raises(InputError, match=found):
            open_movie(array)
    with pytest.raises(InputError, match="is a list"):
        open_movie([1, 2])


# --- TIFF

COMPRESSIONS = [None, "zlib", "lzw", "zstd", "packbits", "lzma"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 7}, {}], ids=str)
@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "f4", "f8", "u8"])
def test_tiff_layouts(tmp_path, compression, layout, dtype):
    expected = movie_of((2, 2, 37, 30), dtype)
    predictor = compression in ("zlib", "lzw") and {"u": 2, "i": 2, "f": 3}[np.dtype(dtype).kind]
    options = {"compression": compression, "predictor": predictor, **layout}
    for byteorder in "<>":
        if dtype != "u8":  # which OME-XML has no word for
            file = tiff(tmp_path, expected, ome=True, byteorder=byteorder, metadata={"axes": "TCYX"}, **options)
            assert_movie(open_movie(file), expected)
        file = tiff(tmp_path, expected[:, 0], byteorder=byteorder, bigtiff=True, metadata=None, **options)
        assert_movie(open_movie(file), expected[:, :1])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("letters", ["TCYX", "CTYX", "ZCYX", "CZYX", "TYX", "CYX", "YX"])
def test_ome(tmp_path, letters, compression):
    kinds = letters.replace("Z", "T")
    expected = movie_of(tuple(SIZES[kind] if kind in kinds else 1 for kind in "TCYX"))
    names = ["DAPI", "CD45 & <more>"][: expected.shape[1]]
    metadata = {"axes": letters, "Channel": {"Name": names}}
    file = tiff(tmp_path, arranged(expected, kinds), ome=True, metadata=metadata, compression=compression)
    for axes in (None, letters, kinds.lower()):
        movie = open_movie(file, axes=axes)
        assert_movie(movie, expected)
        assert movie.names == tuple(names)
        assert not movie.assumed
        assert sorted(movie.axes.replace("Z", "T")) == ["C", "T", "X", "Y"]
    if {"T", "C"} <= set(kinds):
        wrong = kinds[1] + kinds[0] + "YX"
        with pytest.raises(InputError, match=f"axes '{wrong}', the file says '{letters}'"):
            open_movie(file, axes=wrong)


def test_ome_that_has_no_place(tmp_path):
    file = tiff(tmp_path, np.zeros((3, 4, 20, 30), "u1"), ome=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match=r"time lapse of stacks: T \(3\) and Z \(4\).*→ give one plane"):
        open_movie(file)


def test_ome_of_colours(tmp_path):
    expected = movie_of((3, 3, 40, 30), "u1")
    for planarconfig, letters in (("contig", "TYXC"), ("separate", "TCYX")):
        metadata = {"axes": letters.replace("C", "S")}
        options = {"photometric": "rgb", "planarconfig": planarconfig, "metadata": metadata}
        assert_movie(open_movie(tiff(tmp_path, arranged(expected, letters), ome=True, **options)), expected)


def test_ome_of_several_files(tmp_path):
    expected = movie_of()
    tifffile.imwrite(tmp_path / "all.ome.tif", expected, ome=True, metadata={"axes": "TCYX"})
    with tifffile.TiffFile(tmp_path / "all.ome.tif") as file:
        xml = file.ome_metadata
    places = "".join(
        f'<TiffData FirstT="{t}" FirstC="{c}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="f{t}{c}.ome.tif">urn:uuid:{t}{c}</UUID></TiffData>'
        for t in range(3)
        for c in range(2)
    )
    start, rest = xml.split("<TiffData", 1)
    xml = start + places + rest[rest.index("/>") + 2 :]
    for t, c in itertools.product(range(3), range(2)):
        options = {"description": xml, "metadata": None, "compression": "zlib"}
        tifffile.imwrite(tmp_path / f"f{t}{c}.ome.tif", expected[t, c], **options)
    assert_movie(open_movie(tmp_path / "f00.ome.tif"), expected)
    with pytest.raises(InputError, match="cannot be found beside it"):
        open_movie(File(tmp_path / "f00.ome.tif", name="a.zip: f00.ome.tif"))
    (tmp_path / "f21.ome.tif").unlink()
    with pytest.raises(InputError, match=r"'f21\.ome\.tif' cannot be found beside it"):
        open_movie(tmp_path / "f00.ome.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej(tmp_path, compression):
    expected = movie_of()
    for letters in ("TYX", "TCYX", "CYX", "ZYX", "ZCYX"):
        kinds = letters.replace("Z", "T")
        array = arranged(expected[slice(0, 3 if "T" in kinds else 1), slice(0, 2 if "C" in kinds else 1)], kinds)
        file = tiff(tmp_path, array, imagej=True, metadata={"axes": letters}, compression=compression)
        part = expected[: 3 if "T" in kinds else 1, : 2 if "C" in kinds else 1]
        assert_movie(open_movie(file), part)
        assert_movie(open_movie(file, axes=letters), part)
    with pytest.raises(InputError, match="the file says 'ZCYX'"):
        open_movie(file, axes="CZYX")
    labels = {"axes": "CYX", "Labels": ["a", "b"]}
    assert open_movie(tiff(tmp_path, expected[0], imagej=True, metadata=labels)).names == ("a", "b")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_are_frames(tmp_path, compression):
    expected = movie_of()[:, :1]
    movie = open_movie(tiff(tmp_path, expected[:, 0], metadata=None, compression=compression))
    assert_movie(movie, expected)
    assert (movie.axes, movie.assumed) == ("TYX", True)
    # Pages as narrow as this are no colours.
    narrow = movie_of((7, 1, 20, 3))
    assert_movie(open_movie(tiff(tmp_path, narrow[:, 0], metadata=None, compression=compression)), narrow)
    with pytest.raises(InputError, match="may be one image of"):
        open_movie(tiff(tmp_path, narrow[:, 0], compression=compression))
    told = {"metadata": {"axes": "CYX"}, "compression": compression}
    assert_movie(open_movie(tiff(tmp_path, expected[:, 0], **told)), expected.transpose(1, 0, 2, 3))
    with pytest.raises(InputError, match="the file says 'CYX'"):
        open_movie(tiff(tmp_path, expected[:, 0], **told), axes="TYX")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_values_of_a_pixel_are_channels(tmp_path, compression):
    for n, dtype in itertools.product((3, 4), ("u1", "u2")):
        expected = movie_of((2, n, 40, 30), dtype)
        for metadata, planarconfig in itertools.product((None, {}), ("contig", "separate")):
            letters = "TYXC" if planarconfig == "contig" else "TCYX"
            options = {"photometric": "rgb", "planarconfig": planarconfig, "compression": compression}
            movie = open_movie(tiff(tmp_path, arranged(expected, letters), metadata=metadata, **options))
            assert_movie(movie, expected)
            assert any("transparency" in text for text in movie.warnings) == (n == 4)
            movie = open_movie(tiff(tmp_path, arranged(expected[:1], letters[1:]), metadata=metadata, **options))
            assert_movie(movie, expected[:1])
            assert not movie.assumed


def test_left_out_dimensions_of_tiff(tmp_path):
    expected = movie_of()[:, :1]
    for compression, axes in itertools.product((None, "zlib"), ("TCYX", "TYX", "ZCYX")):
        assert_movie(open_movie(tiff(tmp_path, expected, compression=compression), axes=axes), expected)


def test_one_header_for_all_pages(tmp_path):
    expected = movie_of()[:, :1]
    assert_movie(open_movie(tiff(tmp_path, expected[:, 0], truncate=True)), expected)


def test_pyramids_and_further_images(tmp_path):
    expected = movie_of((2, 1, 64, 48))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(expected[:, 0], subifds=1, tile=(16, 16), metadata={"axes": "TYX"}, photometric="minisblack")
        file.write(expected[:, 0, ::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
        file.write(expected[0, 0, :9, :9], metadata={"axes": "YX"}, photometric="minisblack")
    movie = open_movie(tmp_path / "a.ome.tif")
    assert_movie(movie, expected)
    assert ["of 2 images the first is taken" in text for text in movie.warnings] == [True]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        options = {"photometric": "minisblack", "metadata": None}
        file.write(expected[0, 0], **options)
        file.write(expected[0, 0, ::2, ::2], subfiletype=1, **options)
    assert_movie(open_movie(tmp_path / "a.tif"), expected[:1])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(expected[:, 0], photometric="minisblack")
        file.write(expected[:, 0, ::2], photometric="minisblack")
    movie = open_movie(tmp_path / "a.tif")
    assert_movie(movie, expected)
    assert ["of 2 images the first, of shape (2, 64, 48), is taken" in text for text in movie.warnings] == [True]


def test_colours_that_are_no_brightness(tmp_path):
    image = movie_of(dtype="u1")[0, 0]
    table = np.zeros((3, 256), "u2")
    inverted = open_movie(tiff(tmp_path, image, photometric="miniswhite"))
    assert_movie(inverted, image[np.newaxis, np.newaxis])
    assert ["says that 0 is white" in text for text in inverted.warnings] == [True]
    lossy = tiff(tmp_path, image, compression="jpeg")
    assert open_movie(lossy).stack.dtype == np.uint8
    with pytest.raises(InputError, match="compressed as JPEG or WebP, which does not keep numbers"):
        open_movie(lossy, as_labels=True)
    palette = tiff(tmp_path, image, photometric="palette", colormap=table)
    with pytest.raises(InputError, match="is coloured by PALETTE"):
        open_movie(palette)
    movie = open_movie(palette, as_labels=True)
    assert_movie(movie, image[np.newaxis, np.newaxis])
    assert ["palette" in text for text in movie.warnings] == [True]
    frames = movie_of(dtype="u1")[:, :1]
    for compression in (None, "zlib"):
        shown = {"imagej": True, "colormap": table, "photometric": "palette", "metadata": {"axes": "TYX"}}
        movie = open_movie(tiff(tmp_path, frames[:, 0], compression=compression, **shown))
        assert_movie(movie, frames)
        assert len(movie.warnings) == 1
    with pytest.raises(InputError, match="dtype complex64"):
        open_movie(tiff(tmp_path, image.astype("c8")))


def test_pages_that_differ(tmp_path):
    for second in (np.zeros((20, 30), "u2"), np.zeros((20, 31), "u1")):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for page in (np.zeros((20, 31), "u2"), second, np.zeros((20, 31), "u2")):
                file.write(page, photometric="minisblack", metadata=None, contiguous=False)
        with pytest.raises(InputError, match=r"has pages of different kinds|page 1 has the shape"):
            open_movie(tmp_path / "a.tif")


def test_hostile_tiff(tmp_path):
    """A file that is cut off, or of which a byte is another, is read or refused, never anything else."""
    expected = movie_of((2, 2, 20, 31))
    rng = np.random.default_rng(0)
    for options in ({"ome": True, "compression": "zlib"}, {"metadata": None}, {"imagej": True, "compression": "zlib"}):
        content = (tiff(tmp_path, expected, "good.tif", **options).path).read_bytes()
        refused = []
        for number in range(120):
            damaged = bytearray(content)
            if number % 3 == 0:
                del damaged[int(rng.integers(len(content))) :]
            else:
                limit = len(content) if number % 3 == 1 else 400
                damaged[int(rng.integers(limit))] = int(rng.integers(256))
            (tmp_path / "bad.tif").write_bytes(damaged)
            try:
                movie = open_movie(tmp_path / "bad.tif")
                assert number % 3, "cut off, and nothing said"
                if np.prod(movie.stack.shape) < 1e6:
                    whole(movie.stack)
            except InputError as error:
                refused.append(str(error))
        assert len(refused) > 40
        assert all("bad.tif" in text or "images" in text for text in refused)


def test_tiff_that_claims_more_than_it_holds(tmp_path):
    path = tiff(tmp_path, np.zeros((20, 31), "u2"), compression="zlib", metadata=None).path
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[tag].valueoffset for tag in (256, 257)]
    damaged = bytearray(content)
    for place in places:
        damaged[place : place + 2] = b"\xff\xff"
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"segments|is said to hold|cut short"):
        open_movie(path)
    # No page at all, and pages that lead back to the first.
    path.write_bytes(b"II*\0" + bytes(8))
    with pytest.raises(InputError, match=r"a\.tif"):
        open_movie(path)
    two = bytearray(tiff(tmp_path, np.zeros((2, 20, 31), "u2"), metadata=None).path.read_bytes())
    with tifffile.TiffFile(path) as file:
        first, second = (page.offset for page in file.pages)
        n_tags = struct.unpack("<H", two[second : second + 2])[0]
    end = second + 2 + 12 * n_tags
    two[end : end + 4] = struct.pack("<I", first)
    path.write_bytes(two)
    with pytest.raises(InputError, match=r"a\.tif: is damaged .*circular"):
        open_movie(path)


# --- PNG


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("n", [0, 2, 3, 4])
def test_png(tmp_path, dtype, n):
    shape = (40, 30, n) if n else (40, 30)
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    movie = open_movie(tmp_path / "a.png")
    expected = image[:, :, np.newaxis] if not n else image[:, :, : 3 if n > 2 else 1]
    assert_movie(movie, expected.transpose(2, 0, 1)[np.newaxis])
    assert ["transparency" in text for text in movie.warnings] == [True] * (n in (2, 4))
    if n > 2:
        with pytest.raises(InputError, match="colour PNG"):
            open_movie(tmp_path / "a.png", as_labels=True)
    else:
        assert open_movie(tmp_path / "a.png", as_labels=True).stack.shape == (1, 1, 40, 30)


def test_png_of_few_bits(tmp_path):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(b"\0\xa0\0\x50")
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 1, 0, 0, 0, 0)),
        chunk(b"IDAT", rows),
        chunk(b"IEND", b""),
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    movie = open_movie(tmp_path / "a.png")
    assert_movie(movie, np.array([[[[255, 0, 255, 0], [0, 255, 0, 255]]]], np.uint8))
    assert ["1-bit values are stretched" in text for text in movie.warnings] == [True]


# --- Zarr, dask


@pytest.mark.parametrize("options", [V2, {}], ids=["v2", "v3"])
def test_zarr(tmp_path, options):
    expected = movie_of((3, 2, 40, 31))
    store = str(tmp_path / "a.zarr")
    zarr.open_array(store, mode="w", shape=(3, 40, 31, 2), chunks=(2, 16, 10, 2), dtype="u2", **options)[...] = (
        arranged(expected, "TYXC")
    )
    for source in (tmp_path / "a.zarr", zarr.open(store, mode="r")):
        movie = open_movie(source)
        assert_movie(movie, expected)
        assert (movie.stack.grain, movie.stack.together, movie.assumed) == (16, True, True)
        assert_movie(open_movie(source, axes="TYXC"), expected)
    for root in (tmp_path, tmp_path / "a.zarr"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            for path in sorted((tmp_path / "a.zarr").rglob("*")):
                if path.is_file():
                    file.write(path, path.relative_to(root))
        assert_movie(open_movie(tmp_path / "a.zip"), expected)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    expected = movie_of((3, 2, 40, 31))
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", **(V2 if version == "0.4" else {}))
    axes = [{"name": name} for name in "tczyx"]
    scales = [{"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}]
    described = {"multiscales": scales, "omero": {"channels": [{"label": "a"}, {"label": "b"}]}}
    root.attrs.update(described if version == "0.4" else {"ome": described})
    make = root.create_array if hasattr(root, "create_array") else root.create_dataset
    make("0", shape=(3, 2, 1, 40, 31), chunks=(1, 1, 1, 16, 16), dtype="u2")[...] = expected[:, :, np.newaxis]
    movie = open_movie(tmp_path / "a.zarr")
    assert_movie(movie, expected)
    assert movie.names == ("a", "b")
    assert movie.axes == "TCYX"
    with pytest.raises(InputError, match="the file says 'TCYX'"):
        open_movie(tmp_path / "a.zarr", axes="CTYX")
    (tmp_path / "empty").mkdir()
    zarr.open_group(str(tmp_path / "empty"), mode="w")
    with pytest.raises(InputError, match="no OME-Zarr image"):
        open_movie(tmp_path / "empty")


def test_damaged_zarr(tmp_path):
    store = tmp_path / "a.zarr"
    zarr.open_array(str(store), mode="w", shape=(2, 40, 40), chunks=(1, 16, 16), dtype="u2", **V2)[...] = 7
    chunk = next(path for path in store.rglob("*") if path.name[0] != "." and path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:5])
    with pytest.raises(InputError, match=r"pixels: cannot be read from .*a\.zarr"):
        whole(open_movie(store).stack)
    (store / ".zarray").write_text('{"zarr_format": 2}')
    with pytest.raises(InputError, match="header: cannot be read"):
        open_movie(store)


def test_dask():
    expected = movie_of((3, 2, 40, 31))
    array = da.from_array(expected, ((1, 2), (2,), (10, 17, 13), (31,)))
    movie = open_movie(array, axes="TCYX")
    assert_movie(movie, expected)
    assert movie.stack.grain == 17
    unknown = array[array[:, 0, 0, 0] > -1]
    with pytest.raises(InputError, match="chunks of unknown sizes"):
        open_movie(unknown, axes="TCYX")

    def fails(block):
        raise ValueError("no disk")

    with pytest.raises(InputError, match="no disk"):
        whole(open_movie(array.map_blocks(fails, dtype="u2", meta=np.empty(0, "u2")), axes="TCYX").stack)


# --- several files


def test_folders_of_frames(tmp_path):
    expected = movie_of((12, 1, 20, 31))
    for number, frame in enumerate(expected[:, 0]):
        if number % 2:
            (tmp_path / f"img_{number}.png").write_bytes(imagecodecs.png_encode(frame))
        else:
            tiff(tmp_path, frame, f"img_{number}.tif", compression="zlib")
    (tmp_path / ".hidden").write_bytes(b"?")
    movie = open_movie(tmp_path)
    assert_movie(movie, expected)
    assert movie.warnings == ()
    assert_movie(open_movie(tmp_path, axes="TYX"), expected)
    assert_movie(open_movie(tmp_path, axes="CYX"), expected.transpose(1, 0, 2, 3))
    assert_movie(open_movie(tmp_path, as_labels=True, like=(12, 20, 31)), expected)
    (tmp_path / "notes.txt").write_text("?")
    assert ["'notes.txt'" in text for text in open_movie(tmp_path).warnings] == [True]
    tiff(tmp_path, np.zeros((20, 30), "u2"), "img_20.tif")
    tiff(tmp_path, np.zeros((20, 31), "u1"), "img_21.tif")
    with pytest.raises(InputError, match="2 problems") as caught:
        open_movie(tmp_path)
    assert "img_20.tif: has 1 frames of 1 channels of 20 × 30 uint16, where img_0.tif has" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder without images"):
        open_movie(tmp_path / "empty")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files")
def test_folders_of_many_files_keep_few_open(tmp_path):
    frame = movie_of()[0, 0]
    for number in range(150):
        np.save(tmp_path / f"{number}.npy", frame + np.uint16(number))
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    stack = open_movie(tmp_path).stack
    found = whole(stack)
    assert len(os.listdir("/proc/self/fd")) - before < 80
    np.testing.assert_array_equal(found[:, 0], frame + np.arange(150, dtype="u2")[:, np.newaxis, np.newaxis])
    np.save(tmp_path / "7.npy", frame[:5])
    with pytest.raises(InputError, match=r"7\.npy: has changed while it was read"):
        stack.read(7, slice(0, 1), slice(0, 5))


def test_stacked():
    expected = movie_of((5, 3, 20, 31))
    frames = [open_movie(expected[part], axes="TCYX") for part in (slice(0, 2), slice(2, 3), slice(3, 5))]
    assert_movie(stacked(frames, along="frames"), expected)
    channels = [open_movie(expected[:, part], axes="TCYX") for part in (slice(0, 1), slice(1, 3))]
    movie = stacked(channels, along="channels", where="labels")
    assert_movie(movie, expected)
    assert movie.where == "labels"
    assert_movie(stacked(channels[:1], along="frames"), expected[:, :1])
    with pytest.raises(InputError, match="holds no images"):
        stacked([], along="frames")
    with pytest.raises(InputError, match=r"has 5 frames of 2 channels .* where images has 5 frames of 1"):
        stacked(channels, along="frames")


def test_grid():
    expected = movie_of((3, 2, 20, 31), "i4")

    def images(first_frame=0, first_channel=0):
        return {
            (t + first_frame, c + first_channel): open_movie(expected[t, c], where=f"{t} {c}")
            for c, t in itertools.product(range(2), range(3))
        }

    for first in ((0, 0), (1, 1), (7, 0)):
        movie = grid(images(*first))
        assert_movie(movie, expected)
    bad = images()
    del bad[1, 1]
    bad[2, 0] = open_movie(expected[2, 0, :5], where="2 0")
    bad[0, 1] = open_movie(expected[:2, 0], where="0 1")
    bad[5, 0] = bad[0, 0]
    with pytest.raises(InputError) as caught:
        grid(bad, where="labels.zip")
    text = str(caught.value)
    assert "labels.zip: has nothing between frame 2 and 5" in text
    assert "labels.zip: lacks 2 of 8 images, such as 'frame 1 channel 1', 'frame 5 channel 1'" in text
    assert "2 0: has 1 frames of 1 channels of 5 × 31 int32" in text
    assert "0 1: holds 2 frames of 1 channels" in text
    one = images()[0, 0]
    with pytest.raises(InputError, match="lacks 249500 of 250000 images"):
        grid({(number, number): one for number in range(500)})
    with pytest.raises(InputError, match="nothing between frame 0 and 1000000000000"):
        grid({(0, 0): images()[0, 0], (10**12, 0): images()[0, 0]})
    with pytest.raises(InputError, match="holds no images"):
        grid({})


# --- what is no image


def test_other_files(tmp_path):
    for start, found in {
        b"\x89HDF\r\n\x1a\n": "is an HDF5 file → give a TIFF",
        b"\xff\xd8\xff\xe0": "is a JPEG",
        b"\x1f\x8b\x08": "compressed with gzip",
        b"PK\3\4": "is a zip file, where",
        b"": "is no image that can be read here",
        b"hello world": "is no image that can be read here",
    }.items():
        (tmp_path / "a.tif").write_bytes(start)
        with pytest.raises(InputError, match=found):
            open_movie(File(tmp_path / "a.tif"))
    with pytest.raises(InputError, match="cannot be read"):
        open_movie(tmp_path / "missing.tif")


def test_labels_fit_their_image(tmp_path):
    movie = movie_of(dtype="i4")
    for part, names in ((movie, ("TYXC", "CTYX", "TCYX")), (movie[:1], ("YXC", "CYX"))):
        for letters in names:
            array = arranged(part, letters)
            files = tiff(tmp_path, array), tiff(tmp_path, array, "b.tif", compression="zlib")
            for source in (array, saved(tmp_path, array), *files):
                opened = open_movie(source, as_labels=True, like=(part.shape[0], 20, 31))
                assert_movie(opened, part)
                assert not opened.assumed
    assert open_movie(movie[:, 0], as_labels=True, like=(9, 9, 9)).stack.shape == (3, 1, 20, 31)
