"""DEFLATE of a column that is mostly one value, straight from the places where it is not.

Between two stored values lies a run of the background value. A run of ``G`` bytes with period
``p`` (1 when all bytes of the background are equal, else its width) is ``p`` literals and matches
of distance ``p``; nothing is searched for. Code lengths are at most 12 bits, so the whole code of
a run of up to 258 bytes behind its literals fits one 32-bit step of the bit writer.
(Format: RFC 1951.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from atlaswriter.kernels._jit import kernel

# Only called from other kernels, so it needs no entry from Python.
_part: Any = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True)  # type: ignore[call-overload]

LIMIT = 12
# Runs up to this many elements have their code looked up; longer ones are put together each time.
TABLE = 260
N_SYMBOLS = 286
END_OF_BLOCK = 256
_MAX_MATCH = 258
_CODE_LENGTH_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


def _length_symbols() -> tuple[Any, Any, Any]:
    """Symbol, number of extra bits and extra value of each match length (RFC 1951, 3.2.5)."""
    symbol, n_extra, extra = (np.zeros(_MAX_MATCH + 1, np.int64) for _ in range(3))
    length, current = 3, 257
    while current < 285:
        bits = max((current - 261) // 4, 0)
        for value in range(1 << bits):
            symbol[length], n_extra[length], extra[length] = current, bits, value
            length += 1
        current += 1
    symbol[_MAX_MATCH], n_extra[_MAX_MATCH], extra[_MAX_MATCH] = 285, 0, 0
    return symbol, n_extra, extra


_SYMBOL, _N_EXTRA, _EXTRA = _length_symbols()


# int64 scratch of one call: arrays made inside a kernel cost more to compile than to use.
SCRATCH = 4096
_COUNTS, _LENGTHS, _CODES, _SORTED, _DEPTHS, _BOTH, _TOKENS, _EXTRAS, _SMALL, _RUN_BITS, _RUN_COUNTS = range(
    0, 11 * 320, 320
)


@_part
def _clear(values: Any) -> Any:
    for place in range(values.size):
        values[place] = 0
    return values


@_part
def _sorted_symbols(counts: Any, symbols: Any) -> int:
    """Fill ``symbols`` with those that occur, rarest first (equal ones by number); how many there are."""
    used = 0
    for symbol in range(counts.size):
        if counts[symbol] > 0:
            symbols[used] = symbol
            used += 1
    step = used // 2
    while step > 0:
        for start in range(step, used):
            moved = symbols[start]
            place = start
            while place >= step:
                other = symbols[place - step]
                if counts[other] < counts[moved] or (counts[other] == counts[moved] and other < moved):
                    break
                symbols[place] = other
                place -= step
            symbols[place] = moved
        step //= 2
    return used


@_part
def _depths(counts: Any, symbols: Any, used: int, weight: Any) -> None:
    """Depths of the optimal code into ``weight``, for symbols sorted by count.

    In place and linear: A. Moffat, J. Katajainen, "In-place calculation of minimum-redundancy
    codes", 1995.
    """
    for place in range(used):
        weight[place] = counts[symbols[place]]
    leaf, root = 0, 0
    for joint in range(used - 1):
        total = 0
        for _ in range(2):
            if leaf >= used or (root < joint and weight[root] < weight[leaf]):
                total += weight[root]
                weight[root] = joint
                root += 1
            else:
                total += weight[leaf]
                leaf += 1
        weight[joint] = total
    weight[used - 2] = 0
    for joint in range(used - 3, -1, -1):
        weight[joint] = weight[weight[joint]] + 1
    free, depth, root, place = 1, 0, used - 2, used - 1
    while free > 0:
        inner = 0
        while root >= 0 and weight[root] == depth:
            inner += 1
            root -= 1
        while free > inner:
            weight[place] = depth
            place -= 1
            free -= 1
        free = 2 * inner
        depth += 1


@_part
def code_lengths(counts: Any, limit: int, lengths: Any, scratch: Any) -> None:
    """Lengths of a prefix code for the symbols that occur, none above ``limit``.

    The optimal code, made to fit: lengths above the limit are cut to it, and shorter codes grow
    until Kraft's sum is 1 again.
    """
    _clear(lengths)
    symbols = scratch[_SORTED : _SORTED + counts.size]
    used = _sorted_symbols(counts, symbols)
    if used == 0:
        return
    if used == 1:
        lengths[symbols[0]] = 1
        return
    depth = scratch[_DEPTHS : _DEPTHS + used]
    _depths(counts, symbols, used, depth)
    per_length = _clear(scratch[_SMALL : _SMALL + limit + 1])
    for place in range(used):
        per_length[min(depth[place], limit)] += 1
    kraft = 0
    for length in range(1, limit + 1):
        kraft += per_length[length] << (limit - length)
    while kraft > 1 << limit:
        per_length[limit] -= 1
        for length in range(limit - 1, 0, -1):
            if per_length[length] > 0:
                per_length[length] -= 1
                per_length[length + 1] += 2
                break
        kraft -= 1
    place = 0
    for length in range(limit, 0, -1):
        for _ in range(per_length[length]):
            lengths[symbols[place]] = length
            place += 1


@_part
def canonical_codes(lengths: Any, codes: Any, scratch: Any) -> None:
    """Codes of given lengths, bits reversed as DEFLATE writes them (RFC 1951, 3.2.2)."""
    next_code = _clear(scratch[_SMALL : _SMALL + 17])
    per_length = _clear(scratch[_SMALL + 17 : _SMALL + 34])
    for symbol in range(lengths.size):
        per_length[lengths[symbol]] += 1
    per_length[0] = 0
    for bits in range(1, 16):
        next_code[bits + 1] = (next_code[bits] + per_length[bits]) << 1
    for symbol in range(lengths.size):
        length = lengths[symbol]
        if length:
            code = next_code[length]
            next_code[length] += 1
            reverse = 0
            for _ in range(length):
                reverse = (reverse << 1) | (code & 1)
                code >>= 1
            codes[symbol] = reverse


@_part
def _put(words: Any, position: int, held: int, n_held: int, bits: int, count: int) -> Any:
    """Append up to 32 bits; ``held`` are the ``n_held`` < 32 bits that do not fill a word yet."""
    held |= bits << n_held
    n_held += count
    if n_held >= 32:
        words[position] = held & 0xFFFFFFFF
        return position + 1, held >> 32, n_held - 32
    return position, held, n_held


@_part
def _matches(n_bytes: int) -> Any:
    """How a run is divided: matches of full length, then up to two more lengths (0 for none)."""
    full, rest = n_bytes // _MAX_MATCH, n_bytes % _MAX_MATCH
    if 0 < rest < 3:  # no match is this short: the last full one gives some of its bytes
        return full - 1, _MAX_MATCH - 3 + rest, 3
    return full, rest, 0


@_part
def _count_run(n_bytes: int, times: int, background: Any, period: int, counts: Any) -> None:
    """Count the symbols of a run that occurs ``times`` times."""
    literals = n_bytes if n_bytes < period + 3 else period
    for byte in range(literals):
        counts[background[byte % background.size]] += times
    if literals < n_bytes:
        full, second, third = _matches(n_bytes - literals)
        counts[_SYMBOL[_MAX_MATCH]] += full * times
        for length in (second, third):
            if length:
                counts[_SYMBOL[length]] += times


@_part
def _tally(content: Any, rows: Any, background: Any, period: int, counts: Any, runs: Any) -> None:
    """Count every literal and length symbol of the column."""
    width = background.size
    _clear(runs)
    end = 0
    for place in range(rows.size + 1):
        row = np.int64(rows[place] if place < rows.size else content.size // width)
        if place < rows.size:
            # Written out here and in _put_column: as a function it made a column take 17 instead of 10 ns a non-zero.
            same = True
            for byte in range(width):
                same &= content[row * width + byte] == background[byte]
            if same:
                continue
            for byte in range(width):
                counts[content[row * width + byte]] += 1
        gap = row - end
        if gap < TABLE:
            runs[gap] += 1
        else:
            _count_run(gap * width, 1, background, period, counts)
        end = int(row) + 1
    for elements in range(1, TABLE):
        if runs[elements]:
            _count_run(elements * width, runs[elements], background, period, counts)


@_part
def _pack_lengths(lengths: Any, tokens: Any, extras: Any) -> int:
    """Run-length form of the code lengths (RFC 1951, 3.2.7); number of tokens."""
    n_tokens, place = 0, 0
    while place < lengths.size:
        length = lengths[place]
        end = place + 1
        while end < lengths.size and lengths[end] == length:
            end += 1
        run = end - place
        place = end
        if length and run:
            tokens[n_tokens] = length
            n_tokens += 1
            run -= 1
        while run >= 3:
            if length:
                taken = min(run, 6)
                tokens[n_tokens], extras[n_tokens] = 16, taken - 3
            elif run <= 10:
                taken = run
                tokens[n_tokens], extras[n_tokens] = 17, taken - 3
            else:
                taken = min(run, 138)
                tokens[n_tokens], extras[n_tokens] = 18, taken - 11
            n_tokens += 1
            run -= taken
        for _ in range(run):
            tokens[n_tokens] = length
            n_tokens += 1
    return n_tokens


@_part
def _put_tree(
    words: Any, position: int, held: int, n_held: int, lengths: Any, n_literal: int, period: int, scratch: Any
) -> Any:
    """The header of a dynamic block: both codes, that for distances having the one code of ``period``."""
    both = _clear(scratch[_BOTH : _BOTH + n_literal + period])
    for symbol in range(n_literal):
        both[symbol] = lengths[symbol]
    both[n_literal + period - 1] = 1
    tokens = scratch[_TOKENS : _TOKENS + both.size]
    extras = _clear(scratch[_EXTRAS : _EXTRAS + both.size])
    n_tokens = _pack_lengths(both, tokens, extras)
    counts = _clear(scratch[_SMALL + 40 : _SMALL + 59])
    token_lengths = scratch[_SMALL + 60 : _SMALL + 79]
    token_codes = scratch[_SMALL + 80 : _SMALL + 99]
    for place in range(n_tokens):
        counts[tokens[place]] += 1
    code_lengths(counts, 7, token_lengths, scratch)
    canonical_codes(token_lengths, token_codes, scratch)
    n_stored = 19
    while n_stored > 4 and token_lengths[_CODE_LENGTH_ORDER[n_stored - 1]] == 0:
        n_stored -= 1
    head = (n_literal - 257) | (period - 1) << 5 | (n_stored - 4) << 10
    position, held, n_held = _put(words, position, held, n_held, head, 14)
    for place in range(n_stored):
        length = token_lengths[_CODE_LENGTH_ORDER[place]]
        position, held, n_held = _put(words, position, held, n_held, length, 3)
    for place in range(n_tokens):
        token = tokens[place]
        n_extra = 2 if token == 16 else 3 if token == 17 else 7 if token == 18 else 0
        bits = token_codes[token] | extras[place] << token_lengths[token]
        position, held, n_held = _put(words, position, held, n_held, bits, token_lengths[token] + n_extra)
    return position, held, n_held


@_part
def _put_run(
    words: Any,
    position: int,
    held: int,
    n_held: int,
    n_bytes: int,
    background: Any,
    period: int,
    codes: Any,
    lengths: Any,
) -> Any:
    """One run of the background: its literals, then its matches."""
    literals = n_bytes if n_bytes < period + 3 else period
    for byte in range(literals):
        symbol = background[byte % background.size]
        position, held, n_held = _put(words, position, held, n_held, codes[symbol], lengths[symbol])
    if literals < n_bytes:
        full, second, third = _matches(n_bytes - literals)
        symbol = _SYMBOL[_MAX_MATCH]
        for _ in range(full):  # the distance code is one 0 bit
            position, held, n_held = _put(words, position, held, n_held, codes[symbol], lengths[symbol] + 1)
        for length in (second, third):
            if length:
                symbol = _SYMBOL[length]
                bits = codes[symbol] | _EXTRA[length] << lengths[symbol]
                count = lengths[symbol] + _N_EXTRA[length] + 1
                position, held, n_held = _put(words, position, held, n_held, bits, count)
    return position, held, n_held


@_part
def _run_codes(
    words: Any, background: Any, period: int, codes: Any, lengths: Any, run_bits: Any, run_counts: Any
) -> None:
    """Whole code of each run in the table where it fits 32 bits, count 0 where it does not; spoils ``words``."""
    _clear(run_counts)
    for gap in range(1, run_bits.size):
        n_bytes = gap * background.size
        if n_bytes > period + _MAX_MATCH:
            break
        position, held, n_held = _put_run(words, 0, 0, 0, n_bytes, background, period, codes, lengths)
        if position == 0:
            run_bits[gap], run_counts[gap] = held, n_held
        elif position == 1 and n_held == 0:
            run_bits[gap], run_counts[gap] = words[0], 32


@_part
def _put_column(
    words: Any, position: int, held: int, n_held: int, content: Any, rows: Any, background: Any, period: int,
    codes: Any, lengths: Any, run_bits: Any, run_counts: Any,
) -> Any:  # fmt: skip
    """The symbols of the whole column."""
    width = background.size
    end = 0
    for place in range(rows.size + 1):
        row = np.int64(rows[place] if place < rows.size else content.size // width)
        if place < rows.size:
            same = True
            for byte in range(width):
                same &= content[row * width + byte] == background[byte]
            if same:
                continue
        gap = row - end
        if gap > 0:
            if gap < TABLE and run_counts[gap]:
                position, held, n_held = _put(words, position, held, n_held, run_bits[gap], run_counts[gap])
            else:
                position, held, n_held = _put_run(
                    words, position, held, n_held, gap * width, background, period, codes, lengths
                )
        if place < rows.size:
            for byte in range(width):
                symbol = content[row * width + byte]
                position, held, n_held = _put(words, position, held, n_held, codes[symbol], lengths[symbol])
        end = int(row) + 1
    return position, held, n_held


@kernel(*(f"(u1[::1], {row}[::1], u1[::1], i8, u4[::1], i8[::1])" for row in ("u4", "i4", "i8")))
def gzip_column(content: Any, rows: Any, background: Any, period: int, words: Any, scratch: Any) -> int:
    """A gzip file up to its trailer, of a column that is its background except in some rows.

    Parameters
    ----------
    content : uint8, (n * width,)
        The bytes of the column.
    rows : uint32, int32 or int64, (m,)
        Ascending; every row that is not the background is among them.
    background : uint8, (width,)
        Bytes of the background value.
    period : int
        1 when all bytes of the background are equal, else its width.
    words : uint32, little-endian
        Filled with the file; long enough for the worst case.
    scratch : int64, (SCRATCH,)
        Overwritten.

    Returns
    -------
    int
        Bytes written; CRC-32 and size of the content are to follow.
    """
    counts = _clear(scratch[_COUNTS : _COUNTS + N_SYMBOLS])
    lengths = scratch[_LENGTHS : _LENGTHS + N_SYMBOLS]
    codes = scratch[_CODES : _CODES + N_SYMBOLS]
    run_bits = scratch[_RUN_BITS : _RUN_BITS + TABLE]
    run_counts = scratch[_RUN_COUNTS : _RUN_COUNTS + TABLE]
    counts[END_OF_BLOCK] = 1
    _tally(content, rows, background, period, counts, run_counts)
    code_lengths(counts, LIMIT, lengths, scratch)
    canonical_codes(lengths, codes, scratch)
    _run_codes(words, background, period, codes, lengths, run_bits, run_counts)
    n_literal = N_SYMBOLS
    while lengths[n_literal - 1] == 0:
        n_literal -= 1
    # magic, deflate, no flags; time 0; no extra flags, unknown system; last block, dynamic codes
    words[0], words[1] = 0x00088B1F, 0
    at, held, n_held = 2, 0xFF00 | 0b101 << 16, 19
    at, held, n_held = _put_tree(words, at, held, n_held, lengths, n_literal, period, scratch)
    at, held, n_held = _put_column(
        words, at, held, n_held, content, rows, background, period, codes, lengths, run_bits, run_counts
    )
    at, held, n_held = _put(words, at, held, n_held, codes[END_OF_BLOCK], lengths[END_OF_BLOCK])
    words[at] = held
    return int(at * 4 + (n_held + 7) // 8)
