"""Frames that are on the GPU already, whoever made them: read in place, never copied.

Sources: the CUDA array interface, version 3 (numba.readthedocs.io), and the Python specification of DLPack
(dmlc.github.io/dlpack), of which the structure below is the unversioned one that every producer still gives.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from measnet.errors import UsageError
from measnet.runtime.backends.tensorrt.cuda import ALIGNMENT, DEVICE

_CUDA_MEMORY = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLPack's type codes, as NumPy's letters


@dataclass(frozen=True)
class DeviceArray:
    """Memory of the GPU, contiguous, row by row."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read_only: bool
    stream: int | None
    """The stream whose work so far must be waited for, where the array names one."""

    holder: Any
    """Keeps the memory alive."""


def read_device_array(array: Any, name: str, stream: int) -> DeviceArray:
    """Reads what ``array`` says through ``__cuda_array_interface__`` or ``__dlpack__``.

    ``stream`` is where it will be used: a DLPack producer orders its own work before it.
    Raises ``UsageError``, calling it ``name``, when it is not on the first GPU, not contiguous, or not
    aligned to 256 bytes.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        found = _from_interface(interface, array, name)
    elif hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        found = _from_dlpack(array, name, stream)
    else:
        raise UsageError(
            f"{name} is a {type(array).__name__}, which has neither __cuda_array_interface__ nor __dlpack__"
        )
    if found.pointer % ALIGNMENT:
        raise UsageError(f"{name} begins at an address that is not a multiple of 256; hand over a copy")
    return found


def stream_handle(stream: Any) -> int:
    """CUDA's own number of a stream: an integer, or what ``__cuda_stream__`` of an object says.

    Raises ``UsageError`` for anything else.
    """
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int(protocol()[1])
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    raise UsageError(
        f"{stream!r} is no CUDA stream; give its handle as an integer: stream.cuda_stream in PyTorch, "
        "stream.ptr in CuPy, stream.handle in PyCUDA"
    )


def _from_interface(interface: dict[str, Any], array: Any, name: str) -> DeviceArray:
    shape = tuple(int(side) for side in interface["shape"])
    dtype = np.dtype(interface["typestr"])
    pointer, read_only = interface["data"]
    strides = interface.get("strides")
    if strides is not None:
        _check_contiguous(shape, tuple(stride // dtype.itemsize for stride in strides), name)
    if interface.get("mask") is not None:
        raise UsageError(f"{name} has a mask; hand over a plain array")
    return DeviceArray(int(pointer), shape, dtype, bool(read_only), interface.get("stream"), array)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(array: Any, name: str, stream: int) -> DeviceArray:
    kind, device = (int(number) for number in array.__dlpack_device__())
    if kind not in _CUDA_MEMORY or device != DEVICE:
        raise UsageError(f"{name} is not on the first GPU (DLPack device {kind}, number {device})")
    capsule = array.__dlpack__(stream=stream or 1)  # 1 is DLPack's number for the default stream
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # Left unconsumed: the capsule frees what it holds when we drop it, after the frame is under way.
    tensor = _Tensor.from_address(get_pointer(capsule, b"dltensor"))
    if tensor.code not in _KINDS or tensor.lanes != 1:
        raise UsageError(f"{name} holds numbers of DLPack's type {tensor.code}, which no engine takes")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides:
        _check_contiguous(shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim)), name)
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    return DeviceArray(
        int(tensor.data or 0) + tensor.byte_offset, shape, dtype, False, None, (capsule, array)
    )


def _check_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], name: str) -> None:
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != expected:
            raise UsageError(f"{name} is not contiguous; hand over a contiguous copy")
        expected *= side
