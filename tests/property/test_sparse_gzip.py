"""The encoder of columns and of repeats: whatever they hold, every decoder reads back the same bytes."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import typeof
from numba.core.sigutils import normalize_signature

from atlaswriter.codecs import sparse_gzip
from atlaswriter.kernels import crc
from atlaswriter.kernels._jit import Kernel
from atlaswriter.kernels.crc import WINDOW
from atlaswriter.kernels.tokens import BLOCK

try:
    from isal import igzip_lib, isal_zlib
except ImportError:  # no wheel for this machine
    igzip_lib = isal_zlib = None

moderate = settings(max_examples=300, derandomize=True, deadline=None)
HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])
DTYPES = ("u1", "u2", "f4")
# Backgrounds as numbers: those of float32 are bits, NaN (all ones) among them, and all bytes are equal as the
# encoder asks; those of uint16 need not be.
BACKGROUNDS = {
    "u1": [0, 1, 143, 144, 255],
    "u2": [0, 0x0101, 0xFFFF, 1, 0x0100, 0x90FF, 0xFE8F, 65534],
    "f4": [0, 0xFFFFFFFF, 0x01010101, 0x90909090],
}
# -0, NaN with and without a sign, infinity, the smallest number, the largest subnormal, 1, and 0 itself
AWKWARD = np.array([1 << 31, 0x7FC00000, 0xFFC00001, 0x7F800000, 1, 0x7FFFFF, 0x3F800000, 0], np.uint32)
RUNS = [*range(6), *range(257, 263), *range(515, 521), 774, 1031, 1032, 1033, 2580, 25_800]
WINDOWS = [k * WINDOW + by for k in (1, 2) for by in (-1, 0, 1)]


LEVELS = (6, 7, 8, 9)  # below 6 nothing differs


def bits_of(array):
    return array.view(f"u{array.itemsize}")


def compress(columns, backgrounds, *, also=(), level=6):
    """Files of columns (of one length and dtype), of which each also stores the rows in ``also`` of its background."""
    entries, stored = [], []
    for place, (column, background) in enumerate(zip(columns, backgrounds, strict=True)):
        wanted = bits_of(column) != background
        if also:
            wanted[also[place]] = True
        rows = np.flatnonzero(wanted)
        entries.append(rows << 32 | bits_of(column)[rows].astype(np.int64))
        stored.append(rows.size)
    offsets = np.cumsum([0, *stored])
    n_rows, width = columns[0].size, columns[0].itemsize
    wide = np.array(backgrounds, f"u{width}")
    files = sparse_gzip.compress(np.concatenate(entries), offsets, n_rows, wide, level)
    longest = [sparse_gzip.longest(n_rows * width, size, width) for size in stored]
    return [bytes(file) for file in files], stored, longest


def inflations(file):
    """What each decoder makes of a file of one member that is complete, with nothing behind it."""
    decoders = [zlib.decompressobj(31)]
    if igzip_lib is not None:
        decoders.append(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))
        yield isal_zlib.decompress(file, wbits=31)
    for decoder in decoders:
        yield decoder.decompress(file)
        assert decoder.eof
        assert decoder.unused_data == b""
    yield gzip.decompress(file)


def assert_holds(file, content, longest):
    content = content.tobytes()
    assert file[:10] == HEADER
    for found in inflations(file):
        same = found == content  # pytest would look for the difference, for minutes
        assert same, (len(found), len(content))
    assert int.from_bytes(file[-8:-4], "little") == zlib.crc32(content)
    assert int.from_bytes(file[-4:], "little") == len(content) % 2**32
    assert len(file) <= longest


def assert_column(column, background, level=6):
    (file,), _, (longest,) = compress([column], [background], level=level)
    assert_holds(file, column, longest)
    return file


def assert_repeats(content):
    file = bytes(sparse_gzip.compress_repeats(content))
    assert_holds(file, content, sparse_gzip.longest(content.nbytes, content.nbytes, 1))
    return file


# ---------------------------------------------------------------- what the columns hold


def values(rng, size, dtype, background, alphabet):
    """Values whose bytes are of an alphabet; some are the background's, so that runs begin within a value."""
    if alphabet == "awkward" and dtype == "f4":
        return rng.choice(AWKWARD, size).view("f4")
    byte = background & 255
    letters = {
        "one": [byte ^ 0x55],
        "two": [byte, byte ^ 1],
        "few": [byte, 0, 1, 144, 255],
        "awkward": range(144, 256),  # 9 bits each where codes are fixed
        "all": range(256),
    }[alphabet]
    width = np.dtype(dtype).itemsize
    return rng.choice(np.array(letters, np.uint8), size * width).view(dtype)


