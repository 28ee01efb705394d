"""Which kernels a project needs."""

from __future__ import annotations

from collections.abc import Iterator

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine.warmup import Wanted
from atlaswriter.kernels import labels, pixels
from atlaswriter.sources.movie import Submission


def wanted_kernels(submission: Submission, *, keep: bool) -> Iterator[Wanted]:
    """Every kernel and signature that writing a submission calls."""
    for kernel in (labels.distinct, labels.fill, labels.replace):
        yield from ((kernel, signature) for signature in kernel.signatures)
    yield sparse_gzip.wanted_by_repeats()
    if not keep:
        # Tables are made with float64, whatever the pixels are.
        kinds = {"f8", submission.images.stack.dtype.str[1:]}
        yield from ((pixels.spread, text) for text in pixels.spread.signatures if text[1:3] in kinds)
        yield from ((pixels.look_up, text) for text in pixels.look_up.signatures)
