"""Columns as DEFLATE tokens: literals, and the runs between them that are known without a search."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import part
from atlaswriter.kernels.crc import START, WINDOW, carry, finish, fold
from atlaswriter.kernels.deflate import RUNS

# Tokens of a block: enough for its codes to cost next to nothing, few enough (256 KiB) that they stay in a
# core's cache until they are written.
BLOCK = 1 << 15

# What a column's tokeniser remembers between two blocks, and tells of the last one.
ENTRY, END, WINDOW_END, WINDOW_LENGTH, RESIDUE, TAIL, N_LONG = range(7)
_PLANES, _SPARE = 8, 16
STATE = _SPARE + 256
_COUNTED = 1 << 32


@part
def count_run(run: int, runs: Any, long_runs: Any, n_long: int) -> Any:
    """Count a run; how many long ones there are now."""
    if run < RUNS:
        runs[run] += 1
        return n_long
    long_runs[n_long] = run
    return n_long + 1


@part
def begin_column(state: Any, n_bytes: int) -> None:
    """Set the state before the first block of a column."""
    for place in range(_SPARE):
        state[place] = 0
    # Windows end where the column ends, so only the first may be shorter.
    state[WINDOW_LENGTH] = n_bytes % WINDOW
    state[WINDOW_END] = n_bytes % WINDOW
    state[RESIDUE] = START


@part
def _next_window(state: Any, tally: Any, background: int, powers: Any) -> None:
    planes, spare = state[_PLANES : _PLANES + 8], state[_SPARE : _SPARE + 256]
    fold(tally, planes, spare, background)
    state[RESIDUE] = carry(state[RESIDUE], state[WINDOW_LENGTH], planes, background, powers)
    state[WINDOW_LENGTH] = WINDOW
    state[WINDOW_END] += WINDOW


@part
def column(
    entries: Any, width: int, n_bytes: int, pattern: Any, powers: Any, state: Any, tally: Any, runs: Any,
    long_runs: Any, tokens: Any,
) -> Any:  # fmt: skip
    """Tokens of the next block of a column that is one background except in some rows.

    Parameters
    ----------
    entries : int64, (m,)
        ``row << 32 | code`` of these rows, strictly ascending; every row that is not the background
        is among them.
    width : int
        Bytes of a code; a constant, so that the loop over them unrolls.
    n_bytes : int
        Bytes of the whole column.
    pattern : uint8, (1,) or (2,)
        The background: one byte where all its bytes are equal. Then bytes of values that equal it
        are runs too, and the CRC comes along.
    powers : uint32
        `crc.powers`.
    state : int64, (STATE,)
        As `begin_column` sets it before the first block. Then: next entry, end of what is covered, CRC; `TAIL`, the run
        behind the last literal; `N_LONG`.
    tally : int64, (512,)
        Zeros; filled with literals counted in the high 32 bits.
    runs : int64, (RUNS,)
        Zeros; filled with runs counted by length.
    long_runs : int64, (BLOCK + 8,)
        Filled with the lengths of `N_LONG` longer runs.
    tokens : int64, (BLOCK + 8,)
        Filled with ``run << 8 | literal``.

    Returns
    -------
    int
        Number of tokens. When all entries are done, `TAIL` reaches the end of the column, and
        `RESIDUE` holds the CRC-32 (where there is one).
    """
    merge = pattern.size == 1
    background = np.int64(pattern[0]) if merge else -1
    place, end, window_end, n_long, n_tokens = state[ENTRY], state[END], state[WINDOW_END], 0, 0
    if not merge:
        window_end = n_bytes
    while place < entries.size and n_tokens < BLOCK:
        code = entries[place] & 0xFFFFFFFF
        position = (entries[place] >> 32 & 0xFFFFFFFF) * width
        place += 1
        if position >= window_end:
            while position >= state[WINDOW_END]:
                _next_window(state, tally, background, powers)
            window_end = state[WINDOW_END]
        for _ in range(width):
            literal = code & 255
            if literal != background:
                run = position - end
                tokens[n_tokens] = run << 8 | literal
                if run < RUNS:
                    runs[np.uintp(run)] += 1
                else:
                    long_runs[n_long] = run
                    n_long += 1
                slot = literal + ((n_tokens & 1) << 8)
                power = np.int64(powers[(window_end - 1 - position) & (WINDOW - 1)])
                tally[slot] = (tally[slot] + _COUNTED) ^ power
                n_tokens += 1
                end = position + 1
            position += 1
            code >>= 8
    state[ENTRY], state[END], state[TAIL] = place, end, 0
    if place == entries.size:
        if merge:
            while state[WINDOW_END] < n_bytes:
                _next_window(state, tally, background, powers)
            _next_window(state, tally, background, powers)
            state[RESIDUE] = finish(state[RESIDUE])
        state[TAIL] = n_bytes - end
        n_long = count_run(n_bytes - end, runs, long_runs, n_long)
    elif merge:
        fold(tally, state[_PLANES : _PLANES + 8], state[_SPARE : _SPARE + 256], background)
    state[N_LONG] = n_long
    return n_tokens


@part
def _repeats(content: Any, position: int, width: int) -> Any:
    """How many bytes from here on are those ``width`` before them."""
    end = position
    while end < content.size and content[end] == content[end - width]:
        end += 1
    return end - position


@part
def repeating(content: Any, width: int, state: Any, tally: Any, runs: Any, long_runs: Any, tokens: Any) -> Any:
    """Tokens of the next block of any bytes: runs are stretches that repeat what stands ``width`` before them.

    Parameters and result as for `column`, without a CRC; `ENTRY` counts bytes, and is zero before
    the first block.
    """
    position, n_long, n_tokens, run = state[ENTRY], 0, 0, 0
    while n_tokens < BLOCK and position < content.size:
        if position >= width and content[position] == content[position - width]:
            run = _repeats(content, position, width)
            if run >= 3:
                position += run
                n_long = count_run(run, runs, long_runs, n_long)
                if position == content.size:
                    break
            else:
                run = 0
        literal = np.int64(content[position])
        tokens[n_tokens] = run << 8 | literal
        tally[literal + ((n_tokens & 1) << 8)] += _COUNTED
        n_tokens += 1
        position += 1
        run = 0
    state[ENTRY], state[TAIL], state[N_LONG] = position, run, n_long
    return n_tokens


@part
def recurring(tokens: Any, seen: Any) -> Any:
    """Whether most sequences of four tokens occurred before: columns of a pattern, which random ones never have.

    ``seen``, int64 (1024,), is overwritten; at most 512 tokens are looked at.
    """
    for place in range(1024):
        seen[place] = -1
    looked_at = min(tokens.size - 3, 512)
    found = 0
    for place in range(looked_at):
        mixed = np.int64(0)
        for token in range(4):
            mixed = (mixed + tokens[place + token]) * -7046029254386353131
            mixed ^= mixed >> 29 & 0x7FFFFFFFF
        slot = mixed & 1023
        found += seen[slot] == mixed
        seen[slot] = mixed
    return looked_at > 64 and 2 * found > looked_at
