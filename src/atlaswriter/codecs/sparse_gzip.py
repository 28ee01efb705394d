"""gzip of a column that is mostly one value, written from the places where it is not.

A general compressor must search the dense bytes for runs that we know already. Measured on the
140,702 × 506 genes of a Xenium atlas (8 bit, per gene): 0.86 of zlib 6's bytes in 1/23 of its
time, where ISA-L makes 1.10 of them in 1/17.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels import deflate

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32

_scratch = threading.local()


def _words(n_words: int) -> NDArray[np.uint32]:
    """A buffer of this thread, grown as needed."""
    words: NDArray[np.uint32] | None = getattr(_scratch, "words", None)
    if words is None or words.size < n_words:
        words = _scratch.words = np.empty(n_words, "<u4")
        _scratch.small = np.empty(deflate.SCRATCH, np.int64)
    return words


def longest(n_bytes: int, n_entries: int, width: int) -> int:
    """Bytes that the file of such a column cannot exceed.

    Per entry its literals and one run (`deflate.LIMIT` bits a literal, 32 a run's matches), 13 bits for
    each further match of full length, the codes and gzip's own 18 bytes.
    """
    per_entry = width * (deflate.LIMIT / 8) * 2 + 8
    return int((n_entries + 1) * per_entry) + n_bytes // 258 * 2 + 1024


def compress(content: Any, rows: Any, background: Any) -> memoryview:
    """gzip a column; one member, no name, time 0.

    Parameters
    ----------
    content : uint8, uint16 or float32, (n,), little-endian
        The column.
    rows : uint32, int32 or int64, (m,)
        Ascending; every row that is not the background is among them.
    background : like one element of `content`
        The value of all other rows.

    Returns
    -------
    memoryview
        The file; valid until the same thread compresses the next column.
    """
    raw = content.view(np.uint8)
    pattern = np.array([background], content.dtype).view(np.uint8)
    period = 1 if (pattern == pattern[0]).all() else pattern.size
    words = _words(longest(raw.size, rows.size, pattern.size) // 4 + 1)
    size = deflate.gzip_column(raw, rows, pattern, period, words, _scratch.small)
    file = words.view(np.uint8)
    trailer = np.array([crc32(raw), raw.size & 0xFFFFFFFF], "<u4")
    file[size : size + 8] = trailer.view(np.uint8)
    return file.data[: size + 8]
