"""Names as numbers, to look them up by."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel

# FNV-1a, 64 bit (G. Fowler, L. C. Noll, K.-P. Vo, https://www.rfc-editor.org/rfc/rfc9923).
_START, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@kernel("(i4[::1], u1[::1], u8[::1])")
def hashes(offsets: Any, content: Any, out: Any) -> None:
    """64-bit hashes of texts.

    Parameters
    ----------
    offsets : int32 (n + 1,)
        Where each text begins.
    content : uint8
        Their bytes.
    out : uint64 (n,)
        Filled.
    """
    for text in range(out.size):
        found = _START
        for place in range(offsets[text], offsets[text + 1]):
            found = (found ^ np.uint64(content[place])) * _PRIME
        out[text] = found
