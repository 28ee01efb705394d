"""DEFLATE from tokens: literals, and the runs before them that need not be searched for.

A run of ``g`` bytes repeats what stands ``distance`` bytes before it. A run of the background, which
may follow anything, first spells out one pattern of it (``lead`` bytes). Nothing is searched for:
tokens come from `kernels.tokens`, where runs are known. (Format: RFC 1951.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import part
from atlaswriter.kernels.bits import put, store
from atlaswriter.kernels.huffman import (
    N_TOKENS,
    canonical_codes,
    clear,
    code_lengths,
    coded_bits,
    plan_codes,
    put_header,
)

# At most: then a run of the background up to RUNS bytes and the literal behind it are one step of the bit writer.
LIMIT = 12
# Runs shorter than this are counted by length and have their code in a table.
RUNS = 259
# Longest chain of repeated bytes the format can say at once.
MAX_MATCH = 258
N_LITERALS, N_DISTANCES, END_OF_BLOCK = 288, 30, 256
_LONGEST_STORED = 65535
CODE = (1 << 48) - 1


def _length_symbols() -> tuple[Any, Any]:
    """Symbol of each match length, and ``bits << 48 | value`` of what follows it (RFC 1951, 3.2.5)."""
    symbol, extra = (np.zeros(MAX_MATCH + 1, np.int64) for _ in range(2))
    length, current = 3, 257
    while current < 285:
        bits = max((current - 261) // 4, 0)
        for value in range(1 << bits):
            symbol[length], extra[length] = current, bits << 48 | value
            length += 1
        current += 1
    symbol[MAX_MATCH], extra[MAX_MATCH] = 285, 0
    return symbol, extra


SYMBOL, EXTRA = _length_symbols()

# int64 scratch of one call: arrays made inside a kernel cost more to compile than to use.
_COUNTS, _LENGTHS, _CODES, _DISTANCE_LENGTHS, _FIXED = range(0, 1600, 320)
_PACKED, _TOKEN_LENGTHS, _RUN_CODES, _N_PACKED, _REST = range(1600, 3200, 320)
SCRATCH = _REST + 1024


@part
def _matches(n_bytes: int) -> Any:
    """How a run is divided: matches of full length, then up to two more lengths (0 for none)."""
    full, rest = n_bytes // MAX_MATCH, n_bytes % MAX_MATCH
    if 0 < rest < 3:  # no match is this short: the last full one gives some of its bytes
        return full - 1, MAX_MATCH - 3 + rest, 3
    return full, rest, 0


@part
def _count_run(n_bytes: int, times: int, pattern: Any, lead: int, counts: Any) -> Any:
    """Count the symbols of a run that occurs ``times`` times; the number of its matches and their extra bits."""
    literals = n_bytes if n_bytes < lead + 3 else lead
    for byte in range(literals):
        counts[pattern[byte & (pattern.size - 1)]] += times
    if literals == n_bytes:
        return 0
    full, second, third = _matches(n_bytes - literals)
    counts[SYMBOL[MAX_MATCH]] += full * times
    n_matches, extra = full, 0
    for length in (second, third):
        if length:
            counts[SYMBOL[length]] += times
            extra += EXTRA[length] >> 48
            n_matches += 1
    return (n_matches << 32 | extra) * times


@part
def _put_run(
    out: Any, at: int, held: int, n_held: int, n_bytes: int, pattern: Any, lead: int, codes: Any, repeat: int
) -> Any:
    """One run of any length: its literals, then its matches. ``repeat`` is the code of its distance."""
    literals = n_bytes if n_bytes < lead + 3 else lead
    for byte in range(literals):
        code = codes[pattern[byte & (pattern.size - 1)]]
        at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
    if literals == n_bytes:
        return at, held, n_held
    full, second, third = _matches(n_bytes - literals)
    code = _match_code(MAX_MATCH, codes, repeat)
    for _ in range(full):
        at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
    for length in (second, third):
        if length:
            code = _match_code(length, codes, repeat)
            at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
    return at, held, n_held


@part
def join(first: int, second: int) -> Any:
    """Two codes (``length << 48 | bits``) one after the other."""
    return (first >> 48) + (second >> 48) << 48 | first & CODE | (second & CODE) << (first >> 48)


@part
def _match_code(length: int, codes: Any, repeat: int) -> Any:
    return join(join(codes[SYMBOL[length]], EXTRA[length]), repeat)


@part
def _fill_run_codes(runs: Any, pattern: Any, lead: int, codes: Any, repeat: int, run_codes: Any) -> None:
    """Codes of the runs that occur."""
    run_codes[0] = 0
    for n_bytes in range(1, RUNS):
        if runs[n_bytes] == 0:
            continue
        code, literals = 0, n_bytes if n_bytes < lead + 3 else lead
        for byte in range(literals):
            code = join(code, codes[pattern[byte & (pattern.size - 1)]])
        if literals < n_bytes:
            code = join(code, _match_code(n_bytes - literals, codes, repeat))
        run_codes[n_bytes] = code


@part
def _count_symbols(tally: Any, runs: Any, long_runs: Any, pattern: Any, lead: int, counts: Any) -> Any:
    """Fill ``counts``; the number of matches and, in the low 32 bits, of their extra bits."""
    clear(counts)
    for byte in range(256):
        counts[byte] = (tally[byte] >> 32) + (tally[byte + 256] >> 32)
    counts[END_OF_BLOCK] = 1
    matches = 0
    for n_bytes in range(1, RUNS):
        if runs[n_bytes]:
            matches += _count_run(n_bytes, runs[n_bytes], pattern, lead, counts)
    for n_bytes in long_runs:
        matches += _count_run(n_bytes, np.int64(1), pattern, lead, counts)
    return matches


@part
def _fixed_lengths(lengths: Any) -> None:
    for symbol in range(N_LITERALS):
        lengths[symbol] = 8 if symbol < 144 else 9 if symbol < 256 else 7 if symbol < 280 else 8


@part
def _put_stored(
    out: Any, at: int, held: int, n_held: int, tokens: Any, tail: int, pattern: Any, size: int, last: int
) -> Any:
    """The bytes themselves; runs stand for the background."""
    at, held, n_held = put(out, at, held, n_held, last, 3)
    at, held, n_held = put(out, at, held, n_held, 0, (8 - n_held) & 7)
    at, held, n_held = put(out, at, held, n_held, size | (size ^ _LONGEST_STORED) << 16, 32)
    for place in range(tokens.size + 1):
        run = tokens[place] >> 8 if place < tokens.size else tail
        for byte in range(run):
            out[at + byte] = pattern[byte & (pattern.size - 1)]
        at += run
        if place < tokens.size:
            out[at] = tokens[place] & 255
            at += 1
    return at, 0, 0


@part
def plan(tally: Any, runs: Any, long_runs: Any, pattern: Any, distance: int, lead: int, scratch: Any) -> Any:
    """Codes of a block's own, and what the block costs.

    Parameters
    ----------
    tally : int64, (512,)
        Number of literals of each value in the high 32 bits, in two tables to be added.
    runs : int64, (RUNS,)
        Number of runs of each length.
    long_runs : int64
        Lengths of the longer ones.
    pattern : uint8, (1,) or (2,)
        The background, where runs are of it.
    distance : int
        Runs repeat what stands so many bytes before: 1, 2 or 4.
    lead : int
        ``pattern.size`` when runs are of the background; 0 when they are at least 3 bytes that
        repeat those before them, whatever these are.
    scratch : int64, (SCRATCH,)
        Kept until `put_block`; begins with the number of each symbol.

    Returns
    -------
    own, fixed, n_matches : int
        Bits with codes of its own and with the fixed ones; number of matches.
    """
    counts = scratch[_COUNTS : _COUNTS + N_LITERALS]
    lengths = scratch[_LENGTHS : _LENGTHS + N_LITERALS]
    fixed_lengths = scratch[_FIXED : _FIXED + N_LITERALS]
    packed, token_lengths = scratch[_PACKED : _PACKED + 320], scratch[_TOKEN_LENGTHS : _TOKEN_LENGTHS + N_TOKENS]
    rest = scratch[_REST:]
    found = _count_symbols(tally, runs, long_runs, pattern, lead, counts)
    n_matches, extra = found >> 32, found & 0xFFFFFFFF
    code_lengths(counts, np.int64(LIMIT), lengths, rest)
    distance_lengths = clear(scratch[_DISTANCE_LENGTHS : _DISTANCE_LENGTHS + N_DISTANCES])
    distance_lengths[distance - 1] = 1
    scratch[_N_PACKED], header = plan_codes(lengths, distance_lengths, packed, token_lengths, rest)
    own = header + coded_bits(counts, lengths) + n_matches
    _fixed_lengths(fixed_lengths)
    return 3 + own + extra, 3 + coded_bits(counts, fixed_lengths) + 5 * n_matches + extra, n_matches


@part
def put_block(
    out: Any, at: int, pending: int, tokens: Any, own: int, fixed: int, runs: Any, tail: int, last: int, pattern: Any,
    distance: int, lead: int, scratch: Any,
) -> Any:  # fmt: skip
    """One block, by whichever of codes of its own, the fixed codes and the bytes themselves is shortest.

    Parameters
    ----------
    out : uint8
        The stream; long enough for the worst case (`codecs.sparse_gzip.longest`).
    at, pending : int
        Where to go on: bytes that are complete, and ``number << 8 | bits`` of those that do not fill one.
    tokens : int64, (n_tokens,)
        ``run << 8 | literal`` each: a literal and the bytes before it that a run covers.
    own, fixed, runs, pattern, distance, lead, scratch
        Of `plan`.
    tail : int
        Length of the run behind the last literal.
    last : int
        1 when no other block follows, else 0.

    Returns
    -------
    at, pending : int
    """
    codes = scratch[_CODES : _CODES + N_LITERALS]
    run_codes, rest = scratch[_RUN_CODES : _RUN_CODES + RUNS], scratch[_REST:]
    held, n_held = pending & 255, pending >> 8
    if lead:
        size = tokens.size + tail
        for token in tokens:
            size += token >> 8
        if size <= _LONGEST_STORED and 8 * size + 35 + ((5 - n_held) & 7) < min(own, fixed):
            at, held, n_held = _put_stored(out, at, held, n_held, tokens, tail, pattern, size, last)
            return at, n_held << 8 | held
    if fixed <= own:
        at, held, n_held = put(out, at, held, n_held, last | 1 << 1, 3)
        canonical_codes(scratch[_FIXED : _FIXED + N_LITERALS], codes, rest)
        repeat = 5 << 48 | (0 if distance == 1 else 16 if distance == 2 else 24)
    else:
        lengths = scratch[_LENGTHS : _LENGTHS + N_LITERALS]
        distance_lengths = scratch[_DISTANCE_LENGTHS : _DISTANCE_LENGTHS + N_DISTANCES]
        token_lengths = scratch[_TOKEN_LENGTHS : _TOKEN_LENGTHS + N_TOKENS]
        at, held, n_held = put(out, at, held, n_held, last | 2 << 1, 3)
        packed = scratch[_PACKED : _PACKED + scratch[_N_PACKED]]
        at, held, n_held = put_header(out, at, held, n_held, lengths, distance_lengths, packed, token_lengths, rest)
        canonical_codes(lengths, codes, rest)
        repeat = 1 << 48
    _fill_run_codes(runs, pattern, lead, codes, repeat, run_codes)
    for token in tokens:
        run, literal = token >> 8, codes[token & 255]
        if run >= RUNS:
            at, held, n_held = _put_run(out, at, held, n_held, run, pattern, lead, codes, repeat)
            run = 0
        first = run_codes[np.uintp(run)]
        bits = first & CODE | (literal & CODE) << (first >> 48)
        at, held, n_held = put(out, at, held, n_held, bits, (first >> 48) + (literal >> 48))
    at, held, n_held = _put_run(out, at, held, n_held, tail, pattern, lead, codes, repeat)
    end = codes[END_OF_BLOCK]
    at, held, n_held = put(out, at, held, n_held, end & CODE, end >> 48)
    return at, n_held << 8 | held


@part
def put_empty(out: Any, at: int, pending: int) -> Any:
    """A stored block of nothing, which fills the last byte; arguments as of `put_block`."""
    at, held, n_held = put(out, at, pending & 255, pending >> 8, 0, 3)
    at, _, _ = put(out, at, held, n_held, 0, -n_held & 7)
    store(out, at, np.int64(0xFFFF0000))
    return at + 4, np.int64(0)
