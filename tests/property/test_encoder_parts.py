"""Parts of the encoder on their own: bits, prefix codes and checksums against what they are defined as."""

import heapq
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from atlaswriter.kernels import bits, crc, deflate, finder, huffman

moderate = settings(max_examples=150, derandomize=True, deadline=None)
GARBAGE = -(1 << 40)  # nothing may rest on what scratch held before
POLYNOMIAL = 0xEDB88320  # RFC 1952, 8, bit 31 is x**0


# ---------------------------------------------------------------- bits


@njit
def written(values, counts, out):
    at, held, n_held = 0, 0, 0
    for place in range(values.size):
        at, held, n_held = bits.put(out, at, held, n_held, values[place], counts[place])
    return at, held, n_held


@moderate
@given(st.lists(st.integers(0, 56).flatmap(lambda n: st.tuples(st.integers(0, (1 << n) - 1), st.just(n))), max_size=60))
@example([(0x7F, 7), ((1 << 56) - 1, 56)])
def test_bits_are_packed_from_the_lowest_one(pieces):
    stream, length = 0, 0
    for value, count in pieces:
        stream |= value << length
        length += count
    values, counts = (np.array([piece[i] for piece in pieces], np.int64) for i in (0, 1))
    out = np.full(length // 8 + 8, 0xAA, np.uint8)
    at, held, n_held = written(values, counts, out)
    assert at * 8 + n_held == length
    assert n_held < 8
    assert int.from_bytes(out[:at].tobytes(), "little") | held << 8 * at == stream


# ---------------------------------------------------------------- prefix codes


@njit
def code_lengths(counts, limit):
    lengths, scratch = np.full(counts.size, GARBAGE), np.full(2 * counts.size + 80, GARBAGE)
    huffman.code_lengths(counts, limit, lengths, scratch)
    return lengths


def cost_by_hand(counts):
    """Bits of the optimal code: the sum of the joints of Huffman's tree."""
    heap = [int(count) for count in counts if count]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        joint = heapq.heappop(heap) + heapq.heappop(heap)
        total += joint
        heapq.heappush(heap, joint)
    return total


NEVER_BINDS = 60  # counts below 2**32 make no code this long
FIBONACCI = [1, 1]
while len(FIBONACCI) < 40:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])
many_counts = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.sampled_from([0.001, 0.1, 1.0, 3.0, 8.0]).map(
        lambda spread: np.random.default_rng(seed).lognormal(1, spread, 288).clip(0, 1e6).astype(int).tolist()
    )
)
counts = (
    st.lists(st.integers(0, 3) | st.integers(0, 10**6), min_size=1, max_size=60)
    | many_counts
    | st.integers(1, 40).flatmap(lambda n: st.permutations(FIBONACCI[:n]))
    | st.lists(st.sampled_from([2**k for k in range(25)]), max_size=25, min_size=1)
)


@moderate
@given(counts, st.sampled_from([7, 12, 15]))
@example(FIBONACCI, 12)
@example([1] * 128, 7)
@example([1, *[10**6] * 127], 7)
@example([0, 5, 0], 12)
@example([0, 5, 3], 7)
@example([0, 0], 12)
def test_code_lengths(numbers, limit):
    numbers = np.array(numbers[: 1 << limit], np.int64)
    used = np.flatnonzero(numbers)
    best, found = code_lengths(numbers, NEVER_BINDS), code_lengths(numbers, limit)
    for lengths in (best, found):
        assert ((lengths > 0) == (numbers > 0)).all()
        if used.size >= 2:
            assert sum(1 << int(lengths.max()) - int(lengths[symbol]) for symbol in used) == 1 << int(lengths.max())
        order = used[np.argsort(numbers[used], kind="stable")]
        rarer, commoner = order[:-1], order[1:]
        assert ((lengths[rarer] >= lengths[commoner]) | (numbers[rarer] == numbers[commoner])).all()
    if used.size:
        assert (best * numbers).sum() == cost_by_hand(numbers)
        assert found.max() == min(best.max(), limit)
    if best.max() <= limit:
        assert found.tolist() == best.tolist()


@njit
def canonical_codes(lengths):
    codes = np.full(lengths.size, GARBAGE)
    huffman.canonical_codes(lengths, codes, np.full(34, GARBAGE))
    return codes


def codes_by_the_book(lengths):
    """RFC 1951, 3.2.2, first bit of a code lowest."""
    per_length = [0] * 17
    for length in lengths:
        per_length[length] += length > 0
    following, code = [0] * 17, 0
    for length in range(1, 17):
        code = (code + per_length[length - 1]) << 1
        following[length] = code
    result = []
    for length in lengths:
        result.append(int(f"{following[length]:0{length}b}"[::-1], 2) if length else 0)
        following[length] += 1
    return result