alphabets = st.sampled_from(["one", "two", "few", "awkward", "all"])
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
rarely = st.integers(0, 11).map(lambda number: number == 0)


@st.composite
def shapes(draw):
    """Which bytes of a column are not its background: stretches between runs, share of all, or ends of windows."""
    kind, rng = draw(st.sampled_from(["stretches", "share", "windows"])), draw(seeds)
    if kind == "share":
        n_bytes = draw(st.integers(0, 40) | st.integers(0, 70_000))
        return rng.random(n_bytes) < draw(st.sampled_from([0, 0.001, 0.01, 0.1, 0.5, 0.9, 1]))
    if kind == "windows":
        n_bytes = max(draw(st.integers(0, 3)) * WINDOW + draw(st.integers(-4, 4)), 0)
        from_end = [draw(st.integers(0, 3)) * WINDOW + draw(st.integers(-4, 4)) for _ in range(draw(st.integers(0, 6)))]
        filled = np.zeros(n_bytes, bool)
        filled[[n_bytes - place for place in from_end if 0 < place <= n_bytes]] = True
        return filled
    pieces = []
    lengths = st.integers(0, 6) | st.sampled_from([40, 300]) | rarely.map(lambda yes: 40_000 if yes else 1)
    for _ in range(draw(st.integers(0, 12))):
        run = draw(st.sampled_from(RUNS) | rarely.map(lambda yes: WINDOWS[-1] if yes else 3))
        pieces += [np.zeros(run, bool), np.ones(draw(lengths), bool)]
    return np.concatenate([*pieces, np.zeros(draw(st.sampled_from(RUNS)), bool)])


