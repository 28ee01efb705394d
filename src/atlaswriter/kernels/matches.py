"""The cheapest way to say a column with matches: a shortest path over its entries.

Nodes are the places before the run in front of an entry and before the entry itself. Edges are the
run, the entry's bytes as literals, and matches with earlier places where the same bytes stand: such a
match may take in the run before the entry, the run behind it, and further entries for as long as they
agree. Costs are those of an earlier parse, first of one without matches. A match that ends inside a
run costs little: the rest repeats the byte before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels import finder
from atlaswriter.kernels._jit import part
from atlaswriter.kernels.bits import peek, poke, put
from atlaswriter.kernels.deflate import (
    CODE,
    END_OF_BLOCK,
    EXTRA,
    LIMIT,
    MAX_MATCH,
    N_DISTANCES,
    N_LITERALS,
    SYMBOL,
    join,
)
from atlaswriter.kernels.huffman import (
    N_TOKENS,
    canonical_codes,
    clear,
    code_lengths,
    coded_bits,
    plan_codes,
    put_header,
)


@part
def _take_in(entries: Any, width: int, end: int, scratch: Any) -> Any:
    """Note the block's entries behind those that can still be looked back at; how many of the latter."""
    n_known, start, background = scratch[finder.N_KNOWN], scratch[finder.START], scratch[finder.BACKGROUND]
    first = max(n_known - finder.HISTORY, 0)
    while first < n_known and scratch[finder.PLACES + 4 * first] < start - finder.WINDOW:
        first += 1
    for place in range(4 * first, 4 * n_known):
        scratch[finder.PLACES + place - 4 * first] = scratch[finder.PLACES + place]
    for head in range(finder.HEADS):
        scratch[finder.HEAD + head] = -1
    known = n_known - first
    for place in range(known):
        _remember(place, peek(scratch, finder.CORES + 4 * place), scratch)
    place = known
    for entry in entries:
        code, here, length = entry & 0xFFFFFFFF, (entry >> 32 & 0xFFFFFFFF) * width, width
        while length and (code & 255) == background:  # bytes that equal the background are part of the runs
            code >>= 8
            here += 1
            length -= 1
        while length and (code >> (8 * length - 8)) == background:
            length -= 1
            code &= (1 << (8 * length)) - 1
        if length:
            core = length << 32 | code
            poke(scratch, finder.PLACES + 4 * place, here)
            poke(scratch, finder.GAPS + 4 * place, here - start)
            poke(scratch, finder.CORES + 4 * place, core)
            _remember(place, core, scratch)
            start = here + length
            place += 1
    poke(scratch, finder.PLACES + 4 * place, end)
    poke(scratch, finder.GAPS + 4 * place, end - start)
    scratch[finder.N_KNOWN] = place
    return known


@part
def _remember(place: int, core: int, scratch: Any) -> None:
    head = finder.HEAD + (((core & 0xFFFFFFFF) * 2654435761 >> 16) & (finder.HEADS - 1))
    poke(scratch, finder.BEFORE + 4 * place, peek(scratch, head))
    poke(scratch, head, place)


@part
def _offer(node: int, cost: int, step: int, scratch: Any) -> None:
    # Without a branch, which would be guessed wrong half of the time: 8 ns a match instead of 12.
    known, other = peek(scratch, finder.COSTS + node), peek(scratch, finder.STEPS + node)
    cheaper = cost < known
    poke(scratch, finder.COSTS + node, cost if cheaper else known)
    poke(scratch, finder.STEPS + node, step if cheaper else other)


@part
def _offer_matches(
    mine: int, other: int, distance: int, first: int, last: int, cost_a: int, cost_b: int, scratch: Any
) -> Any:
    """Follow one earlier entry for as long as it agrees, and offer each place on the way; where that ends."""
    # With the run in front, if the other one's is as long: that is as good as free.
    gap = peek(scratch, finder.GAPS + 4 * mine)
    whole = gap <= peek(scratch, finder.GAPS + 4 * other)
    origin, cost, length = 2 * mine + (0 if whole else 1), cost_a if whole else cost_b, gap if whole else 0
    cost += peek(scratch, finder.DISTANCE_COSTS + finder.distance_symbol(distance))
    core = peek(scratch, finder.CORES + 4 * mine)
    while True:
        length += core >> 32
        if length > MAX_MATCH:
            return mine
        mine += 1
        other += 1
        node, step = 2 * (mine - first), distance << 24 | length << 12 | (2 * mine - origin)
        _offer(node, cost + peek(scratch, finder.LENGTH_COSTS + length), step, scratch)
        gap, other_gap = peek(scratch, finder.GAPS + 4 * mine), peek(scratch, finder.GAPS + 4 * other)
        taken = min(gap, other_gap, MAX_MATCH - length)
        total = cost + peek(scratch, finder.LENGTH_COSTS + length + taken) + finder.rest_cost(gap - taken, scratch)
        _offer(node + 1, total if taken else finder.NEVER, step + (taken << 12) + 1, scratch)
        if gap != other_gap or mine >= last:
            return mine
        core = peek(scratch, finder.CORES + 4 * mine)
        if core != peek(scratch, finder.CORES + 4 * other):
            return mine
        length += gap


