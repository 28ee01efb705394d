"""Prefix codes as DEFLATE describes them (RFC 1951, 3.2.2 and 3.2.7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import part
from atlaswriter.kernels.bits import peek, poke, put

_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
N_TOKENS, _LONGEST_TOKEN = 19, 7
# Literals and the end of a block, whose lengths every header holds.
N_ALWAYS = 257


@part
def clear(values: Any) -> Any:
    """The same array, all zero."""
    for place in range(values.size):
        values[place] = 0
    return values


@part
def _rarest_first(counts: Any, keys: Any, scratch: Any) -> Any:
    """Fill ``keys`` with ``count << 9 | symbol`` of the symbols that occur, ascending; how many there are.

    A radix sort: comparisons are hard to predict; with a Shell sort here the codes of a gene took 10.7 us, so 6.9.
    """
    used, largest = 0, np.int64(0)
    for symbol in range(counts.size):
        if counts[symbol] > 0:
            keys[used] = counts[symbol] << 9 | symbol
            largest = max(largest, counts[symbol])
            used += 1
    shift = 9
    while largest:
        clear(scratch[:65])
        for place in range(used):
            digit = ((peek(keys, place) >> shift) & 63) + 1
            poke(scratch, digit, peek(scratch, digit) + 1)
        for digit in range(63):
            poke(scratch, digit + 1, peek(scratch, digit + 1) + peek(scratch, digit))
        for place in range(used):
            key = peek(keys, place)
            digit = (key >> shift) & 63
            start = peek(scratch, digit)
            poke(scratch, 65 + start, key)
            poke(scratch, digit, start + 1)
        for place in range(used):
            poke(keys, place, peek(scratch, 65 + place))
        shift += 6
        largest >>= 6
    return used


@part
def _depths(keys: Any, used: int, weight: Any) -> None:
    """Depths of the optimal code into ``weight``, for symbols sorted by count.

    In place and linear: A. Moffat, J. Katajainen, "In-place calculation of minimum-redundancy
    codes", 1995.
    """
    for place in range(used):
        weight[place] = keys[place] >> 9
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


@part
def code_lengths(counts: Any, limit: int, lengths: Any, scratch: Any) -> None:
    """Lengths of a prefix code for the symbols that occur, none above ``limit``.

    The optimal code, made to fit: lengths above the limit are cut to it, and shorter codes grow
    until Kraft's sum is 1 again. ``scratch`` is int64, twice as long as ``counts`` and 80 more.
    """
    clear(lengths)
    keys = scratch[: counts.size]
    used = _rarest_first(counts, keys, scratch[counts.size :])
    if used <= 1:
        for place in range(used):
            lengths[keys[place] & 511] = 1
        return
    depth = scratch[counts.size : counts.size + used]
    _depths(keys, used, depth)
    per_length = clear(scratch[2 * counts.size : 2 * counts.size + limit + 1])
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
            lengths[keys[place] & 511] = length
            place += 1


@part
def canonical_codes(lengths: Any, codes: Any, scratch: Any) -> None:
    """``length << 48 | code`` of each symbol, code bits reversed as DEFLATE writes them; 0 for those without."""
    next_code = clear(scratch[:17])
    per_length = clear(scratch[17:34])
    for symbol in range(lengths.size):
        per_length[lengths[symbol]] += 1
    per_length[0] = 0
    for length in range(1, 16):
        next_code[length + 1] = (next_code[length] + per_length[length]) << 1
    for symbol in range(lengths.size):
        length = lengths[symbol]
        codes[symbol] = 0
        if length:
            code = next_code[length]
            next_code[length] += 1
            code = (code & 0x5555) << 1 | (code >> 1) & 0x5555
            code = (code & 0x3333) << 2 | (code >> 2) & 0x3333
            code = (code & 0x0F0F) << 4 | (code >> 4) & 0x0F0F
            code = (code & 0x00FF) << 8 | code >> 8
            codes[symbol] = length << 48 | code >> (16 - length)


@part
def pack_lengths(lengths: Any, tokens: Any) -> Any:
    """Run-length form of code lengths, ``extra << 5 | token`` each; number of tokens."""
    n_tokens, place = 0, 0
    while place < lengths.size:
        length = lengths[place]
        end = place + 1
        while end < lengths.size and lengths[end] == length:
            end += 1
        run = end - place
        place = end
        if length:
            tokens[n_tokens] = length
            n_tokens += 1
            run -= 1
        while run >= 3:
            if length:
                taken = min(run, 6)
                tokens[n_tokens] = (taken - 3) << 5 | 16
            elif run <= 10:
                taken = run
                tokens[n_tokens] = (taken - 3) << 5 | 17
            else:
                taken = min(run, 138)
                tokens[n_tokens] = (taken - 11) << 5 | 18
            n_tokens += 1
            run -= taken
        for _ in range(run):
            tokens[n_tokens] = length
            n_tokens += 1
    return n_tokens


@part
def _extra_bits(token: int) -> Any:
    return 2 if token == 16 else 3 if token == 17 else 7 if token == 18 else 0


@part
def plan_header(tokens: Any, n_tokens: int, token_lengths: Any, scratch: Any) -> Any:
    """Code lengths of the tokens, and how many bits `put_header` will write."""
    counts = clear(scratch[:N_TOKENS])
    for place in range(n_tokens):
        counts[tokens[place] & 31] += 1
    code_lengths(counts, np.int64(_LONGEST_TOKEN), token_lengths, scratch[N_TOKENS:])
    size = 14 + 3 * _n_stored(token_lengths)
    for token in range(N_TOKENS):
        size += counts[token] * (token_lengths[token] + _extra_bits(token))
    return size


@part
def n_coded(lengths: Any, least: int) -> Any:
    """How many lengths a header holds: all up to the last that is not 0, and ``least`` at least."""
    n_symbols = lengths.size
    while n_symbols > least and lengths[n_symbols - 1] == 0:
        n_symbols -= 1
    return n_symbols


@part
def coded_bits(counts: Any, lengths: Any) -> Any:
    """Bits that the codes of all symbols take."""
    total = 0
    for symbol in range(counts.size):
        total += counts[symbol] * lengths[symbol]
    return total


@part
def plan_codes(lengths: Any, distance_lengths: Any, tokens: Any, token_lengths: Any, scratch: Any) -> Any:
    """Run-length form of both codes of a dynamic block, for `put_header`: number of tokens, and bits of all."""
    n_literals, n_distances = n_coded(lengths, N_ALWAYS), n_coded(distance_lengths, 1)
    both = scratch[: n_literals + n_distances]
    for symbol in range(n_literals):
        both[symbol] = lengths[symbol]
    for symbol in range(n_distances):
        both[n_literals + symbol] = distance_lengths[symbol]
    n_tokens = pack_lengths(both, tokens)
    return n_tokens, plan_header(tokens, n_tokens, token_lengths, scratch)


@part
def _n_stored(token_lengths: Any) -> Any:
    n_stored = N_TOKENS
    while n_stored > 4 and token_lengths[_ORDER[n_stored - 1]] == 0:
        n_stored -= 1
    return n_stored


@part
def put_header(
    out: Any, at: int, held: int, n_held: int, lengths: Any, distance_lengths: Any, tokens: Any, token_lengths: Any,
    scratch: Any,
) -> Any:  # fmt: skip
    """Both codes of a dynamic block."""
    codes = scratch[:N_TOKENS]
    canonical_codes(token_lengths, codes, scratch[N_TOKENS:])
    n_stored = _n_stored(token_lengths)
    head = n_coded(lengths, N_ALWAYS) - N_ALWAYS | (n_coded(distance_lengths, 1) - 1) << 5 | (n_stored - 4) << 10
    at, held, n_held = put(out, at, held, n_held, head, 14)
    for place in range(n_stored):
        at, held, n_held = put(out, at, held, n_held, token_lengths[_ORDER[place]], 3)
    for place in range(tokens.size):
        token, extra = tokens[place] & 31, tokens[place] >> 5
        bits = codes[token] & 0xFFFF | extra << token_lengths[token]
        at, held, n_held = put(out, at, held, n_held, bits, token_lengths[token] + _extra_bits(token))
    return at, held, n_held
