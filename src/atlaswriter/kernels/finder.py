"""What a search for matches works in, and what things cost in it.

All is one int64 array, ``scratch``; the names in capitals say where in it something begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import part
from atlaswriter.kernels.bits import peek
from atlaswriter.kernels.deflate import EXTRA, MAX_MATCH, N_DISTANCES, N_LITERALS, SYMBOL
from atlaswriter.kernels.huffman import N_TOKENS
from atlaswriter.kernels.tokens import BLOCK

WINDOW = 1 << 15
# Entries that may be looked back at, and the heads of the lists of equal ones.
HISTORY, HEADS = WINDOW, 4096
# Entries of one path: few enough for its nodes to stay in a core's nearest cache, and for its costs to
# follow what was found so far.
STRETCH = 1024
# A match over more entries than this is taken without looking for others.
LONG = 16
# Entries tried to find out whether matches pay, and as many before them as may be looked back at.
PROBE, BEFORE_PROBE = 256, 1024
_UNIT = 16  # costs are in 1/16 bit
NEVER = 1 << 50

# What a step of the path is, in the high bits; then what it needs.
MATCH, RUN, REST = 1 << 40, 2 << 40, 3 << 40
KIND, OPERAND = 3 << 40, (1 << 40) - 1


def _distance_symbols() -> Any:
    """Symbol of ``distance - 1`` below 256, and of those above by their high bits (RFC 1951, 3.2.5)."""
    symbols = np.zeros(512, np.int64)
    for place in range(512):
        value = place if place < 256 else (place - 256) << 7
        bits = value.bit_length()
        symbols[place] = value if value < 4 else 2 * (bits - 1) + (value >> (bits - 2) & 1)
    return symbols


_DISTANCE_SYMBOL = _distance_symbols()

# int64 scratch. What is kept from block to block: entries in the lists below, where the block begins.
N_KNOWN, START, BACKGROUND, N_PACKED = range(4)
# Four numbers of each entry: where it begins without the background's bytes, the run before it, what is
# left of it as ``bytes << 32 | code``, and the entry before it with the same hash.
PLACES, GAPS, CORES, BEFORE = range(8, 12)
COSTS = PLACES + 4 * (HISTORY + BLOCK + 8)
STEPS = COSTS + 2 * STRETCH + 8
STACK = STEPS + 2 * STRETCH + 8
PATH = STACK + 8 * STRETCH + 8
HEAD = PATH + 8 * BLOCK + 8
LITERAL_COSTS = HEAD + HEADS
LENGTH_COSTS = LITERAL_COSTS + 256
DISTANCE_COSTS = LENGTH_COSTS + 260
REST_COSTS = DISTANCE_COSTS + 32
COUNTS = REST_COSTS + 260
DISTANCE_COUNTS = COUNTS + N_LITERALS
LENGTHS = DISTANCE_COUNTS + N_DISTANCES
DISTANCE_LENGTHS = LENGTHS + N_LITERALS
PACKED = DISTANCE_LENGTHS + N_DISTANCES
TOKEN_LENGTHS = PACKED + 320
CODES = TOKEN_LENGTHS + N_TOKENS
DISTANCE_CODES = CODES + 320
WORK = DISTANCE_CODES + N_DISTANCES
SCRATCH = WORK + 1024


@part
def distance_symbol(distance: int) -> Any:
    """Symbol of a distance."""
    value = distance - 1
    return peek(_DISTANCE_SYMBOL, value if value < 256 else 256 + (value >> 7))


@part
def distance_bits(symbol: int) -> Any:
    """Number of bits that follow a distance's symbol."""
    return max(symbol // 2 - 1, 0)


@part
def _cost(count: int, total: int) -> Any:
    # No code is shorter than a bit, however common its symbol.
    return max(np.int64(_UNIT * np.log2((total + 1) / (count if count > 0 else 0.5))), np.int64(_UNIT))


@part
def fill_costs(scratch: Any) -> None:
    """Costs by what was counted; what did not occur costs as if it had half a time."""
    counts = scratch[COUNTS : COUNTS + N_LITERALS]
    distance_counts = scratch[DISTANCE_COUNTS : DISTANCE_COUNTS + N_DISTANCES]
    total, distances = counts.sum(), distance_counts.sum()
    for byte in range(256):
        scratch[LITERAL_COSTS + byte] = _cost(counts[byte], total)
    for length in range(3):
        scratch[LENGTH_COSTS + length] = NEVER
    previous, symbol_cost = 0, np.int64(0)
    for length in range(3, MAX_MATCH + 1):
        symbol = SYMBOL[length]
        if symbol != previous:
            symbol_cost, previous = _cost(counts[symbol], total), symbol
        scratch[LENGTH_COSTS + length] = symbol_cost + (EXTRA[length] >> 48) * _UNIT
    for symbol in range(N_DISTANCES):
        scratch[DISTANCE_COSTS + symbol] = _cost(distance_counts[symbol], distances) + distance_bits(symbol) * _UNIT
    literal = scratch[LITERAL_COSTS + scratch[BACKGROUND]]
    rest = scratch[REST_COSTS : REST_COSTS + 260]
    rest[0], rest[1], rest[2] = 0, literal, 2 * literal
    for length in range(3, MAX_MATCH + 1):
        rest[length] = scratch[LENGTH_COSTS + length] + scratch[DISTANCE_COSTS]


@part
def rest_cost(n_bytes: int, scratch: Any) -> Any:
    """Cost of background behind a byte of background."""
    if n_bytes <= MAX_MATCH:
        return peek(scratch, REST_COSTS + n_bytes)
    full, rest = n_bytes // MAX_MATCH, n_bytes % MAX_MATCH
    return full * scratch[REST_COSTS + MAX_MATCH] + scratch[REST_COSTS + rest]


@part
def run_cost(n_bytes: int, literal: int, scratch: Any) -> Any:
    """Cost of background behind anything else."""
    if n_bytes < 4:
        return n_bytes * literal
    return literal + rest_cost(n_bytes - 1, scratch)


@part
def literal_cost(core: int, scratch: Any) -> Any:
    """Cost of an entry as literals."""
    total = 0
    for _ in range(core >> 32):
        total += peek(scratch, LITERAL_COSTS + (core & 255))
        core >>= 8
    return total


@part
def begin_finder(scratch: Any, background: int) -> None:
    """Forget the column before."""
    scratch[N_KNOWN], scratch[START], scratch[BACKGROUND] = 0, 0, background
