"""Label images: which values there are, and other values in their place.

Values are looked up in open-addressing hash tables: int32, a power of two of slots, 0 where nothing is. The seed
keeps a file from being made so that its values share slots; no result depends on it. Pixels of a label come in runs,
and only the first of a run is looked up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part


@part
def _slot(slots: Any, value: Any, seed: Any) -> Any:
    """Where a value is, or the free slot that it belongs in."""
    mask = np.uint64(slots.size - 1)
    x = np.uint64(np.uint32(value)) ^ seed
    # The last steps of splitmix64.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    place = (x ^ (x >> np.uint64(31))) & mask
    while slots[place] != 0 and slots[place] != value:
        place = (place + np.uint64(1)) & mask
    return place


@kernel("(i4[::1], i4[::1], u8, i8)")
def distinct(block: Any, slots: Any, seed: Any, n: int) -> int:
    """Add the values of a block to a hash table, all but 0.

    Parameters
    ----------
    block : int32
        Pixels.
    slots : int32, a power of two
        The table; is changed.
    seed : uint64
        Of the table.
    n
        Values in the table.

    Returns
    -------
    int
        Values now in the table; -1 when it must grow first, which leaves some of the block's values in it.
    """
    most = slots.size // 2
    previous = np.int32(0)
    for pixel in range(block.size):
        value = block[pixel]
        if value == previous or value == 0:
            continue
        previous = value
        place = _slot(slots, value, seed)
        if slots[place] == 0:
            if n >= most:
                return -1
            slots[place] = value
            n += 1
    return n


@kernel("(i4[::1], i4[::1], i4[::1], i4[::1], u8)")
def fill(keys: Any, new: Any, slots: Any, places: Any, seed: Any) -> None:
    """Make a hash table of distinct keys, none 0; ``places`` gets the new value of the key in each slot."""
    for number in range(keys.size):
        place = _slot(slots, keys[number], seed)
        slots[place] = keys[number]
        places[place] = new[number]


@kernel("(i4[::1], i4[::1], i4[::1], u8, i4[::1])")
def replace(block: Any, slots: Any, places: Any, seed: Any, out: Any) -> int:
    """Write the new value of every pixel, and 0 where its value is not in the table.

    Parameters
    ----------
    block : int32
        Pixels.
    slots, places, seed
        As of `fill`.
    out : int32
        As long as the block; may be the block.

    Returns
    -------
    int
        Pixels whose value is not in the table, 0 not counted.
    """
    n_removed = 0
    previous, found, removes = np.int32(0), np.int32(0), 0
    for pixel in range(block.size):
        value = block[pixel]
        if value != previous:
            previous, found, removes = value, np.int32(0), 0
            if value != 0:
                place = _slot(slots, value, seed)
                if slots[place] == 0:
                    removes = 1
                else:
                    found = places[place]
        out[pixel] = found
        n_removed += removes
    return n_removed
