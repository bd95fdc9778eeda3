"""One training run on one process or on many, with the same losses: torchrun starts them, PyTorch joins them.

A batch is split over the processes. Sums over a batch (the balance loss, FD's normalisation) are taken
over all of them, so a run on several equals the same run on one, but for rounding.
"""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from measnet.errors import UsageError


class Processes:
    """This process's place among those that train together. A context manager: leaving it leaves the
    group."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")

    def __enter__(self) -> Processes:
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            # A remark on speed, about the layout of depthwise kernels; nothing that a user could change.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Tells whether this process writes the files."""
        return self.rank == 0

    def part_of(self, batch: int) -> int:
        """Crops of a batch that fall to this process. Raises ``UsageError`` when they do not divide."""
        if batch % self.world:
            raise UsageError(f"a batch of {batch} cannot be split over {self.world} processes; change batch")
        return batch // self.world

    def total(self, amounts: Tensor) -> Tensor:
        """The sum over all processes; gradients flow back to each."""
        return _Sum.apply(amounts) if self.world > 1 else amounts  # type: ignore[no-untyped-call]

    def mean(self, amounts: Tensor) -> Tensor:
        """The mean over all processes, without gradients."""
        if self.world > 1:
            amounts = amounts.detach().clone()
            dist.all_reduce(amounts)
            amounts /= self.world
        return amounts

    def join_norms(self, network: nn.Module) -> None:
        """Lets every batch norm of ``network`` see the whole batch."""
        if self.world == 1:
            return
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, SharedBatchNorm(child, self))

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` whose gradients are the mean over all processes."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Experts that no pixel or image chose have no gradient.
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Every process's loss depends on it, so gradients are summed on the way
    back."""

    @staticmethod
    def forward(context: Any, amounts: Tensor) -> Tensor:
        total = amounts.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes' samples. PyTorch's own ``SyncBatchNorm`` does not run on CPUs."""

    def __init__(self, norm: nn.BatchNorm2d, processes: Processes) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        # The very same tensors: an optimizer may hold them already.
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.processes = processes

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> the same; B differs between processes in nothing but content."""
        if not self.training:
            return super().forward(x)
        x = x.float()
        count = x.numel() // x.shape[1] * self.processes.world
        mean = self.processes.total(x.sum(dim=(0, 2, 3))) / count  # C
        centred = x - mean[:, None, None]
        variance = self.processes.total(centred.square().sum(dim=(0, 2, 3))) / count  # C, biased
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def per_sample_noise(seed: int, first: int, count: int, device: torch.device) -> SampleNoise:
    """Noise for samples ``first`` to ``first + count``, whichever process they fall to."""
    return SampleNoise([seed * 1_000_003 + first + i for i in range(count)], device)


class SampleNoise:
    """Standard normal noise that depends on the sample alone: not on its batch, its process, or what came
    before."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed % (1 << 62)) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Draws in the shape of ``like``, B ..., with one B per sample."""
        rows = [
            torch.randn(like.shape[1:], generator=generator, device=like.device)
            for generator in self._generators
        ]
        return torch.stack(rows).to(like.dtype)
