"""Memory that a training step takes, known before the first one: a process that takes too much is killed
without a word.

The training pass is run on tensors without content (PyTorch's ``meta`` device), and what the backward pass
would need is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.blocks import Blocks
from measnet.network.pixel_experts import NoisyRouting
from measnet.runtime.memory import available_memory, bytes_per_pixel
from measnet.train.processes import Processes
from measnet.train.recipe import Recipe
from measnet.train.steadiness import EVERY, SHARE

# Measured (bench/training.py): what a process holds besides, and what a step takes for what it keeps.
_PROCESS = 450_000_000
_SURPLUS = 1.2
# Weights, their average, gradients, and two moments.
_COPIES = 5
# No network keeps more than so many times what one inference takes at its peak. Counting takes seconds.
_MOST = 25


class Kept(NamedTuple):
    """Bytes that a training pass keeps for the backward pass."""

    outside: int
    """Bytes of what lies outside of blocks, and of their inputs."""

    inside: int
    """Bytes of what lies inside blocks, and can be computed again."""

    largest: int
    """Inside the one block that keeps most."""


def free_memory(device: torch.device) -> int:
    """The bytes that are free on a device, for all processes of this machine."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def check_step(
    recipe: Recipe,
    processes: Processes,
    *,
    packed: bool = False,
    free_on: Callable[[torch.device], int] = free_memory,
) -> None:
    """Refuses a recipe whose steps cannot fit the memory that is free now. Raises ``UsageError``.

    A run from a pack on a GPU is let pass: it goes on with smaller batches by itself.
    """
    on_gpu = processes.device.type == "cuda"
    if on_gpu and packed:
        return
    crops = processes.part_of(recipe.batch)
    free = free_on(processes.device) // (1 if on_gpu else processes.world)
    if _MOST * bytes_per_pixel(recipe.config) * crops * recipe.crop**2 < free / 2:
        return
    needed = step_bytes(recipe, crops, packed=packed)
    if recipe.precision == "bf16" or (on_gpu and recipe.precision == "auto"):
        needed //= 2  # not measured: it cannot be less
    if needed > free:
        recompute = "" if recipe.recompute else ", or --set recompute=true, which takes more time"
        raise UsageError(
            f"a step on {crops} crops of {recipe.crop} pixels takes about {needed / 1e9:.1f} GB of "
            f"{'the GPU' if on_gpu else 'memory'}, and {free / 1e9:.1f} GB are free: "
            f"lower batch or crop (--set batch={max(2, crops // 2)}){recompute}"
        )


def step_bytes(recipe: Recipe, crops: int, *, packed: bool = False) -> int:
    """Estimates the peak memory of a process that takes steps on so many crops, in float32."""
    with torch.device("meta"):
        network = MEASNet(recipe.config)
    network.train()
    network.ask_all_experts(packed)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    kept = kept_by(network, crops, recipe.crop)
    most = kept.outside + (kept.largest if recipe.recompute else kept.inside)
    if recipe.steady_weight:  # two frames more of some crops
        most = round(most * (1 + 2 * SHARE**2 / EVERY))
    return round(_PROCESS + _COPIES * weights + _SURPLUS * most)


def kept_by(network: MEASNet, crops: int, side: int) -> Kept:
    """Counts what the training pass of a network on the ``meta`` device keeps."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}
    inside: list[int] = []
    whole = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal whole
        storage = tensor.untyped_storage()
        if storage._cdata not in kept and storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other takes its place
            whole += storage.nbytes()
        return tensor

    def begin(block: nn.Module, given: tuple[Any, ...]) -> None:
        keep(given[0])
        inside.append(-whole)

    def end(block: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        inside[-1] += whole

    with ExitStack() as hooked:
        for blocks in network.modules():
            for block in blocks if isinstance(blocks, Blocks) else ():
                for hook in (block.register_forward_pre_hook(begin), block.register_forward_hook(end)):
                    hooked.callback(hook.remove)
        hooked.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        hooked.enter_context(_Evenly())
        network.forward_training(
            torch.zeros(crops, 3, side, side, device="meta"), NoisyRouting(draw=torch.zeros_like)
        )
    return Kept(whole - sum(inside), sum(inside), max(inside, default=0))


class _Evenly(TorchFunctionMode):
    """Answers what depends on content as if every expert were chosen equally often."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.bincount:
            chosen, experts = args[0].numel(), kwargs["minlength"]
            return torch.tensor(
                [chosen // experts + (i < chosen % experts) for i in range(experts)], device="cpu"
            )
        if func is Tensor.nonzero:  # images by choices: as if each image had chosen this expert
            images = torch.zeros(len(args[0]), dtype=torch.long, device="meta")
            return images, images
        return func(*args, **kwargs)
