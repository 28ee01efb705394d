"""The one place that says how kernels are compiled.

A kernel is serial, releases the GIL, is cached on disk where a cache folder can be written, and is
compiled only for the types it is called with, which must be among those it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Kernel:
    """A function that numba compiles on first use.

    Parameters
    ----------
    function
        Plain Python that numba understands.
    signatures
        Every argument list it may be called with, in numba's notation: ``"(f4[::1], i8)"``.
    """

    registry: list[Kernel] = []  # noqa: RUF012 - shared on purpose: `atlaswriter info --warm` compiles them all

    def __init__(self, function: Callable[..., Any], signatures: tuple[str, ...]) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.signatures = signatures
        self.__doc__ = function.__doc__
        try:
            self._dispatcher = njit(nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:  # no cache folder can be written: compile anew in every process
            self._dispatcher = njit(nogil=True, error_model="numpy")(function)
        Kernel.registry.append(self)

    def __call__(self, *args: Any) -> Any:
        return self._dispatcher(*args)

    def compile(self, signature: str) -> bool:
        """Make one signature ready; True when it was compiled rather than loaded from the cache."""
        if signature not in self.signatures:
            raise ValueError(f"{self.name} has no signature {signature}")
        hits = sum(self._dispatcher.stats.cache_hits.values())
        known = len(self._dispatcher.signatures)
        try:
            self._dispatcher.compile(signature)
        except OSError:  # the cache folder is full or went away after it was chosen
            self._dispatcher = njit(nogil=True, error_model="numpy")(self.function)
            self._dispatcher.compile(signature)
        loaded = sum(self._dispatcher.stats.cache_hits.values()) > hits
        return len(self._dispatcher.signatures) > known and not loaded

    @property
    def cache_path(self) -> str:
        """Folder it is cached in; empty where it is not."""
        return str(self._dispatcher.stats.cache_path or "")

    def undeclared(self) -> list[str]:
        """Types it was compiled for without declaring them; tests keep this empty."""
        from numba.core.sigutils import normalize_signature

        declared = {normalize_signature(signature)[0] for signature in self.signatures}  # type: ignore[no-untyped-call]
        return [str(args) for args in self._dispatcher.signatures if args not in declared]


class _Unlocked:
    """Memory of an array, offered as writable."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose type kernels know, for one they only read.

    numba takes a read-only array (a memory map, say) for another type, and would compile every
    kernel once more for it. This is the same memory without that mark.
    """
    return array if array.flags.writeable else np.asarray(_Unlocked(array))


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a kernel with its signatures."""
    return lambda function: Kernel(function, signatures)


def warm(wanted: Iterable[tuple[Kernel, str]], on_first_compile: Callable[[], None] = lambda: None) -> int:
    """Make kernels ready, and return how many had to be compiled.

    `on_first_compile` is called once, before the second one is compiled, when the cache was cold.
    """
    compiled = 0
    for one, signature in wanted:
        if one.compile(signature):
            compiled += 1
            if compiled == 1:
                on_first_compile()
    return compiled


def _load_all() -> list[Kernel]:
    from atlaswriter.kernels import csr, deflate, edges, groups, quantize

    del csr, deflate, edges, groups, quantize  # importing them registers their kernels
    return Kernel.registry


def warm_all() -> int:
    """Make every kernel ready for every type it takes; return how many had to be compiled."""
    return warm((one, signature) for one in _load_all() for signature in one.signatures)


def cache_folder() -> str | None:
    """Folder of compiled kernels, None where none can be written."""
    folders = {one.cache_path for one in _load_all()}
    return next((folder for folder in sorted(folders) if folder), None)
