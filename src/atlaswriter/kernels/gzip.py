"""Whole gzip files of columns, many in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part
from atlaswriter.kernels.bits import width_of
from atlaswriter.kernels.deflate import RUNS, SCRATCH, plan, put_block, put_empty
from atlaswriter.kernels.finder import begin_finder
from atlaswriter.kernels.huffman import clear
from atlaswriter.kernels.matches import pays, put_path
from atlaswriter.kernels.matches import plan as plan_matches
from atlaswriter.kernels.tokens import (
    BLOCK,
    END,
    ENTRY,
    N_LONG,
    RESIDUE,
    STATE,
    TAIL,
    begin_column,
    column,
    recurring,
    repeating,
)

HEADER_BYTES, TRAILER_BYTES = 10, 8

# int64 scratch of these kernels, zeros at first.
_TALLY = STATE
_RUNS = _TALLY + 512
_LONG_RUNS = _RUNS + RUNS
_TOKENS = _LONG_RUNS + BLOCK + 8
_CODES = _TOKENS + BLOCK + 8
_SEEN = _CODES + SCRATCH
WORKSPACE = _SEEN + 1024

# Columns of so many entries are searched for matches without asking whether that pays.
_FEW = 4096


@part
def _divided(workspace: Any) -> Any:
    return (
        workspace[:STATE],
        workspace[_TALLY : _TALLY + 512],
        workspace[_RUNS : _RUNS + RUNS],
        workspace[_LONG_RUNS : _LONG_RUNS + BLOCK + 8],
        workspace[_TOKENS : _TOKENS + BLOCK + 8],
        workspace[_CODES : _CODES + SCRATCH],
        workspace[_SEEN:],
    )


@part
def _put_file_header(file: Any, at: int) -> int:
    # magic, deflate, no flags, time 0, no extra flags, unknown system
    file[at], file[at + 1], file[at + 2], file[at + 9] = 0x1F, 0x8B, 8, 255
    file[at + 3 : at + 9] = 0
    return at + 10


@part
def _put_trailer(file: Any, at: int, crc: int, n_bytes: int) -> int:
    for byte in range(4):
        file[at + byte] = (crc >> (8 * byte)) & 255
        file[at + 4 + byte] = (n_bytes >> (8 * byte)) & 255
    return at + 8


@kernel(
    *(
        f"(i8[::1], i8[::1], i8, {code}[::1], u1[::1], i8, b1, i8, b1, u4[::1], i8[::1], {finder}, u1[::1], i8[::1])"
        for code in ("u1", "u2", "u4")
        for finder in ("none", "i8[::1]")
    )
)
def columns(
    entries: Any, offsets: Any, n_rows: int, backgrounds: Any, content: Any, stride: int, more: bool, depth: int,
    thorough: bool, powers: Any, workspace: Any, finder: Any, files: Any, ends: Any,
) -> None:  # fmt: skip
    """A gzip file of each sparse column, or of one array: one member each, no name, time 0.

    One kernel, because most of it is common to both and takes seconds to compile.

    Parameters
    ----------
    entries : int64, (nnz,)
        ``row << 32 | code``, strictly ascending within a column.
    offsets : int64, (n_columns + 1,)
        Where each column begins.
    n_rows : int
        Length of every column.
    backgrounds : uint8, uint16 or uint32, (n_columns,)
        Code of all other rows, as wide as codes are stored.
    content : uint8, (n,)
        The array, instead of a column.
    stride : int
        0 for columns. Else bytes of an element of the array (1, 2 or 4): its runs are bytes that repeat
        those of the element before.
    more : bool
        Whether the stream goes on behind the array: then no block is marked as the last, and the
        stream ends at a byte.
    depth : int
        How many earlier entries are tried for matches at each.
    thorough : bool
        Whether matches are looked for in any column; else only where they promise to pay.
    powers : uint32
        `crc.powers`.
    workspace : int64, (WORKSPACE,)
        Zeros at first.
    finder : int64, (finder.SCRATCH,), or None
        None for no matches but runs (what they need is then not even compiled); a column of a
        recurring pattern is left out, its file empty.
    files : uint8
        Filled with the files; long enough for the worst case.
    ends : int64, (n_columns,)
        Filled with where each file ends. The CRC is left 0 for the array, and where the bytes of a
        background differ.
    """
    width = width_of(backgrounds)
    bytes_of = backgrounds.view(np.uint8)
    state, tally, runs, long_runs, tokens, scratch, seen = _divided(workspace)
    n_bytes, at = content.size if stride else n_rows * width, np.int64(0)
    for place in range(offsets.size - 1):
        mine = entries[offsets[place] : offsets[place + 1]]
        pattern, lead = bytes_of[place * width : (place + 1) * width], np.int64(0)
        if not stride:
            pattern = pattern[:1] if (pattern == pattern[0]).all() else pattern
            lead = pattern.size
        distance, n_entries = stride + lead, content.size if stride else mine.size
        start, searchable, left_out = at, lead == 1, False
        search, final = thorough and searchable, False
        at, pending = _put_file_header(files, at), np.int64(0)
        begin_column(state, n_bytes)
        if finder is not None:
            begin_finder(finder, np.int64(pattern[0]))
        while not final:
            begun = state[ENTRY]
            if stride:
                n_tokens = repeating(content, stride, state, tally, runs, long_runs, tokens)
            else:
                n_tokens = column(mine, width, n_bytes, pattern, powers, state, tally, runs, long_runs, tokens)
            final = state[ENTRY] == n_entries
            last = np.int64(final and not more)
            own, fixed, n_matches = plan(tally, runs, long_runs[: state[N_LONG]], pattern, distance, lead, scratch)
            by_path = False
            if begun == 0 and searchable and not thorough:
                search = recurring(tokens[:n_tokens], seen)
                if finder is None:
                    left_out = search
                    final |= left_out
            if finder is not None:
                if begun == 0 and searchable and width > 1 and not search:
                    search = mine.size <= _FEW or pays(mine[: state[ENTRY]], width, depth, scratch, n_matches, finder)
                if search:
                    n_steps, bits = plan_matches(
                        mine[begun : state[ENTRY]], width, state[END] + state[TAIL], depth, scratch, n_matches, finder
                    )
                    by_path = bits < min(own, fixed)
                    if by_path:
                        at, pending = put_path(files, at, pending, n_steps, last, finder)
            if not (by_path or left_out):
                at, pending = put_block(
                    files, at, pending, tokens[:n_tokens], own, fixed, runs, state[TAIL], last, pattern, distance,
                    lead, scratch,
                )  # fmt: skip
            clear(tally)
            clear(runs)
        if more:
            at, pending = put_empty(files, at, pending)
        at = _put_trailer(files, at + (pending > 255), state[RESIDUE] if searchable else 0, n_bytes)
        if left_out:
            at = start
        ends[place] = at