@moderate
@given(counts, st.sampled_from([7, 12, 15]))
def test_canonical_codes(numbers, limit):
    lengths = code_lengths(np.array(numbers[: 1 << limit], np.int64), limit)
    found = canonical_codes(lengths)
    assert (found >> 48).tolist() == lengths.tolist()
    assert (found & (1 << 48) - 1).tolist() == codes_by_the_book(lengths.tolist())


def test_fixed_codes_are_those_of_the_format():
    """RFC 1951, 3.2.6."""
    lengths = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
    found = canonical_codes(np.array(lengths, np.int64))
    first = {0: "00110000", 143: "10111111", 144: "110010000", 255: "111111111", 256: "0000000", 279: "0010111"}
    for symbol, code in {**first, 280: "11000000", 287: "11000111"}.items():
        assert found[symbol] == len(code) << 48 | int(code[::-1], 2)


@njit
def packed(lengths):
    tokens = np.full(320, GARBAGE)
    return tokens[: huffman.pack_lengths(lengths, tokens)]


def unpacked(tokens):
    """RFC 1951, 3.2.7."""
    result = []
    for token, extra in ((token & 31, token >> 5) for token in tokens):
        if token < 16:
            assert extra == 0
            result.append(token)
        elif token == 16:
            assert extra < 4
            result += [result[-1]] * (3 + extra)
        else:
            assert extra < (8 if token == 17 else 128)
            result += [0] * ((3 if token == 17 else 11) + extra)
    return result


runs_of_lengths = st.lists(
    st.tuples(st.integers(0, 15), st.integers(1, 12) | st.sampled_from([138, 139, 140, 141, 149, 150, 276])),
    max_size=40,
).map(lambda runs: [length for length, times in runs for _ in range(times)][:316])


@moderate
@given(runs_of_lengths)
def test_lengths_are_packed_without_loss(lengths):
    tokens = packed(np.array(lengths, np.int64)).tolist()
    assert unpacked(tokens) == lengths
    assert len(tokens) <= len(lengths)


@njit
def header(lengths, distances, out):
    tokens, token_lengths, scratch = np.full(320, GARBAGE), np.full(19, GARBAGE), np.full(1024, GARBAGE)
    n_tokens, planned = huffman.plan_codes(lengths, distances, tokens, token_lengths, scratch)
    at, held, n_held = huffman.put_header(out, 0, 0, 0, lengths, distances, tokens[:n_tokens], token_lengths, scratch)
    out[at] = held
    return planned, at * 8 + n_held


@moderate
@given(many_counts, st.integers(257, 286), st.sampled_from([1, 2, 4]))
def test_a_header_holds_what_was_planned_and_is_read_by_the_book(numbers, n_literals, n_distances):
    numbers[256] += 1
    numbers[n_literals - 1] += 1  # the last that occurs
    lengths = code_lengths(np.array(numbers[:n_literals], np.int64), 12).tolist()
    distances = [0] * (n_distances - 1) + [1]
    out = np.zeros(400, np.uint8)
    behind = [0] * 9  # symbols that no header needs to hold
    planned, size = header(np.array(lengths + behind, np.int64), np.array(distances + behind, np.int64), out)
    assert size == planned
    reader = Reader(out.tobytes())
    assert (reader.take(5), reader.take(5)) == (n_literals - 257, n_distances - 1)
    assert reader.code_lengths(n_literals + n_distances) == lengths + distances
    assert reader.position == size


class Reader:
    """Bits of a stream, and the code lengths of a dynamic block, by RFC 1951, 3.2.7."""

    def __init__(self, content):
        self.stream, self.position = int.from_bytes(content, "little"), 0

    def take(self, count):
        value = self.stream >> self.position & (1 << count) - 1
        self.position += count
        return value

    def symbol(self, codes):
        code = ""
        while code not in codes:
            code += str(self.take(1))
            assert len(code) < 16
        return codes[code]

    def code_lengths(self, n):
        order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
        lengths = dict.fromkeys(range(19), 0)
        for token in order[: self.take(4) + 4]:
            lengths[token] = self.take(3)
        assert sum(2.0**-length for length in lengths.values() if length) == 1
        values = codes_by_the_book(list(lengths.values()))
        codes = {f"{values[token]:0{length}b}"[::-1]: token for token, length in lengths.items() if length}
        tokens, found = [], []
        while len(found) < n:
            token = self.symbol(codes)
            tokens.append(token | self.take({16: 2, 17: 3, 18: 7}.get(token, 0)) << 5)
            found = unpacked(tokens)
        return found