@st.composite
def tables(draw):
    """Columns of one dtype and length, their backgrounds, rows that are stored without need, and a level."""
    dtype = draw(st.sampled_from(DTYPES))
    width = np.dtype(dtype).itemsize
    aligned = st.sampled_from([1, width])
    filled = draw(st.lists(shapes(), min_size=1, max_size=4))
    n_rows = max(-(-one.size // width) for one in filled)
    columns, backgrounds, also = [], [], []
    for one in filled:
        rng, background = draw(seeds), draw(st.sampled_from(BACKGROUNDS[dtype]))
        raw = np.full(n_rows, background, f"u{width}").view(np.uint8)
        raw[: one.size][one] = values(rng, raw.size // width, dtype, background, draw(alphabets)).view(np.uint8)[
            : one.size
        ][one]
        for _ in range(draw(st.integers(0, 4)) if raw.size else 0):  # the same bytes again, near or just too far
            distance = draw(st.integers(1, 20) | st.sampled_from([255, 256, 257, 258, *WINDOWS[:3]])) * draw(aligned)
            source, length = rng.integers(0, raw.size), draw(st.integers(1, 20) | st.sampled_from([258, 259, 600]))
            copied = raw[source : source + length].copy()[: max(raw.size - source - distance, 0)]
            raw[source + distance :][: copied.size] = copied
        columns.append(raw.view(dtype))
        backgrounds.append(background)
        also.append(np.flatnonzero(rng.random(n_rows) < draw(st.sampled_from([0, 0, 0.001, 0.3]))))
    return columns, backgrounds, also, draw(st.sampled_from(LEVELS))


@moderate
@given(tables())
def test_columns_come_back(table):
    """Each in the same file, whether alone or with others, and again."""
    columns, backgrounds, also, level = table
    files, stored, longest = compress(columns, backgrounds, also=also, level=level)
    for column, file, size, limit in zip(columns, files, stored, longest, strict=True):
        assert size <= column.size
        assert_holds(file, column, limit)
    assert compress(columns, backgrounds, also=also, level=level)[0] == files
    one_by_one = zip(columns, backgrounds, also, strict=True)
    alone = [compress([column], [by], also=[rows], level=level)[0][0] for column, by, rows in one_by_one]
    assert alone == files


def test_nothing_to_compress():
    for dtype in ("u1", "u2", "u4"):
        empty = np.empty(0, np.int64)
        assert sparse_gzip.compress(empty, np.zeros(1, np.int64), 10, np.empty(0, dtype), 6) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [0, 1, 2, 300, WINDOW, 50_000])
def test_empty_and_full_columns(dtype, n_rows):
    rng = np.random.default_rng(n_rows)
    for background in BACKGROUNDS[dtype]:
        empty = np.full(n_rows, background, f"u{np.dtype(dtype).itemsize}").view(dtype)
        columns = [empty, *(values(rng, n_rows, dtype, background, alphabet) for alphabet in ("one", "awkward", "all"))]
        for also in (np.arange(0), np.arange(n_rows), np.arange(n_rows)[-1:], np.arange(n_rows)[:1]):
            files, stored, longest = compress(columns, [background] * 4, also=[also] * 4)
            assert stored[0] == also.size
            for column, file, limit in zip(columns, files, longest, strict=True):
                assert_holds(file, column, limit)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_run_length(dtype):
    """As first, inner and last run; the columns of one call. zlib alone reads them, to be quick."""
    width = np.dtype(dtype).itemsize
    for background in BACKGROUNDS[dtype]:
        for n_bytes in range(width, 1600, width):
            n_rows = n_bytes // width
            columns = np.full((3, n_rows + 3), background, f"u{width}")
            value = background ^ (0x5A << 8 * (n_rows % width))  # all of its bytes but one are the background's
            columns[0, [-3, -1]], columns[1, [0, 1, -1]], columns[2, :3] = value, value, value
            files, _, longest = compress(list(columns), [background] * 3)
            for column, file, limit in zip(columns, files, longest, strict=True):
                assert zlib.decompress(file, 31) == column.tobytes()
                assert len(file) <= limit


# ---------------------------------------------------------------- by the book

STEPS = ((11, 2), (19, 4), (35, 8), (67, 16), (131, 32))
LENGTHS = [*range(3, 11), *(first + k * step for first, step in STEPS for k in range(4)), 258]
EXTRA = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0]
TOKEN_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class Book:
    """A reader of one gzip file that does what RFC 1951 says, one bit at a time, and remembers what it saw."""

    def __init__(self, file):
        self.bits, self.place = np.unpackbits(np.frombuffer(file, np.uint8), bitorder="little").tolist(), 80
        self.content, self.blocks, self.begins, self.distances = bytearray(), [], [], set()
        last = 0
        while not last:
            self.begins.append(self.place)
            last, kind = self.take(1), self.take(2)
            self.blocks.append(("stored", "fixed", "dynamic")[kind])
            (self.stored, self.fixed, self.dynamic)[kind]()
        self.padding = set(self.bits[self.place : -64])
        assert len(file) * 8 - 64 - self.place < 8

    def take(self, count):
        self.place += count
        return sum(bit << k for k, bit in enumerate(self.bits[self.place - count : self.place]))

    def stored(self):
        self.place += -self.place % 8
        size, check = self.take(16), self.take(16)
        assert size ^ check == 0xFFFF
        self.content += bytes(self.take(8) for _ in range(size))

    def fixed(self):
        self.symbols(codes([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), codes([5] * 30))

    def dynamic(self):
        n_literals, n_distances, n_tokens = self.take(5) + 257, self.take(5) + 1, self.take(4) + 4
        token_lengths = [0] * 19
        for token in TOKEN_ORDER[:n_tokens]:
            token_lengths[token] = self.take(3)
        tokens, lengths = codes(token_lengths), []
        while len(lengths) < n_literals + n_distances:
            token = self.symbol(tokens)
            if token < 16:
                lengths.append(token)
            elif token == 16:
                lengths += lengths[-1:] * (3 + self.take(2))
            else:
                lengths += [0] * (3 + self.take(3) if token == 17 else 11 + self.take(7))
        assert len(lengths) == n_literals + n_distances
        assert n_literals <= 286
        assert n_distances <= 30
        assert sum(2.0**-length for length in token_lengths if length) == 1
        assert sum(2.0**-length for length in lengths[:n_literals] if length) == 1
        far = [length for length in lengths[n_literals:] if length]  # none, a single one of one bit, or a whole code
        assert far in ([], [1]) or sum(2.0**-length for length in far) == 1
        self.symbols(codes(lengths[:n_literals]), codes(lengths[n_literals:]))

    def symbols(self, literals, distances):
        while (symbol := self.symbol(literals)) != 256:
            if symbol < 256:
                self.content.append(symbol)
                continue
            length = LENGTHS[symbol - 257] + self.take(EXTRA[symbol - 257])
            symbol = self.symbol(distances)
            distance = symbol + 1
            if symbol > 3:
                extra = symbol // 2 - 1
                distance = (2 + symbol % 2 << extra) + self.take(extra) + 1
            assert distance <= min(len(self.content), 32768)
            assert length <= 258
            self.distances.add(distance)
            self.content += (self.content[-distance:] * (length // distance + 1))[:length]

    def symbol(self, known):
        code = 1
        while code not in known:
            code = code << 1 | self.bits[self.place]
            self.place += 1
            assert code < 1 << 16
        return known[code]


def codes(lengths):
    """RFC 1951, 3.2.2: symbol of each code, which has a one in front."""
    code, result = 0, {}
    for length in range(1, 16):
        for symbol, own in enumerate(lengths):
            if own == length:
                result[1 << length | code] = symbol
                code += 1
        code <<= 1
    return result


def sample(dtype, background, share, alphabet, n_rows, seed=0):
    rng = np.random.default_rng(seed)
    width = np.dtype(dtype).itemsize
    column = np.full(n_rows, background, f"u{width}").view(dtype)
    rows = np.flatnonzero(rng.random(n_rows) < share)
    column[rows] = values(rng, rows.size, dtype, background, alphabet)
    return column


@pytest.mark.parametrize("level", [6, 9])
def test_files_are_as_the_format_says(level):
    """Every kind of block occurs, and nothing that a strict decoder might refuse."""
    kinds, distances = set(), set()
    shapes = ((50, 0.1, "one"), (1500, 0.5, "all"), (1500, 1, "all"), (5000, 0.02, "few"))
    for dtype in DTYPES:
        for background in BACKGROUNDS[dtype][:4]:
            for n_rows, share, alphabet in shapes:
                column = sample(dtype, background, share, alphabet, n_rows)
                book = Book(assert_column(column, background, level))
                assert bytes(book.content) == column.tobytes()
                assert book.padding <= {0}
                kinds |= set(book.blocks)
                distances |= book.distances
    assert kinds == {"stored", "fixed", "dynamic"}
    assert {1, 2} <= distances


def test_repeats_are_as_the_format_says():
    distances = set()
    for dtype in ("u1", "u2", "u4"):
        for content in (np.arange(2000) // 30, np.arange(20) // 9, np.arange(0), np.arange(5)):
            book = Book(assert_repeats(content.astype(dtype)))
            assert bytes(book.content) == content.astype(dtype).tobytes()
            assert book.padding <= {0}
            distances |= book.distances
    assert {1, 2, 4} <= distances


@pytest.mark.parametrize("level", [7, 9])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", [212, 256, 260, 512, 516, 4096, 4100, 16_384, 24_576, 32_764, 32_768, 32_772])
def test_what_stands_far_before(dtype, distance, level):
    """The same values in the same rows once more: said as matches up to the largest distance there is."""
    rng, width = np.random.default_rng(distance), np.dtype(dtype).itemsize
    again = distance // width
    column = np.zeros(again + 200, f"u{width}")
    rows = np.sort(rng.choice(200 // width, 25, replace=False))
    column[rows] = rng.permutation(256**width - 1 if width < 4 else 2**20)[:25] + 1
    column[rows + again] = column[rows]
    book = Book(assert_column(column.view(dtype), 0, level))
    assert bytes(book.content) == column.tobytes()
    assert (distance in book.distances) == (distance <= 32_768)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_tokens", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_many_tokens_make_many_blocks(dtype, n_tokens):
    """As literals side by side and with runs between them, which end exactly with a block or go on in the next."""
    width = np.dtype(dtype).itemsize
    rng = np.random.default_rng(n_tokens)
    n_values = -(-n_tokens // width)
    for every, tail in ((1, 0), (1, 1), (3, 0), (3, 300), (300 // width, 0)):
        column = np.zeros(n_values * every + tail, dtype)
        drawn = rng.integers(1, 200, n_values * width).astype(np.uint8).view(dtype)
        column[every - 1 : n_values * every : every] = drawn
        file = assert_column(column, 0)
        if (every, tail) == (3, 0):
            blocks = Book(file).blocks
            assert len(blocks) == -(-n_tokens // BLOCK)
            assert set(blocks[:-1]) <= {"dynamic"}
        assert_column(column, 0, 9)


def test_blocks_of_different_kinds_follow_each_other():
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 256, BLOCK).astype(np.uint8)
    skewed = rng.geometric(0.5, 2 * BLOCK).clip(1, 255).astype(np.uint8)
    column = np.concatenate([noise, skewed, noise, np.zeros(99, np.uint8), noise[:7]])
    blocks = Book(assert_column(column, 0)).blocks
    assert {("stored", "dynamic"), ("dynamic", "stored")} <= set(pairwise(blocks))
    assert blocks[-1] == "fixed"
    assert_column(column, 0, 9)


def test_blocks_of_bytes_begin_at_any_bit():
    rng, offsets = np.random.default_rng(1), set()
    for _ in range(40):
        column = np.concatenate([rng.geometric(0.7, BLOCK).clip(1, 9), rng.integers(1, 256, 300)]).astype(np.uint8)
        book = Book(assert_column(column, 0))
        assert book.blocks[-1] == "stored"
        offsets.add(book.begins[-1] % 8)
    assert offsets == set(range(8))


# ---------------------------------------------------------------- repeats


@st.composite
def contents(draw):
    """Codes at random or in order, sources of edges, constants, noise, and stretches between runs."""
    dtype, rng = draw(st.sampled_from(["u1", "u2", "u4", "f4"])), draw(seeds)
    width = np.dtype(dtype).itemsize
    top = draw(st.sampled_from([1, 2, 20, 256, 70_000]))
    kind = draw(st.sampled_from(["codes", "sorted", "constant", "sources", "noise", "stretches", "steps"]))
    n = draw(st.integers(0, 40) | st.integers(0, 40_000))
    if kind == "stretches":
        pieces = []
        for _ in range(draw(st.integers(0, 10))):
            run, literals = draw(st.sampled_from(RUNS)), draw(st.integers(0, 6) | st.sampled_from([300]))
            pieces += [rng.bytes(literals), rng.bytes(width) * (run // width + 1)]
            pieces[-1] = pieces[-1][:run]
        raw = b"".join(pieces)
        return np.frombuffer(raw[: len(raw) // width * width], dtype)  # read-only
    numbers = {
        "codes": lambda: rng.integers(0, top, n),
        "sorted": lambda: np.sort(rng.integers(0, top, n)),
        "constant": lambda: np.full(n, top - 1),
        "sources": lambda: np.repeat(np.arange(n // 8), rng.poisson(8, n // 8)),
        "noise": lambda: rng.integers(0, 2 ** (8 * width), n),
        "steps": lambda: np.repeat(rng.integers(0, top, n // 50), rng.choice(RUNS[:16], n // 50)),
    }[kind]()
    return numbers.astype(np.uint64).astype(f"u{width}").view(dtype)


@moderate
@given(contents())
def test_repeats_come_back(content):
    assert assert_repeats(content) == assert_repeats(content)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_repeats_at_the_end_of_a_block(width):
    """The last of so many literals fills a block; a run follows, of every length that is written in another way."""
    rng = np.random.default_rng(width)
    literals = (np.arange(2 * BLOCK + 8) * 7 + rng.integers(0, 2, 2 * BLOCK + 8)).astype(np.uint8)
    for n_literals in (*range(BLOCK - 4, BLOCK + 5), 2 * BLOCK):
        for run in (0, 1, 2, 3, 4, 5, 258, 259, 260, 516, 517):
            raw = literals[:n_literals].tobytes()
            raw += (raw[-width:] * run)[:run]
            for more in (b"", b"\xfe\xfd"):
                whole = raw + more
                content = np.frombuffer(whole[: len(whole) // width * width], f"u{width}")
                file = bytes(sparse_gzip.compress_repeats(content))
                assert zlib.decompress(file, 31) == content.tobytes()
                assert len(file) <= sparse_gzip.longest(content.nbytes, content.nbytes, 1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
def test_repeats_of_any_shape(dtype):
    content = (np.arange(5000) // 9).astype(dtype)
    for shape in ((5000,), (100, 50), (5, 10, 100)):
        assert_repeats(content.reshape(shape))
    content.flags.writeable = False
    assert_repeats(content)


# ---------------------------------------------------------------- fuzz


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alphabet", ["one", "two", "few", "awkward", "all"])
@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.3, 0.6, 0.95, 1])
def test_fuzz(dtype, alphabet, share):
    rng = np.random.default_rng([len(alphabet), int(share * 1000), np.dtype(dtype).itemsize])
    for n_rows in (*rng.integers(0, 30, 6), *rng.integers(0, 3000, 4), *rng.integers(0, 120_000, 1)):
        backgrounds = rng.choice(BACKGROUNDS[dtype], 3).tolist()
        columns = [sample(dtype, one, share, alphabet, n_rows, rng.integers(2**32)) for one in backgrounds]
        files, _, longest = compress(columns, backgrounds, level=int(rng.choice(LEVELS)))
        for column, file, limit in zip(columns, files, longest, strict=True):
            assert_holds(file, column, limit)


# ---------------------------------------------------------------- sizes


def typical(kind, dtype, n_rows=60_000):
    """What genes look like: counts, log-normalised counts, one value; at random, or by groups of cells."""
    rng = np.random.default_rng(3)
    counts = np.where(rng.random(n_rows) < 0.07, rng.geometric(0.5, n_rows), 0)
    return {
        "counts": lambda: counts,
        "one value": lambda: counts > 0,
        "normalised": lambda: 40 * np.log1p(counts * rng.lognormal(0, 0.3, n_rows)),
        "pattern": lambda: np.tile([0, 0, 0, 1, 0, 0, 2, 0, 1, 0], n_rows // 10),
        "every other": lambda: np.tile([0, 1], n_rows // 2),
        "a group": lambda: np.arange(n_rows) < n_rows // 3,
    }[kind]().astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("counts", 1.02),
        ("one value", 1.1),
        ("normalised", 1.0),
        ("pattern", 2.5),  # in files of some hundred bytes, as those below
        ("every other", 3.5),
        ("a group", 2),
    ],
)
def test_files_are_about_as_small_as_zlib_makes_them(kind, times, dtype):
    column = typical(kind, dtype)
    for level in LEVELS:
        size, by_zlib = len(assert_column(column, 0, level)), len(zlib.compress(column, level))
        assert size <= times * by_zlib + 20


# ---------------------------------------------------------------- more than 32 bits


@pytest.mark.parametrize(
    ("dtype", "n_rows"),
    [("u4", 2**30 + 1000), ("u1", 2**32), ("u2", 2**31 - 1)],
    ids=["4 GiB + 4000", "4 GiB", "4 GiB - 2"],
)
def test_more_bytes_than_the_trailer_counts(dtype, n_rows):
    width = np.dtype(dtype).itemsize
    last = min(n_rows, 2**31) - 1  # rows are int32 in effect
    rows, stored = np.array([0, 5, n_rows // 4, last - 1, last]), np.array([1, 2**15 + 3, 0, 4, 5]).astype(dtype)
    entries, offsets = rows << 32 | stored.astype(np.int64), np.array([0, rows.size])
    (view,) = sparse_gzip.compress(entries, offsets, n_rows, np.zeros(1, dtype), 6)
    file = bytes(view)
    assert int.from_bytes(file[-4:], "little") == n_rows * width % 2**32
    crc32, decoder = (zlib.crc32, zlib.decompressobj(31))
    if igzip_lib is not None:  # ten times as fast
        crc32, decoder = isal_zlib.crc32, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    zeros, expected, place = bytes(1 << 22), 0, 0
    for row, code in [*zip(rows.tolist(), (code.tobytes() for code in stored), strict=True), (n_rows, b"")]:
        while place < row * width:
            step = min(len(zeros), row * width - place)
            expected = crc32(memoryview(zeros)[:step], expected)
            place += step
        expected = crc32(code, expected)
        place += len(code)
    assert int.from_bytes(file[-8:-4], "little") == expected
    size, found, rest = 0, 0, file
    while not decoder.eof:
        chunk = decoder.decompress(rest, 1 << 22)
        rest = b"" if igzip_lib is not None else decoder.unconsumed_tail
        size += len(chunk)
        found = crc32(chunk, found)
    assert (size, found, decoder.unused_data) == (n_rows * width, expected, b"")


# ---------------------------------------------------------------- threads


def test_threads_have_their_own_scratch():
    """Several threads at once, through many kinds of calls, write what one writes."""
    work = [
        (dtype, background, share, alphabet, n_rows)
        for dtype in DTYPES
        for background in BACKGROUNDS[dtype][:4]
        for share, alphabet, n_rows in ((0.05, "few", 40_000), (0.9, "all", 40_000), (0.5, "two", 700))
    ]
    columns = [(sample(*one), one[1], LEVELS[place % 4]) for place, one in enumerate(work)]
    repeats = [np.sort(column) for column, *_ in columns]

    def everything(order):
        files = {}
        for place in order:
            column, background, level = columns[place]
            files[place] = compress([column], [background], level=level)[0][0]
            files[-1 - place] = bytes(sparse_gzip.compress_repeats(repeats[place]))
        return files

    expected = everything(range(len(work)))
    assert everything(reversed(range(len(work)))) == expected
    found, barrier = [], threading.Barrier(4)

    def run(number):
        barrier.wait()
        for turn in range(3):
            order = np.random.default_rng([number, turn]).permutation(len(work)).tolist()
            found.append(everything(order) == expected)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_rests_on_what_scratch_held(level, monkeypatch):
    """Arrays are made without being cleared, and other columns were in them before."""
    columns = [sample("u2", 0, share, "few", 40_000) for share in (0.02, 0.4)]
    expected = compress(columns, [0, 0], level=level)[0]
    for garbage in (0, -1, 1, 1 << 40, -(1 << 62)):
        sparse_gzip._scratch.for_matches()[:] = garbage
        sparse_gzip._scratch.files[:] = garbage & 255
        assert compress(columns, [0, 0], level=level)[0] == expected


def test_files_live_until_the_next_call_of_the_thread():
    columns, others = [np.arange(9, dtype="u1"), np.zeros(9, "u1")], [np.arange(9, dtype="u1")[::-1].copy()]
    entries = np.concatenate([np.arange(1, 9) << 32 | np.arange(1, 9)])
    mine = sparse_gzip.compress(entries, np.array([0, 8, 8]), 9, np.zeros(2, "u1"), 6)
    theirs = []
    thread = threading.Thread(target=lambda: theirs.extend(compress(others, [0])[0]))
    thread.start()
    thread.join()
    assert [zlib.decompress(file, 31) for file in mine] == [column.tobytes() for column in columns]
    assert [zlib.decompress(file, 31) for file in theirs] == [column.tobytes() for column in others]


# ---------------------------------------------------------------- other programs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A few dozen files, and the SHA-256 of what they hold."""
    folder, expected = tmp_path_factory.mktemp("files"), {}

    def keep(name, content, file):
        (folder / f"{name}.gz").write_bytes(file)
        expected[f"{name}.gz"] = hashlib.sha256(content.tobytes()).hexdigest()

    for dtype in DTYPES:
        for background in BACKGROUNDS[dtype][:4]:
            for share, alphabet, n_rows in ((0, "one", 0), (0.03, "few", 99_999), (1, "all", 40_000), (0.4, "two", 70)):
                column = sample(dtype, background, share, alphabet, n_rows)
                (file,), *_ = compress([column], [background])
                keep(f"{dtype}-{background}-{n_rows}", column, file)
    for dtype in ("u1", "u2", "u4"):
        for n in (0, 10, 70_000):
            for name, content in (
                ("sources", np.arange(n) // 8),
                ("noise", np.random.default_rng(n).integers(0, 256, n)),
            ):
                keep(
                    f"{name}-{dtype}-{n}",
                    content.astype(dtype),
                    bytes(sparse_gzip.compress_repeats(content.astype(dtype))),
                )
    assert len(expected) > 60
    return folder, expected


def test_gzip_itself_accepts_them(files):
    program = shutil.which("gzip")
    if program is None:
        pytest.skip("gzip is not installed")
    folder, expected = files
    command = [program, "-t", *(str(folder / name) for name in expected)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


BROWSER = """
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
const sha256 = (content) => createHash('sha256').update(content).digest('hex');
const found = {};
for (const name of JSON.parse(readFileSync('names.json'))) {
  const file = readFileSync(name);
  const stream = new Blob([file]).stream().pipeThrough(new DecompressionStream('gzip'));
  const streamed = Buffer.from(await new Response(stream).arrayBuffer());
  found[name] = [sha256(gunzipSync(file)), sha256(streamed)];
}
console.log(JSON.stringify(found));
"""


def test_browsers_read_them(files):
    """Node has the decoder that pages call; one process reads all files."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    folder, expected = files
    (folder / "names.json").write_text(json.dumps(list(expected)))
    (folder / "read.mjs").write_text(BROWSER)
    done = subprocess.run([program, "read.mjs"], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if "DecompressionStream is not defined" in done.stderr:
        pytest.skip("this node is older than 18")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [digest, digest] for name, digest in expected.items()}


# ---------------------------------------------------------------- what it takes


def test_what_the_encoder_takes(monkeypatch):
    known = {dtype: sparse_gzip.takes(np.empty(1, dtype)) for dtype in ("u1", "u2", "f4", "u4", "u8", "f8")}
    little = sys.byteorder == "little"
    assert known == {"u1": little, "u2": little, "f4": little, "u4": little, "u8": False, "f8": False}
    monkeypatch.setattr(sys, "byteorder", "big")
    assert not sparse_gzip.takes(np.empty(1, np.uint8))


@pytest.mark.parametrize("level", [1, *LEVELS])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_the_kernels_that_are_called_are_known_beforehand(dtype, level, monkeypatch):
    """What is compiled before an export is what columns and an array then call."""
    called, call = set(), Kernel.__call__

    def note(self, *args):
        called.add((self.name, tuple(typeof(argument) for argument in args)))
        return call(self, *args)

    monkeypatch.setattr(Kernel, "__call__", note)
    crc.powers.cache_clear()
    sparse_gzip.compress(np.array([3 << 32 | 7, 9 << 32 | 7]), np.array([0, 2]), 99, np.zeros(1, dtype), level)
    sparse_gzip.compress_repeats(np.arange(50).astype(dtype))
    wanted = {*sparse_gzip.wanted_kernels(np.dtype(dtype).itemsize, level), sparse_gzip.wanted_by_repeats()}
    assert called == {(one.name, normalize_signature(signature)[0]) for one, signature in wanted}
