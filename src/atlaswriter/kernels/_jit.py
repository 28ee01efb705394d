"""The one place that says how kernels are compiled.

A kernel is serial, releases the GIL, is cached on disk where a cache folder can be written, and is
compiled only for the types it is called with, which must be among those it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from threading import Event
from typing import Any

import numpy as np
from numba import njit, typeof
from numpy.typing import NDArray

# What numba lets through when its cache is damaged, full or gone; kernels themselves raise nothing.
_CACHE_FAILURES = (OSError, EOFError, UnpicklingError, AttributeError, ImportError, IndexError, KeyError, ValueError)


# Decorates what only kernels call: compiled into them, without an entry from Python.
part: Any = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]

_MODULES = (
    "bins", "crc", "csr", "draw", "edges", "groups", "gzip", "labels", "names", "pixels", "quantize", "rings",
    "shuffle", "wkb",
)  # fmt: skip


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
        self._dispatcher = self._cached()
        Kernel.registry.append(self)

    def _cached(self) -> Any:
        try:
            return njit(nogil=True, error_model="numpy", cache=True)(self.function)
        except RuntimeError:  # no cache folder can be written: compile anew in every process
            return self._uncached()

    def _uncached(self) -> Any:
        return njit(nogil=True, error_model="numpy")(self.function)

    def __call__(self, *args: Any) -> Any:
        try:
            return self._dispatcher(*args)
        except _CACHE_FAILURES:
            # Compile only: kernels add to their arguments in place and must run once.
            types = tuple(typeof(argument) for argument in args)  # type: ignore[no-untyped-call]
            self._mend_cache(lambda: self._dispatcher.compile(types))
            return self._dispatcher(*args)

    def compile(self, signature: str) -> bool:
        """Make one signature ready; True when it was compiled rather than loaded from the cache."""
        if signature not in self.signatures:
            raise ValueError(f"{self.name} has no signature {signature}")
        before = self._n_compiled()
        try:
            self._dispatcher.compile(signature)
        except _CACHE_FAILURES:
            self._mend_cache(lambda: self._dispatcher.compile(signature))
            return True
        return self._n_compiled() > before

    @property
    def is_ready(self) -> bool:
        """Whether it can be called for some types."""
        return bool(self._dispatcher.signatures)

    def _n_compiled(self) -> int:
        return int(len(self._dispatcher.signatures) - sum(self._dispatcher.stats.cache_hits.values()))

    def _mend_cache(self, attempt: Callable[[], Any]) -> None:
        """Throw away a cache that cannot be read; where it cannot be written either, do without."""
        for file in Path(self.cache_path).glob(f"*.{self.function.__name__}-*.nb[ic]"):
            with suppress(OSError):
                file.unlink()
        self._dispatcher = self._cached()
        try:
            attempt()
        except _CACHE_FAILURES:
            self._dispatcher = self._uncached()
            attempt()

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


def warm(
    wanted: Iterable[tuple[Kernel, str]],
    on_first_compile: Callable[[], None] = lambda: None,
    stop: Event | None = None,
) -> int:
    """Make kernels ready, and return how many had to be compiled.

    `on_first_compile` is called once, before the second one is compiled, when the cache was cold;
    `stop` is looked at between kernels.
    """
    compiled = 0
    for one, signature in wanted:
        if stop is not None and stop.is_set():
            break
        if one.compile(signature):
            compiled += 1
            if compiled == 1:
                on_first_compile()
    return compiled


def _load_all() -> list[Kernel]:
    from importlib import import_module

    for name in _MODULES:
        import_module(f"atlaswriter.kernels.{name}")  # which registers its kernels
    return Kernel.registry


def any_ready() -> bool:
    """Whether any kernel was called, or made ready, in this process."""
    return any(one.is_ready for one in Kernel.registry)


def warm_all() -> int:
    """Make every kernel ready for every type it takes; return how many had to be compiled."""
    return warm((one, signature) for one in _load_all() for signature in one.signatures)


def cache_folder() -> str | None:
    """Folder of compiled kernels, None where none can be written."""
    folders = {one.cache_path for one in _load_all()}
    return next((folder for folder in sorted(folders) if folder), None)