@part
def _find_path(first: int, last: int, depth: int, scratch: Any) -> None:
    """Cheapest steps to every node of a stretch of entries."""
    for node in range(2 * (last - first) + 2):
        poke(scratch, finder.COSTS + node, finder.NEVER)
    scratch[finder.COSTS] = 0
    literal = scratch[finder.LITERAL_COSTS + scratch[finder.BACKGROUND]]
    covered = first
    for place in range(first, last):
        node, here, core = (
            2 * (place - first),
            peek(scratch, finder.PLACES + 4 * place),
            peek(scratch, finder.CORES + 4 * place),
        )
        cost_a = peek(scratch, finder.COSTS + node)
        _offer(node + 1, cost_a + finder.run_cost(peek(scratch, finder.GAPS + 4 * place), literal, scratch), 1, scratch)
        cost_b = peek(scratch, finder.COSTS + node + 1)
        _offer(node + 2, cost_b + finder.literal_cost(core, scratch), 1, scratch)
        other = peek(scratch, finder.BEFORE + 4 * place)
        for _ in range(depth if place >= covered else 0):
            if other < 0:
                break
            distance = here - peek(scratch, finder.PLACES + 4 * other)
            if distance > finder.WINDOW:
                break
            if peek(scratch, finder.CORES + 4 * other) == core:
                end = _offer_matches(place, other, distance, first, last, cost_a, cost_b, scratch)
                if end - place > finder.LONG:  # nothing better is to be expected from others, nor further on
                    covered = end
                    break
            other = peek(scratch, finder.BEFORE + 4 * other)
    node = 2 * (last - first)
    _offer(
        node + 1,
        scratch[finder.COSTS + node] + finder.run_cost(scratch[finder.GAPS + 4 * last], literal, scratch),
        1,
        scratch,
    )


@part
def _write_path(first: int, last: int, tail: int, n_steps: int, scratch: Any) -> Any:
    """Append the steps of the cheapest path through a stretch, and the run behind it if ``tail``; how many now."""
    node, height = 2 * (last - first) + tail, 0
    while node > 0:
        step = peek(scratch, finder.STEPS + node)
        length, distance, origin = (step >> 12) & 0xFFF, step >> 24, node - (step & 0xFFF)
        place = first + node // 2
        if distance:
            if node & 1:  # a match may leave something of the run in front of an entry
                begun = first + origin // 2
                start = peek(scratch, finder.PLACES + 4 * begun)
                if origin & 1 == 0:
                    start -= peek(scratch, finder.GAPS + 4 * begun)
                rest = peek(scratch, finder.PLACES + 4 * place) - start - length
                if rest:
                    poke(scratch, finder.STACK + height, finder.REST | rest)
                    height += 1
            poke(scratch, finder.STACK + height, finder.MATCH | distance << 12 | length)
            height += 1
        elif node & 1:
            run = peek(scratch, finder.GAPS + 4 * place)
            if run:
                poke(scratch, finder.STACK + height, finder.RUN | run)
                height += 1
        else:
            poke(scratch, finder.STACK + height, peek(scratch, finder.CORES + 4 * (place - 1)))
            height += 1
        node = origin
    for place in range(height - 1, -1, -1):
        poke(scratch, finder.PATH + n_steps, peek(scratch, finder.STACK + place))
        n_steps += 1
    return n_steps