# ---------------------------------------------------------------- lengths and distances


def test_length_symbols():
    """RFC 1951, 3.2.5."""
    first, extra = 3, {}
    for symbol in range(257, 285):
        extra[symbol] = max((symbol - 261) // 4, 0)
        for value in range(1 << extra[symbol]):
            if first + value < 258:
                assert deflate.SYMBOL[first + value] == symbol
                assert deflate.EXTRA[first + value] == extra[symbol] << 48 | value
        first += 1 << extra[symbol]
    assert first == 259
    assert (deflate.SYMBOL[258], deflate.EXTRA[258]) == (285, 0)


@njit
def distance_symbols(distances, symbols):
    for place in range(distances.size):
        symbols[place] = finder.distance_symbol(distances[place])


def test_distance_symbols():
    """RFC 1951, 3.2.5."""
    expected = np.repeat(np.arange(30), [1 << max(symbol // 2 - 1, 0) for symbol in range(30)])
    found = np.empty(32_768, np.int64)
    distance_symbols(np.arange(1, 32_769), found)
    assert found.tolist() == expected.tolist()


# ---------------------------------------------------------------- CRC-32


def product_by_hand(a, b):
    """Of residues as polynomials, divided by the generator's."""
    result = 0
    for power in range(32):
        if a >> 31 - power & 1:
            shifted = b
            for _ in range(power):
                shifted = shifted >> 1 ^ (POLYNOMIAL if shifted & 1 else 0)
            result ^= shifted
    return result


@njit
def times(a, b):
    return crc.times(a, b)


residues = st.integers(0, 2**32 - 1)


@moderate
@given(residues, residues)
def test_products_of_residues(a, b):
    assert times(a, b) == times(b, a) == product_by_hand(a, b)


def test_powers():
    """A byte 0x80 is x**0, so that the CRC of it and ``k`` zeros differs from that of zeros by ``x**(8 k + 32)``."""
    powers = crc.powers()
    assert (powers.size, powers[0]) == (crc.WINDOW + 1, 1 << 31)
    for place in [*range(70), 1023, 1024, crc.WINDOW - 1, crc.WINDOW]:
        difference = zlib.crc32(b"\x80" + bytes(place)) ^ zlib.crc32(bytes(place + 1))
        assert times(int(powers[place]), POLYNOMIAL) == difference


@njit
def crc_of(content, background, powers, window, fold_every):
    tally, planes, spare = np.zeros(512, np.int64), np.zeros(8, np.int64), np.full(256, GARBAGE)
    tally[7] = np.int64(3) << 32  # counters, which stay
    residue, length = crc.START, content.size % window
    end = length
    for place in range(content.size):
        if place == end:
            crc.fold(tally, planes, spare, background)
            residue = crc.carry(residue, length, planes, background, powers)
            length = window
            end += window
        if content[place] != background:
            tally[content[place] + (place & 1) * 256] ^= np.int64(powers[end - 1 - place])
        if place % fold_every == 0:  # in the middle of a window too, as blocks end there
            crc.fold(tally, planes, spare, background)
    crc.fold(tally, planes, spare, background)
    residue = crc.carry(residue, length, planes, background, powers)
    return crc.finish(residue), tally


@moderate
@given(
    st.integers(0, 300) | st.sampled_from([32767, 32768, 32769, 65536, 70_000]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    st.sampled_from([0, 1, 0x80, 0xFF]) | st.integers(0, 255),
    st.sampled_from([1, 5, 64, crc.WINDOW]),
    st.integers(1, 40_000),
)
def test_crc(size, seed, density, background, window, fold_every):
    rng = np.random.default_rng(seed)
    content = np.where(rng.random(size) < density, rng.integers(0, 256, size), background).astype(np.uint8)
    if size > 1000:
        window = max(window, 64)
    found, tally = crc_of(content, background, crc.powers(), window, fold_every)
    assert found == zlib.crc32(content)
    assert np.flatnonzero(tally).tolist() == [7]  # sums are gone, counters as they were
    assert tally[7] == 3 << 32


@pytest.mark.parametrize("content", [b"", b"\0", b"123456789"])
def test_known_checksums(content):
    known = {b"": 0, b"\0": 0xD202EF8D, b"123456789": 0xCBF43926}[content]
    assert crc_of(np.frombuffer(content, np.uint8).copy(), 0, crc.powers(), crc.WINDOW, 1)[0] == known
