"""The target of an engine: the GPU that CUDA shows, or cards that are named."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from measnet import gpu as gpu_module
from measnet.errors import MissingPackageError, UsageError
from measnet.export.target import RTX_CARDS, find_targets

find_here = partial(find_targets, version_of=lambda flavour: "11.4.0")


def runtime(count: int, error: int = 0, raises: bool = False) -> SimpleNamespace:
    """cuda-python's runtime as far as it is asked: every call returns its status first."""

    def device_count() -> tuple[int, int]:
        if raises:
            raise RuntimeError("libcudart is not there")
        return error, count

    properties = SimpleNamespace(name=b"NVIDIA L4\0\0", major=8, minor=9)
    return SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=0),
        cudaGetDeviceCount=device_count,
        cudaGetDeviceProperties=lambda device: (0, properties),
        cudaDriverGetVersion=lambda: (0, 13020),
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(found: SimpleNamespace | None) -> None:
        package: Any = None if found is None else ModuleType("cuda.bindings")
        if found is not None:
            package.runtime = found
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", package)

    return install


def test_this_gpu_is_what_cuda_shows_first(cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Sat Aug 30")
    monkeypatch.setattr(gpu_module, "KERNEL_MODULE", tmp_path / "version")
    cuda(runtime(1))
    (target,) = find_here(("tensorrt",), ())
    assert (target.gpu, target.compute_capability) == ("NVIDIA L4", "8.9")
    assert (target.driver, target.cuda) == ("580.82.07", "13.2")
    assert target.label == "trt-sm89" and not target.ahead_of_time


@pytest.mark.parametrize("found", [runtime(0), runtime(1, error=35), runtime(1, raises=True)])
def test_without_a_gpu_tensorrt_says_where_to_build(cuda: Any, found: SimpleNamespace) -> None:
    cuda(found)
    with pytest.raises(UsageError, match="run the same command on the target machine"):
        find_here(("tensorrt",), ())
    with pytest.raises(UsageError, match="name the card to build for: --gpu sm75"):
        find_here(("tensorrt-rtx",), ())


def test_without_cuda_python_its_extra_is_named(cuda: Any) -> None:
    cuda(None)
    with pytest.raises(MissingPackageError, match=r"measnet\[tensorrt\]"):
        find_here(("tensorrt",), ())
    with pytest.raises(UsageError, match="name the card to build for"):
        find_here(("tensorrt-rtx",), ())


def test_cards_become_compute_capabilities(cuda: Any) -> None:
    cuda(None)
    targets = find_here(("tensorrt-rtx",), tuple(RTX_CARDS))
    assert [t.compute_capability for t in targets] == ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
    assert all(target.ahead_of_time for target in targets)
    assert targets[4].label == "rtx-sm120"


def test_cards_that_are_joined_share_one_engine(cuda: Any) -> None:
    cuda(None)
    pair, rtx, lone, twice = find_here(("tensorrt-rtx",), ("SM120+sm89", "rtx", "sm89", "sm86+sm86+sm120"))
    assert (pair.compute_capability, pair.label) == ("8.9 12.0", "rtx-sm89-sm120")
    assert rtx.compute_capabilities == ("8.0", "8.6", "8.9", "12.0")
    assert (lone.compute_capability, lone.label) == ("8.9", "rtx-sm89")
    assert twice.compute_capability == "8.6 12.0" and twice.ahead_of_time
    assert find_here(("tensorrt-rtx",), ("rtx", "sm120+sm89+sm86+sm80", "RTX")) == [rtx]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("sm75+sm89", "sm75 takes graphs of another form and shares no engine"),
        ("sm89+sm90", "no GPU called 'sm90'"),
        ("sm89+", "no GPU called ''"),
        ("sm89,sm120", "no GPU called 'sm89,sm120'; it knows .*--gpu rtx \\(one engine for sm80, sm86"),
    ],
)
def test_cards_that_cannot_share_one_are_refused(cuda: Any, card: str, message: str) -> None:
    cuda(None)
    with pytest.raises(UsageError, match=message):
        find_here(("tensorrt-rtx",), (card,))