@part
def _count_path(begin: int, end: int, scratch: Any) -> Any:
    """Add the symbols of some steps to the counts; their extra bits."""
    extra, background = 0, scratch[finder.BACKGROUND]
    for place in range(begin, end):
        step = peek(scratch, finder.PATH + place)
        kind, operand = step & finder.KIND, step & finder.OPERAND
        if kind == 0:
            for _ in range(operand >> 32):
                byte = operand & 255
                poke(scratch, finder.COUNTS + byte, peek(scratch, finder.COUNTS + byte) + 1)
                operand >>= 8
        elif kind == finder.MATCH:
            length, symbol = operand & 0xFFF, finder.distance_symbol(operand >> 12)
            scratch[finder.COUNTS + SYMBOL[length]] += 1
            scratch[finder.DISTANCE_COUNTS + symbol] += 1
            extra += (EXTRA[length] >> 48) + finder.distance_bits(symbol)
        else:
            n_bytes = operand
            if kind == finder.RUN:
                scratch[finder.COUNTS + background] += 1
                n_bytes -= 1
            full = (n_bytes - 1) // MAX_MATCH if n_bytes else 0
            rest = n_bytes - full * MAX_MATCH
            scratch[finder.COUNTS + SYMBOL[MAX_MATCH]] += full
            scratch[finder.DISTANCE_COUNTS] += full
            if rest < 3:
                scratch[finder.COUNTS + background] += rest
            else:
                scratch[finder.COUNTS + SYMBOL[rest]] += 1
                scratch[finder.DISTANCE_COUNTS] += 1
                extra += EXTRA[rest] >> 48
    return extra


@part
def _parse(known: int, depth: int, scratch: Any) -> Any:
    """Steps of the whole block and their extra bits; their symbols are counted."""
    first, n_steps, extra, again = known, np.int64(0), np.int64(0), True
    counts = scratch[finder.COUNTS : finder.COUNTS + N_LITERALS + N_DISTANCES]
    clear(counts)
    refill = 1
    while True:
        last = min(first + finder.STRETCH, scratch[finder.N_KNOWN])
        tail = np.int64(last == scratch[finder.N_KNOWN])
        _find_path(first, last, depth, scratch)
        end = _write_path(first, last, tail, n_steps, scratch)
        more = _count_path(n_steps, end, scratch)
        if again:  # the first stretch once more, by its own costs
            finder.fill_costs(scratch)
            clear(counts)
            again = False
            continue
        n_steps, extra, first = end, extra + more, last
        if tail:
            break
        if (last - known) // finder.STRETCH == refill:
            finder.fill_costs(scratch)
            refill *= 2
    scratch[finder.COUNTS + END_OF_BLOCK] = 1
    return n_steps, extra


@part
def _guess(counts: Any, n_matches: int, scratch: Any) -> None:
    """Costs as if every other distance occurred once for 40 matches that repeat the byte before."""
    for symbol in range(N_LITERALS):
        scratch[finder.COUNTS + symbol] = counts[symbol]
    for symbol in range(N_DISTANCES):
        scratch[finder.DISTANCE_COUNTS + symbol] = n_matches // 40 + 1
    scratch[finder.DISTANCE_COUNTS] = n_matches
    finder.fill_costs(scratch)


@part
def _fitted_cost(first: int, last: int, depth: int, scratch: Any) -> Any:
    """Cost of a stretch by its own costs."""
    _find_path(first, last, depth, scratch)
    clear(scratch[finder.COUNTS : finder.COUNTS + N_LITERALS + N_DISTANCES])
    _count_path(np.int64(0), _write_path(first, last, np.int64(0), np.int64(0), scratch), scratch)
    finder.fill_costs(scratch)
    _find_path(first, last, depth, scratch)
    return scratch[finder.COSTS + 2 * (last - first)]


@part
def pays(entries: Any, width: int, depth: int, counts: Any, n_matches: int, scratch: Any) -> Any:
    """Whether matches would save 1/500 of some entries in the middle of a column's first block."""
    background, first = scratch[finder.BACKGROUND], max(min(entries.size - finder.PROBE, finder.BEFORE_PROBE), 0)
    _guess(counts, n_matches, scratch)
    last_entry = min(first + finder.PROBE, entries.size)
    _take_in(entries[:last_entry], width, np.int64(0), scratch)
    last = scratch[finder.N_KNOWN]
    scratch[finder.GAPS + 4 * last] = 0
    first = min(first, last)
    without = _fitted_cost(first, last, np.int64(0), scratch)
    _guess(counts, n_matches, scratch)
    found = _fitted_cost(first, last, depth, scratch)
    finder.begin_finder(scratch, background)
    return found * 500 < without * 499


