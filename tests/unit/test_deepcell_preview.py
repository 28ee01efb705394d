"""The picture of a project: pixels are where they belong, in every size, and letters can be read."""

import itertools
import json
import string

import imagecodecs
import numpy as np
import pytest
from tests.deepcell_projects import ome_xml, tiff, write_project

from atlaswriter.errors import FormatError, InputError, OutputError
from atlaswriter.formats.deepcell import lettering, preview, tiles
from atlaswriter.formats.deepcell.lettering import letters, shortened
from atlaswriter.formats.deepcell.preview import contact_sheet, write_preview
from atlaswriter.formats.deepcell.tiles import Fit
from atlaswriter.sinks import fs
from atlaswriter.sources.axes import Reading
from atlaswriter.sources.ndstack import Arranged, InMemory


def stack(array):
    """Of (frames, channels, rows, columns)."""
    reading = Reading((0, 1, 2, 3), "TCYX")
    return Arranged(InMemory(array, reading), reading, "test")


def project(path, image, y, cells, names=None):
    """A project of images and labels (channels, frames, rows, columns)."""
    members = [
        (name, tiff(part.reshape(-1, *part.shape[2:]), ome_xml(part.shape, part.dtype, of)))
        for name, part, of in (("X.ome.tiff", image, names), ("y.ome.tiff", y, None))
    ]
    return write_project(path, [*members, ("cells.json", json.dumps(cells))])


def rows(*given):
    return [dict(zip(("cell", "value", "t", "c"), row, strict=True)) for row in given]


def sheet(path):
    return imagecodecs.png_decode(contact_sheet(path))


def has(picture, color):
    return bool((picture == np.array(color, np.uint8)).all(axis=-1).any())


# --- letters


def test_letters_can_be_told_apart():
    signs = [sign for sign in string.printable[:95] if sign != " "]
    shapes = {(letters(sign, 1).shape, letters(sign, 1).tobytes()) for sign in signs}
    assert len(shapes) == len(signs)
    assert all(letters(sign, 1).any() for sign in signs)
    assert not letters(" ", 1).any()


def test_other_signs_lose_their_accents_or_become_question_marks():
    assert np.array_equal(letters("é", 1), letters("e", 1))
    assert np.array_equal(letters("\u03bc", 1), letters("?", 1))
    assert np.array_equal(letters("μ𝟙\U0001f600\0", 1), letters("?1??", 1))
    assert letters("", 1).shape[0] == lettering.ROWS


def test_text_is_drawn_larger_cut_off_and_shortened():
    assert np.array_equal(letters("ab", 3), np.kron(letters("ab", 1), np.ones((3, 3), bool)))
    picture = np.zeros((10, 12, 3), np.uint8)
    lettering.write(picture, "long text", 4, 6, 2, (9, 8, 7))
    assert has(picture, (9, 8, 7))
    assert not picture[:, :6].any()
    assert shortened("abc", 1, 100) == "abc"
    short = shortened("a" * 300, 2, 100)
    assert short.endswith("…")
    assert 80 < letters(short, 2).shape[1] <= 100


# --- pictures of frames


@pytest.mark.parametrize("box", [(300, 200), (7, 5), (1, 1), (64, 1000)])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (33, 47), (300, 200)])
def test_a_picture_fits_its_box(size, box):
    fit = Fit.into(*size, *box)
    assert all(1 <= side <= most for side, most in zip(fit.shape, box, strict=True))
    assert fit.factor == 1 or fit.zoom == 1
    larger = Fit(*size, fit.factor, fit.zoom + 1) if fit.factor == 1 else Fit(*size, fit.factor - 1, 1)
    assert fit.zoom == 8 or any(side > most for side, most in zip(larger.shape, box, strict=True))


