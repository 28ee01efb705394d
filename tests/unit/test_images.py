"""Images as planes: every kind of file equals what its writer was given; damage is refused by name."""

import gc
import itertools
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from atlaswriter.errors import InputError
from atlaswriter.sources import tiff
from atlaswriter.sources.images import cropped, keyed, open_planes
from atlaswriter.sources.ome import parse
from atlaswriter.sources.tiling import Tiling, tiling

V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}


def picture(shape, dtype=np.uint16, seed=0):
    """Smooth with some noise, as images are; whole range of the dtype."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 37
    noise = rng.integers(0, 20, shape)
    return (noise + ramp.reshape(ramp.shape + (1,) * (len(shape) - 2))).astype(dtype)


def assert_plane(plane, expected):
    pixels = plane.pixels
    assert pixels.shape == expected.shape
    assert pixels.dtype == expected.dtype.newbyteorder("=")
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels[:], expected)
    rng = np.random.default_rng(1)
    for _ in range(12):
        rows, columns = (slice(*sorted(rng.integers(0, size + 1, 2).tolist())) for size in expected.shape[:2])
        found = pixels[rows, columns]
        assert found.flags.c_contiguous or isinstance(pixels, np.ndarray)
        np.testing.assert_array_equal(found, expected[rows, columns])
    if not isinstance(pixels, np.ndarray):
        assert pixels.grain >= 1
        assert pixels.overhead >= 0
        assert pixels.speed > 0


@pytest.fixture
def silent():
    told = []
    yield told.append
    assert told == []


# --- TIFF


COMPRESSIONS = [
    None, "zlib", "deflate", "lzw", "zstd", "packbits", "lzma", "jpeg2000", "jpegxl", "png", "lerc",
]  # fmt: skip
LAYOUTS = [{"tile": (64, 48)}, {"rowsperstrip": 7}, {"rowsperstrip": 1000}, {"tile": (512, 512)}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_compressions(tmp_path, compression, dtype, layout, silent):
    if dtype == np.uint32 and compression in ("jpeg2000", "jpegxl", "png"):
        pytest.skip("these have no 32 bit, or no lossless ones")
    image = picture((150, 101), dtype)
    options = {"compressionargs": {"level": 0}} if compression == "jpeg2000" else {}
    if compression == "jpegxl":
        options = {"compressionargs": {"lossless": True}}
    tifffile.imwrite(tmp_path / "a.tif", image, compression=compression, **layout, **options)
    (plane,) = open_planes(tmp_path / "a.tif", warn=silent)
    assert (plane.key, plane.label, plane.suggested_max) == ("a", "a", None)
    assert_plane(plane, image)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_predictors_and_byte_orders(tmp_path, compression, byteorder, predictor, dtype, silent):
    image = picture((70, 90), dtype)
    for layout in ({"tile": (32, 32)}, {"rowsperstrip": 9}):
        options = {"compression": compression, "predictor": predictor and compression is not None, **layout}
        tifffile.imwrite(tmp_path / "a.tif", image, byteorder=byteorder, bigtiff=True, **options)
        assert_plane(open_planes(tmp_path / "a.tif", warn=silent)[0], image)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 11}], ids=str)
@pytest.mark.parametrize("alpha", [False, True])
def test_colour(tmp_path, planarconfig, compression, layout, alpha, silent):
    image = picture((75, 60, 4 if alpha else 3), np.uint8)
    stored = np.moveaxis(image, 2, 0) if planarconfig == "separate" else image
    options = {"photometric": "rgb", "planarconfig": planarconfig, "compression": compression, **layout}
    tifffile.imwrite(tmp_path / "he.tif", stored, predictor=compression is not None, **options)
    (plane,) = open_planes(tmp_path / "he.tif", warn=silent)
    assert_plane(plane, image[:, :, :3])


def test_lossy_colour(tmp_path, silent):
    image = picture((100, 120, 3), np.uint8) // 4
    tifffile.imwrite(tmp_path / "he.tif", image, photometric="rgb", compression="jpeg", tile=(64, 64))
    (plane,) = open_planes(tmp_path / "he.tif", warn=silent)
    np.testing.assert_array_equal(plane.pixels[:], tifffile.imread(tmp_path / "he.tif"))
    np.testing.assert_array_equal(plane.pixels[50:77, 60:100], tifffile.imread(tmp_path / "he.tif")[50:77, 60:100])


def test_several_values_per_pixel_are_channels(tmp_path, silent):
    image = picture((40, 50, 2))
    for planarconfig in ("contig", "separate"):
        stored = np.moveaxis(image, 2, 0) if planarconfig == "separate" else image
        tifffile.imwrite(
            tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planarconfig, extrasamples=0
        )
        planes = open_planes(tmp_path / "a.tif", warn=silent)
        assert len(planes) == 2
        for number, plane in enumerate(planes):
            assert_plane(plane, image[:, :, number])


def test_strips_as_they_are_are_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_RAW_BYTES", 3000)
    image = picture((500, 400))
    tifffile.imwrite(tmp_path / "a.tif", image, rowsperstrip=500)
    (plane,) = open_planes(tmp_path / "a.tif")
    assert plane.pixels.grain == 3
    assert plane.pixels.overhead < 3 * 3000
    assert_plane(plane, image)


def test_tiles_that_were_left_out_are_blank(tmp_path):
    def tiles():
        yield imagecodecs.deflate_encode(np.full((32, 32), 7, np.uint16).tobytes())
        yield b""
        yield b""
        yield imagecodecs.deflate_encode(np.full((32, 32), 9, np.uint16).tobytes())

    tifffile.imwrite(tmp_path / "a.tif", tiles(), shape=(64, 64), dtype=np.uint16, tile=(32, 32), compression="zlib")
    image = np.zeros((64, 64), np.uint16)
    image[:32, :32], image[32:, 32:] = 7, 9
    assert_plane(open_planes(tmp_path / "a.tif")[0], image)


def test_many_threads_read_one_file(tmp_path):
    image = picture((600, 500))
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", predictor=True, tile=(64, 64))
    pixels = open_planes(tmp_path / "a.tif")[0].pixels
    keys = [(slice(a, a + 90), slice(b, b + 110)) for a, b in itertools.product(range(0, 600, 45), range(0, 500, 60))]
    with ThreadPoolExecutor(8) as pool:
        for key, found in zip(keys, pool.map(lambda key: pixels[key], keys), strict=True):
            np.testing.assert_array_equal(found, image[key])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_files_are_closed(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture((20, 20)))
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    planes = open_planes(tmp_path / "a.tif")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del planes
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("image", "options", "found"),
    [
        (np.zeros((5, 5), np.float32), {}, "dtype float32"),
        (np.zeros((5, 5), np.int16), {}, "dtype int16"),
        (np.zeros((5, 5), bool), {}, "1 bit"),
        (np.zeros((5, 5, 3), np.uint16), {"photometric": "rgb"}, "colour image of 16 bit"),
        (np.zeros((5, 5), np.uint8), {"photometric": "miniswhite"}, "MINISWHITE"),
        (np.zeros((5, 5), np.uint8), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "PALETTE"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused(tmp_path, image, options, found):
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    with pytest.raises(InputError, match=found) as caught:
        open_planes(tmp_path / "a.tif")
    assert "convert it to 8 or 16 bit" in str(caught.value)


# --- OME-TIFF


def ome_files(folder, n=3, shape=(60, 80), **changes):
    """As 10x writes it: one channel a file, all of them described in each."""
    images = [picture(shape, seed=number) for number in range(n)]
    names = ["DAPI", "ATP1A1/CD45", "18S", "AlphaSMA/Vimentin"][:n]
    uuids = [f"urn:uuid:0000000{number}-0000-0000-0000-000000000000" for number in range(n)]
    channels = "".join(f'<Channel ID="Channel:{i}" Name="{name}" SamplesPerPixel="1"/>' for i, name in enumerate(names))
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="m_{i}.ome.tif">{uuid}</UUID></TiffData>'
        for i, uuid in enumerate(uuids)
    )
    maps = "".join(
        f'<MapAnnotation ID="Annotation:{i}"><Value><M K="Long name">{name}</M>'
        f'<M K="Suggested LUT max">{1000 * (i + 1)}</M></Value></MapAnnotation>'
        for i, name in enumerate(names)
        if i != 1
    )
    for number, image in enumerate(images):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuids[number]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeC="{n}" SizeZ="1" SizeT="1">{channels}{data}</Pixels></Image>'
            f"<StructuredAnnotations>{maps}</StructuredAnnotations></OME>"
        )
        for old, new in changes.items():
            xml = xml.replace(old, new)
        options = {"tile": (32, 32), "compression": "zlib", "predictor": True}
        tifffile.imwrite(folder / f"m_{number}.ome.tif", image, description=xml, metadata=None, **options)
    return images


def test_several_files(tmp_path, silent):
    images = ome_files(tmp_path)
    paths = sorted(tmp_path.iterdir())
    for source in (*paths, paths, str(paths[0]), paths[::-1]):
        planes = open_planes(source, warn=silent)
        assert [plane.key for plane in planes] == ["dapi", "atp1a1_cd45", "18s"]
        assert [plane.label for plane in planes] == ["DAPI", "ATP1A1/CD45", "18S"]
        assert [plane.suggested_max for plane in planes] == [1000, None, 3000]
        for plane, image in zip(planes, images, strict=True):
            assert_plane(plane, image)


def test_a_missing_file_is_named(tmp_path):
    images = ome_files(tmp_path)
    (tmp_path / "m_2.ome.tif").unlink()
    with pytest.raises(
        InputError, match=r"m_0\.ome\.tif: .*'m_2\.ome\.tif' cannot be found beside it → copy all files"
    ):
        open_planes(tmp_path / "m_0.ome.tif")
    (plane,) = open_planes(tmp_path / "m_0.ome.tif", only=[0])
    assert_plane(plane, images[0])
    two = open_planes(tmp_path / "m_0.ome.tif", only=[1, 0])
    assert [plane.label for plane in two] == ["ATP1A1/CD45", "DAPI"]
    with pytest.raises(InputError, match="has 3 channels, not 8"):
        open_planes(tmp_path / "m_0.ome.tif", only=[7])


def test_a_renamed_file_is_known_by_its_uuid(tmp_path, silent):
    (image,) = ome_files(tmp_path, n=1)
    (tmp_path / "m_0.ome.tif").rename(tmp_path / "mine.ome.tif")
    (plane,) = open_planes(tmp_path / "mine.ome.tif", warn=silent)
    assert_plane(plane, image)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"m_1.ome.tif": "../secret.tif"}, "not beside it"),
        ({"m_1.ome.tif": "/etc/passwd"}, "not beside it"),
        ({"<OME ": '<!DOCTYPE a [<!ENTITY b "c">]><OME '}, "declares entities"),
        ({"</Pixels>": ""}, "damaged OME-XML"),
        ({'SizeX="80"': 'SizeX="81"'}, "81 × 60"),
        ({'SizeZ="1"': 'SizeZ="1000000"'}, "3000000 planes"),
        ({'SizeZ="1"': 'SizeZ="x"'}, "damaged OME-XML"),
        ({'IFD="0"': 'IFD="3"'}, "has 1 pages, where the image needs page 3"),
        ({'IFD="0"': 'IFD="-1"'}, "page -1"),
        ({'DimensionOrder="XYZCT"': 'DimensionOrder="XYZZT"'}, "dimension order"),
        ({'FirstC="2"': 'FirstC="1"'}, "describes 2 of 3 planes"),
        ({'PlaneCount="1"': 'PlaneCount="999999999"'}, "places planes where there are none"),
    ],
    ids=str,
)
def test_hostile_descriptions(tmp_path, changes, found):
    ome_files(tmp_path, **changes)
    with pytest.raises(InputError, match=found):
        open_planes(tmp_path / "m_0.ome.tif")


def test_one_file_of_several_channels(tmp_path, silent):
    images = picture((4, 50, 70), seed=3)
    names = {"axes": "CYX", "Channel": {"Name": list("abba")}}
    tifffile.imwrite(tmp_path / "a.ome.tif", images, metadata=names, tile=(32, 32), photometric="minisblack")
    planes = open_planes(tmp_path / "a.ome.tif", warn=silent)
    assert [plane.key for plane in planes] == ["a", "b", "b_2", "a_2"]
    for plane, image in zip(planes, images, strict=True):
        assert_plane(plane, image)


def test_other_levels_of_a_pyramid_are_left_alone(tmp_path, silent):
    image = picture((80, 64))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", bigtiff=True) as writer:
        writer.write(image, subifds=2, tile=(32, 32), metadata={"axes": "YX"})
        writer.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
        writer.write(image[::4, ::4], subfiletype=1, tile=(32, 32))
    (plane,) = open_planes(tmp_path / "a.ome.tif", warn=silent)
    assert_plane(plane, image)


@pytest.mark.parametrize("axes", ["ZYX", "ZCYX", "CZYX"])
@pytest.mark.parametrize("name", ["a.ome.tif", "imagej.tif"])
def test_stacks_show_their_brightest_pixels(tmp_path, axes, name):
    shape = {"Z": 3, "C": 2, "Y": 40, "X": 30}
    images = np.random.default_rng(0).integers(0, 9999, [shape[axis] for axis in axes], dtype=np.uint16)
    if name.startswith("imagej"):
        if axes == "CZYX":
            pytest.skip("ImageJ has another order")
        tifffile.imwrite(tmp_path / name, images, imagej=True, metadata={"axes": axes})
    else:
        tifffile.imwrite(tmp_path / name, images, metadata={"axes": axes}, photometric="minisblack", compression="zlib")
    told = []
    planes = open_planes(tmp_path / name, warn=told.append)
    assert len(told) == 1
    assert "of 3 planes along z the brightest pixels" in told[0]
    flat = images.max(axis=axes.index("Z"))
    for plane, expected in zip(planes, flat if "C" in axes else [flat], strict=True):
        assert_plane(plane, expected)


def test_of_several_times_the_first(tmp_path):
    images = picture((3, 40, 30))
    tifffile.imwrite(tmp_path / "a.ome.tif", images, metadata={"axes": "TYX"}, photometric="minisblack")
    told = []
    (plane,) = open_planes(tmp_path / "a.ome.tif", warn=told.append)
    assert "of 3 time points the first" in told[0]
    assert_plane(plane, images[0])


def test_description_in_another_file(tmp_path, silent):
    ome_files(tmp_path, n=2)
    xml = tifffile.TiffFile(tmp_path / "m_0.ome.tif").pages[0].description
    (tmp_path / "all.companion.ome").write_text(xml)
    link = '<OME><BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:1"/></OME>'
    image = picture((60, 80), seed=1)
    tifffile.imwrite(tmp_path / "m_1.ome.tif", image, description=link, metadata=None)
    planes = open_planes(tmp_path / "m_1.ome.tif", warn=silent)
    assert [plane.label for plane in planes] == ["DAPI", "ATP1A1/CD45"]
    assert_plane(planes[1], image)


def test_pages_of_a_plain_file_are_channels(tmp_path, silent):
    images = picture((3, 40, 30))
    tifffile.imwrite(tmp_path / "a.tif", images, photometric="minisblack", metadata=None)
    planes = open_planes(tmp_path / "a.tif", warn=silent)
    assert [plane.label for plane in planes] == ["a 1", "a 2", "a 3"]
    for plane, image in zip(planes, images, strict=True):
        assert_plane(plane, image)


def test_sizes_must_agree(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture((40, 30)))
    tifffile.imwrite(tmp_path / "b.tif", picture((40, 31)))
    with pytest.raises(InputError, match="b: has 31 × 40 pixels, a 30 × 40"):
        open_planes([tmp_path / "a.tif", tmp_path / "b.tif"])


def test_large_descriptions_are_refused(monkeypatch):
    monkeypatch.setattr("atlaswriter.sources.ome._LONGEST", 10)
    with pytest.raises(InputError, match="bytes of XML"):
        parse("<OME></OME>", "a.tif")


# --- damage


def test_a_file_cut_short_is_refused_at_once(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture((300, 300)), tile=(64, 64), compression="zlib", bigtiff=True)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content[:-100])
    with pytest.raises(
        InputError, match=r"b\.tif: is cut short: page 0 goes up to byte \d+, the file has \d+ → .*copy"
    ):
        open_planes(tmp_path / "b.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "jpeg2000", "png"])
def test_damaged_segments_are_named_when_they_are_read(tmp_path, compression):
    rng = np.random.default_rng(0)
    tifffile.imwrite(
        tmp_path / "a.tif", rng.integers(0, 999, (200, 200), np.uint16), tile=(64, 64), compression=compression
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, size = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + size] = bytes(size)
    (tmp_path / "a.tif").write_bytes(content)
    (plane,) = open_planes(tmp_path / "a.tif")
    assert plane.pixels[:64].shape == (64, 200)
    with pytest.raises(InputError, match=r"a\.tif, page 0, segment 5: cannot be read"):
        plane.pixels[64:80, 70:80]


def test_segments_that_are_too_short(tmp_path):
    def tiles():
        yield zlib.compress(bytes(100))

    tifffile.imwrite(tmp_path / "a.tif", tiles(), shape=(32, 32), dtype=np.uint16, tile=(32, 32), compression="zlib")
    with pytest.raises(InputError, match="it holds 50 of 1024 values"):
        open_planes(tmp_path / "a.tif")[0].pixels[:]


def test_absurd_sizes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture((64, 64)), compression="zlib", rowsperstrip=64)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = [file.pages[0].tags[name] for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
        for tag in tags:
            content[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", 4)
            content[tag.offset + 8 : tag.offset + 12] = struct.pack("<I", 1 << 30)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="is said to hold 1073741824 × 1073741824 pixels"):
        open_planes(tmp_path / "a.tif")


def test_any_damage_is_an_input_error(tmp_path):
    """Bytes of the headers changed at random; tifffile logs what it thinks of them."""
    tifffile.imwrite(tmp_path / "a.ome.tif", picture((2, 90, 70)), tile=(32, 32), compression="zlib", predictor=True)
    good = (tmp_path / "a.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        starts = [page.offset for page in file.pages]
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "b.ome.tif", []
    for _ in range(150):
        content = bytearray(good)
        start = int(rng.choice([0, *starts]))
        for place in rng.integers(start, start + 220, rng.integers(1, 4)):
            if place < len(content):
                content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            for plane in open_planes(path, warn=lambda _: None):
                if np.prod(plane.pixels.shape) < 1 << 22:
                    plane.pixels[:]
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 15
    assert all("b.ome.tif" in text or "b 1" in text for text in refused)


def test_foreign_files(tmp_path):
    (tmp_path / "a.txt").write_text("hello, this is text")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    (tmp_path / "folder").mkdir()
    for name, found in {
        "a.txt": "is no image that can be read here",
        "empty.tif": "is no image",
        "short.tif": "cannot be read",
        "folder": "is a folder but no Zarr store",
        "missing.tif": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=found):
            open_planes(tmp_path / name)


# --- PNG, arrays, Zarr


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("values", [0, 2, 3, 4])
def test_png(tmp_path, dtype, values, silent):
    image = picture((50, 40, values) if values else (50, 40), dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    if dtype == np.uint16 and values > 2:
        with pytest.raises(InputError, match="colour image of 16 bit"):
            open_planes(tmp_path / "a.png")
        return
    (plane,) = open_planes(tmp_path / "a.png", warn=silent)
    assert_plane(plane, image[:, :, :3] if values > 2 else image[:, :, 0] if values else image)


def test_damaged_png(tmp_path):
    content = bytearray(imagecodecs.png_encode(picture((50, 40))))
    (tmp_path / "cut.png").write_bytes(content[:-40])
    with pytest.raises(InputError, match="pixels: cannot be read"):
        open_planes(tmp_path / "cut.png")[0].pixels[:]
    content[16:20] = struct.pack(">I", 1 << 30)
    (tmp_path / "huge.png").write_bytes(content)
    with pytest.raises(InputError, match="is said to hold 1073741824 × 50 pixels"):
        open_planes(tmp_path / "huge.png")
    (tmp_path / "tiny.png").write_bytes(content[:20])
    with pytest.raises(InputError, match="header"):
        open_planes(tmp_path / "tiny.png")


def test_arrays(silent):
    for image in (picture((30, 20)), picture((30, 20, 3), np.uint8), picture((30, 20)).astype(">u2")):
        (plane,) = open_planes(image, warn=silent)
        assert_plane(plane, image)
    stack = picture((4, 30, 20))
    for plane, image in zip(open_planes(stack, warn=silent), stack, strict=True):
        assert_plane(plane, image)
    assert [plane.key for plane in open_planes(stack, only=[2])] == ["array"]
    for wrong, found in {
        "float": (np.zeros((3, 3)), "dtype float64"),
        "empty": (np.zeros((0, 3), np.uint8), "is empty"),
        "shape": (np.zeros((1, 2, 3, 3), np.uint8), r"shape \(1, 2, 3, 3\)"),
        "line": (np.zeros(3, np.uint8), r"shape \(3,\)"),
    }.values():
        with pytest.raises(InputError, match=found):
            open_planes(wrong)


@pytest.mark.parametrize("options", [V2, {}], ids=["v2", "newest"])
def test_zarr_arrays(tmp_path, options, silent):
    for number, image in enumerate([picture((70, 50)), picture((3, 70, 50)), picture((70, 50, 3), np.uint8)]):
        path = tmp_path / f"{number}.zarr"
        chunks = (1, 32, 32) if number == 1 else (32, 32, 3)[: image.ndim]
        zarr.create_array(path, data=image, chunks=chunks, **options)
        planes = open_planes(path, warn=silent)
        for plane, expected in zip(planes, image if number == 1 else [image], strict=True):
            assert_plane(plane, expected)
            assert tiling(plane.pixels) == Tiling(32, 32)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version, silent):
    images = picture((2, 70, 50))
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2 if version == "0.4" else 3)
    for scale in (0, 1):
        group.create_array(f"s{scale}", data=images[:, :: 1 + scale, :: 1 + scale], chunks=(1, 32, 16))
    axes = [{"name": name} for name in "cyx"]
    metadata = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "s0"}, {"path": "s1"}]}],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "Poly T"}]},
    }
    group.attrs.update(metadata if version == "0.4" else {"ome": metadata})
    planes = open_planes(tmp_path / "a.zarr", warn=silent)
    assert [plane.key for plane in planes] == ["dapi", "poly_t"]
    for plane, image in zip(planes, images, strict=True):
        assert_plane(plane, image)


def test_red_green_and_blue_are_one_plane(tmp_path, silent):
    image = picture((70, 50, 3), np.uint8)
    group = zarr.create_group(tmp_path / "he.zarr")
    group.create_array("0", data=np.moveaxis(image, 2, 0), chunks=(3, 32, 32))
    channels = [{"label": label} for label in "rgb"]
    multiscales = [{"axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}]
    group.attrs.update({"multiscales": multiscales, "omero": {"channels": channels}})
    (plane,) = open_planes(tmp_path / "he.zarr", warn=silent)
    assert_plane(plane, image)


def test_other_zarr_groups(tmp_path):
    zarr.create_group(tmp_path / "a.zarr").create_array("x", data=np.zeros(3))
    with pytest.raises(InputError, match="no OME-Zarr image"):
        open_planes(tmp_path / "a.zarr")
    group = zarr.create_group(tmp_path / "b.zarr")
    group.create_array("0", data=np.zeros((4, 4), np.uint8))
    group.attrs["multiscales"] = [{"axes": ["x", "c"], "datasets": [{"path": "0"}]}]
    with pytest.raises(InputError, match="has the axes"):
        open_planes(tmp_path / "b.zarr")


# --- keys, crops, tilings


def test_keys():
    planes = open_planes(picture((3, 8, 8)))
    assert [plane.key for plane in planes] == ["array_1", "array_2", "array_3"]
    assert [plane.key for plane in keyed(planes, ["dapi", "bound"])] == ["dapi", "bound", "array_3"]
    assert [plane.key for plane in keyed(planes, ["array_3"])] == ["array_3", "array_2", "array_3_2"]
    assert [plane.key for plane in keyed(planes[:1], list("abcd"))] == ["a"]


def test_crops(tmp_path):
    image = picture((200, 150))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 32), compression="zlib")
    (plane,) = open_planes(tmp_path / "a.tif")
    part = cropped(plane, slice(70, 190), slice(40, 140))
    assert_plane(part, image[70:190, 40:140])
    assert tiling(part.pixels) == Tiling(64, 32, 6, 8)
    twice = cropped(part, slice(10, 60), slice(5, 90))
    assert_plane(twice, image[80:130, 45:130])
    assert tiling(twice.pixels) == Tiling(64, 32, 16, 13)
    assert tiling(cropped(plane, slice(128, 200), slice(0, 99)).pixels) == Tiling(64, 32)
    assert_plane(cropped(open_planes(image)[0], slice(3, 9), slice(2, 8)), image[3:9, 2:8])


@pytest.mark.parametrize("tiles", [Tiling(1, 1), Tiling(7, 5), Tiling(7, 100), Tiling(200, 300), Tiling(8, 8, 3, 5)])
@pytest.mark.parametrize("pixels", [1, 100, 4000])
def test_parts_are_whole_tiles_and_cover_all_once(tiles, pixels):
    seen = np.zeros((61, 100), int)
    for rows, columns in tiles.parts(61, 100, pixels):
        seen[rows, columns] += 1
        assert (rows.start + tiles.top) % tiles.rows == 0 or rows.start == 0
        assert (columns.start + tiles.left) % tiles.columns == 0 or columns.start == 0
    assert (seen == 1).all()