@part
def plan(entries: Any, width: int, end: int, depth: int, counts: Any, n_matches: int, scratch: Any) -> Any:
    """Find the cheapest way to say a block, and what it costs.

    Parameters
    ----------
    entries : int64
        Those of the block.
    width : int
        Bytes of a code.
    end : int
        Where the block ends: behind its last entry, or behind the column.
    depth : int
        How many earlier entries are tried for each.
    counts : int64, (N_LITERALS,)
        Symbols of a parse without matches but those of runs.
    n_matches : int
        Number of these.
    scratch : int64, (SCRATCH,)

    Returns
    -------
    n_steps, bits : int
        For `put_path`: the length of the path, and its bits with the codes.
    """
    known = _take_in(entries, width, end, scratch)
    _guess(counts, n_matches, scratch)
    n_steps, bits = _parse(known, depth, scratch)
    scratch[finder.START] = end
    counts = scratch[finder.COUNTS : finder.COUNTS + N_LITERALS]
    distances = scratch[finder.DISTANCE_COUNTS : finder.DISTANCE_COUNTS + N_DISTANCES]
    lengths = scratch[finder.LENGTHS : finder.LENGTHS + N_LITERALS]
    distance_lengths = scratch[finder.DISTANCE_LENGTHS : finder.DISTANCE_LENGTHS + N_DISTANCES]
    rest = scratch[finder.WORK :]
    code_lengths(counts, np.int64(LIMIT), lengths, rest)
    code_lengths(distances, np.int64(LIMIT), distance_lengths, rest)
    bits += coded_bits(counts, lengths) + coded_bits(distances, distance_lengths)
    if distances.sum() == 0:
        distance_lengths[0] = 1  # there must be one
    packed = scratch[finder.PACKED : finder.PACKED + 320]
    token_lengths = scratch[finder.TOKEN_LENGTHS : finder.TOKEN_LENGTHS + N_TOKENS]
    scratch[finder.N_PACKED], header = plan_codes(lengths, distance_lengths, packed, token_lengths, rest)
    return n_steps, bits + 3 + header


@part
def put_path(out: Any, at: int, pending: int, n_steps: int, last: int, scratch: Any) -> Any:
    """The block as planned; arguments as of `deflate.put_block`."""
    lengths = scratch[finder.LENGTHS : finder.LENGTHS + N_LITERALS]
    distance_lengths = scratch[finder.DISTANCE_LENGTHS : finder.DISTANCE_LENGTHS + N_DISTANCES]
    codes = scratch[finder.CODES : finder.CODES + N_LITERALS]
    distance_codes = scratch[finder.DISTANCE_CODES : finder.DISTANCE_CODES + N_DISTANCES]
    rest, background = scratch[finder.WORK :], scratch[finder.BACKGROUND]
    held, n_held = pending & 255, pending >> 8
    at, held, n_held = put(out, at, held, n_held, last | 2 << 1, 3)
    packed = scratch[finder.PACKED : finder.PACKED + scratch[finder.N_PACKED]]
    token_lengths = scratch[finder.TOKEN_LENGTHS : finder.TOKEN_LENGTHS + N_TOKENS]
    at, held, n_held = put_header(out, at, held, n_held, lengths, distance_lengths, packed, token_lengths, rest)
    canonical_codes(lengths, codes, rest)
    canonical_codes(distance_lengths, distance_codes, rest)
    zero, full = codes[background], join(codes[SYMBOL[MAX_MATCH]], distance_codes[0])
    rest_codes = scratch[finder.REST_COSTS : finder.REST_COSTS + 260]
    rest_codes[0], rest_codes[1], rest_codes[2] = 0, zero, join(zero, zero)
    for length in range(3, MAX_MATCH + 1):
        rest_codes[length] = join(join(codes[SYMBOL[length]], EXTRA[length]), distance_codes[0])
        scratch[finder.LENGTH_COSTS + length] = join(codes[SYMBOL[length]], EXTRA[length])
    for place in range(n_steps):
        step = peek(scratch, finder.PATH + place)
        kind, operand = step & finder.KIND, step & finder.OPERAND
        if kind == 0:
            for _ in range(operand >> 32):
                code = peek(codes, operand & 255)
                at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
                operand >>= 8
        elif kind == finder.MATCH:
            distance = operand >> 12
            symbol = finder.distance_symbol(distance)
            bits = finder.distance_bits(symbol)
            code = join(peek(distance_codes, symbol), bits << 48 | (distance - 1) & ((1 << bits) - 1))
            code = join(peek(scratch, finder.LENGTH_COSTS + (operand & 0xFFF)), code)
            at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
        else:
            # Behind something else the run is one literal and then as behind itself.
            n_bytes, code = operand, np.int64(0)
            if kind == finder.RUN:
                n_bytes, code = operand - 1, zero
            while n_bytes > MAX_MATCH:
                code = join(code, full)
                at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
                n_bytes, code = n_bytes - MAX_MATCH, np.int64(0)
            code = join(code, peek(rest_codes, n_bytes))
            at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
    code = codes[END_OF_BLOCK]
    at, held, n_held = put(out, at, held, n_held, code & CODE, code >> 48)
    return at, n_held << 8 | held