@pytest.mark.parametrize("strip", [1, 700, 1 << 20])
@pytest.mark.parametrize("factor", [1, 2, 5, 40])
def test_shrinking_is_the_mean_or_the_middle_of_each_block(monkeypatch, strip, factor):
    monkeypatch.setattr(tiles, "_STRIP_BYTES", strip)
    array = np.random.default_rng(0).integers(0, 60_000, (2, 3, 23, 31)).astype(np.uint16)
    fit = Fit(23, 31, factor, 1)
    found, sampled = tiles.means(stack(array), 1, 2, fit), tiles.samples(stack(array), 1, 2, fit)
    assert found.shape == (2, *fit.shape)
    for c, row, column in np.ndindex(*found.shape):
        block = array[1, c, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert found[c, row, column] == pytest.approx(block.mean(), rel=1e-5)
        assert sampled[c, row, column] in block
        if min(block.shape) == factor:
            assert sampled[c, row, column] == block[factor // 2, factor // 2]


def test_values_that_are_no_numbers_do_not_spoil_a_picture():
    array = np.array([[[[np.nan, np.inf, -np.inf, 1e300, 5.0]]]])
    assert tiles.means(stack(array), 0, 1, Fit(1, 5, 1, 1)).tolist() == [[[0, 0, 0, 0, 5]]]


def test_channels_are_stretched_and_added_up():
    channels = np.array([[[10, 30, 20]], [[7, 7, 7]], [[0, 0, 4]]], np.float32)
    limits = [(10, 30), (7, 7), (0, 4)]
    found = tiles.blended(channels, limits, [(200, 0, 0), (0, 200, 0), (200, 0, 100)], Fit(1, 3, 1, 2))
    part = tiles._BRIGHTEST
    expected = [[0, 0, 0], [int(200 * part), 0, 0], [int(255 * part), 0, int(100 * part)]]
    assert found.tolist() == [np.repeat(expected, 2, axis=0).tolist()] * 2


def ring(height, width, top, left, bottom, right):
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    inside[top + 1 : bottom - 1, left + 1 : right - 1] = False
    return inside


def test_outlines_are_the_inner_borders_of_cells():
    values = np.zeros((12, 14), np.int64)
    values[2:8, 3:9] = 5
    values[10, 10] = 6  # means nothing
    picture = np.zeros((12, 14, 3), np.uint8)
    tiles.draw_outlines(picture, values, {5: (17,)}, 0, Fit(12, 14, 1, 1))
    assert np.array_equal(picture.any(axis=-1), ring(12, 14, 2, 3, 8, 9))
    assert has(picture, tiles.cell_color(17))


def test_cells_that_overlap_have_whole_outlines():
    values = np.zeros((12, 14), np.int64)
    values[1:7, 1:7] = 1
    values[4:11, 4:12] = 2
    values[4:7, 4:7] = 9
    owners = tiles._owners(values, {1: (1,), 2: (2,), 9: (1, 2)}, 1)
    first, second = ring(12, 14, 1, 1, 7, 7), ring(12, 14, 4, 4, 11, 12)
    assert np.array_equal(owners > 0, first | second)
    assert (owners[first] == 1).all()
    assert (owners[second & ~first] == 2).all()


def test_a_cell_of_several_values_has_one_outline_and_touching_cells_have_two():
    values = np.zeros((8, 12), np.int64)
    values[1:7, 1:6], values[1:7, 6:11] = 1, 2
    assert np.array_equal(tiles._owners(values, {1: (4,), 2: (4,)}, 1) == 4, ring(8, 12, 1, 1, 7, 11))
    apart = tiles._owners(values, {1: (4,), 2: (5,)}, 1)
    assert np.array_equal(apart == 4, ring(8, 12, 1, 1, 7, 6))
    assert np.array_equal(apart == 5, ring(8, 12, 1, 6, 7, 11))


def test_further_features_are_dotted_and_large_pixels_have_wide_lines():
    values = np.zeros((20, 20), np.int64)
    values[4:16, 4:16] = 1
    dotted = np.zeros((20, 20, 3), np.uint8)
    tiles.draw_outlines(dotted, values, {1: (1,)}, 1, Fit(20, 20, 1, 1))
    drawn, whole = dotted.any(axis=-1), ring(20, 20, 4, 4, 16, 16)
    assert not (drawn & ~whole).any()
    assert 0.3 < drawn.sum() / whole.sum() < 0.7
    wide = np.zeros((80, 80, 3), np.uint8)
    tiles.draw_outlines(wide, values, {1: (1,)}, 0, Fit(20, 20, 1, 4))
    expected = ring(80, 80, 16, 16, 64, 64) | ring(80, 80, 17, 17, 63, 63)
    assert np.array_equal(wide.any(axis=-1), expected)


def test_neighbouring_cells_have_other_colours():
    colors = [np.array(tiles.cell_color(cell)) for cell in range(1, 60)]
    assert min(np.abs(one - other).max() for one, other in itertools.pairwise(colors)) > 60
    assert all(color.max() == 255 for color in colors)


# --- the sheet


def test_a_sheet_shows_channels_and_cells(tmp_path):
    image = np.zeros((2, 3, 20, 30), np.uint16)
    image[0, :, :10], image[1, :, 10:] = 1000, 3
    y = np.zeros((1, 3, 20, 30), np.int32)
    y[0, 1, 4:9, 5:12] = 7
    path = project(tmp_path / "p.zip", image, y, rows((40, 7, 1, 0)), ["DAPI", "CD3"])
    found = sheet(path)
    assert contact_sheet(path) == contact_sheet(path)
    for color in tiles.COLORS[:2]:
        assert has(found, [int(part * tiles._BRIGHTEST) for part in color])
        assert has(found, color)  # in the legend
    assert has(found, tiles.cell_color(40))
    assert has(found, preview._TEXT)
    assert (found[[0, -1]] == preview._GROUND).all()
    assert (found[:, [0, -1]] == preview._GROUND).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (40, 600), (600, 40), (700, 700)])
