"""Bytes of array elements, and bits into bytes, eight bytes a store."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from atlaswriter.kernels._jit import part

_intrinsic: Any = intrinsic
cgutils: Any = _cgutils


@_intrinsic
def width_of(typing_context: Any, array: Any) -> Any:
    """Bytes of one element; known when a kernel is compiled, so that loops over them unroll."""
    del typing_context
    width = array.dtype.bitwidth // 8
    return types.int64(array), lambda context, *_: context.get_constant(types.int64, width)


@_intrinsic
def store(typing_context: Any, buffer: Any, position: Any, word: Any) -> Any:
    """Store the eight bytes of an int64 at any byte of a uint8 array; its bounds are not looked at."""
    del typing_context, position, word

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.int64), generate


@_intrinsic
def peek(typing_context: Any, array: Any, index: Any) -> Any:
    """``array[index]`` of an index that is never negative, which subscripting would look at each time."""
    del typing_context, index

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        struct = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(struct.data, [arguments[1]]))

    return array.dtype(array, types.int64), generate


@_intrinsic
def poke(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index] = value`` of an index that is never negative."""
    del typing_context, index, value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        struct = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        builder.store(arguments[2], builder.gep(struct.data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@part
def put(out: Any, at: int, held: int, n_held: int, bits: int, count: int) -> Any:
    """Append up to 56 bits to ``out``; ``held`` are the ``n_held`` < 8 bits that do not fill a byte yet.

    No branch: eight bytes are stored each time, and those that are full stay. int64 throughout, whose
    sign is never reached: 7 + 56 bits. Measured: 1.1 ns a code.
    """
    held |= bits << n_held
    n_held += count
    store(out, at, held)
    return at + (n_held >> 3), held >> (n_held & ~7), n_held & 7