@pytest.mark.parametrize("n_frames", [1, 2, 25, 41])
def test_sheets_of_all_shapes_are_of_a_sound_size(height, width, n_frames):
    n = min(n_frames, 24)
    grid = preview._Grid.of(n, height, width)
    high, wide = grid.size
    assert wide <= 1680
    assert high <= 12_000
    places = [grid.place(number) for number in range(n)]
    assert len(set(places)) == n
    fit_high, fit_wide = grid.fit.shape
    assert all(row + fit_high <= high and column + fit_wide <= wide for row, column in places)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_strange_projects_have_sheets_too(tmp_path, size):
    image, y = np.full((9, 2, *size), 7, np.float32), np.full((6, 2, *size), 3, np.int32)
    cells = rows(*((cell, 3, t, c) for cell in range(1, 8) for t in range(2) for c in range(6)))
    names = [f"a very long name of a channel, number {c}, that goes on and on µ\u4e00" for c in range(9)]
    found = sheet(project(tmp_path / ("p" * 180 + ".zip"), image, y, cells, names))
    assert found.shape[2] == 3
    assert found.shape[1] <= 1680
    assert len(np.unique(found.reshape(-1, 3), axis=0)) > 5


def test_frames_are_evenly_spaced_and_bounded(tmp_path):
    image, y = np.zeros((1, 50, 4, 4), np.uint8), np.zeros((1, 50, 4, 4), np.int32)
    with preview.open_export(project(tmp_path / "p.zip", image, y, [])) as opened:
        frames = preview._chosen(opened)
    assert (frames[0], frames[-1], len(frames)) == (0, 49, 24)
    assert set(np.diff(frames)) <= {2, 3}


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    image, y = np.zeros((1, 2, 4, 4), np.uint8), np.zeros((1, 2, 4, 4), np.int32)
    path, picture = project(tmp_path / "p.zip", image, y, []), tmp_path / "p.png"
    picture.write_bytes(b"old")
    with pytest.raises(InputError, match="already exists"):
        write_preview(path, picture)
    with monkeypatch.context() as patch:

        def fail(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(fs, "replace", fail)
        with pytest.raises(OutputError, match="No space left"):
            write_preview(path, picture, force=True)
    assert picture.read_bytes() == b"old"
    write_preview(path, picture, force=True)
    assert picture.read_bytes() == contact_sheet(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["p.png", "p.zip"]


def test_what_is_no_project_has_no_picture(tmp_path):
    with pytest.raises(FormatError):
        write_preview(write_project(tmp_path / "p.zip", [("a", "b")]), tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
