"""Measures a training step: pictures per second, forward and backward apart, and peak memory.

    python bench/training.py [--variants nano small] [--batch 8] [--crop 128] [--rounds 3] [--recompute]
    python bench/training.py --against-dense [--variants nano small base]
    python bench/training.py --forms [--variants nano small] [--compile]

``--recompute`` measures with gradient checkpointing. ``--against-dense`` compares the step with that of the
same network written with the obvious dense operations (every pixel expert answers every pixel, then the
chosen are picked; every image expert answers every image), in turns in one process, as a ratio. ``--forms``
compares float32 and bf16, each with the channels of a pixel side by side or not, and with ``--compile`` the
last of these compiled: processor time of one thread, in turns, as a ratio to the first. Every other row is
a process of its own; memory is the most that it held at one moment, beyond what it held before its first step
and in all, the latter with the time that ``measnet-train`` expects before it begins.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from measnet.config import VARIANTS
from measnet.errors import first_line
from measnet.network import MEASNet
from measnet.network.image_experts import ImageExpertLayer, ImageRouting, choose_experts
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import NoisyRouting, PixelExperts, PixelRouting
from measnet.train.loop import keep_channels_together
from measnet.train.recipe import Recipe
from measnet.train.step_memory import step_bytes


class DensePixelExperts(PixelExperts):
    """Every expert answers every pixel."""

    def join(self, x: Tensor, routing: PixelRouting) -> Tensor:
        rows = x.permute(0, 2, 3, 1)  # B H W C
        answers = torch.stack([expert(rows) for expert in self.experts], dim=1)  # B N H W C
        index = routing.experts[..., None].expand(*routing.experts.shape, x.shape[1])
        chosen = answers.gather(1, index) + routing.log_gates[..., None]  # B K H W C
        return chosen.logsumexp(dim=1).permute(0, 3, 1, 2)


class DenseImageExperts(ImageExpertLayer):
    """Every expert answers every image; those not chosen count 0 times."""

    def forward(self, features: Tensor, context: Tensor) -> tuple[Tensor, ImageRouting]:
        routing = choose_experts(features, self.scores, self.top_k, self.demand)
        gates = torch.zeros_like(routing.demand).scatter(1, routing.experts, routing.gates)  # B N
        out = features
        for index, expert in enumerate(self.experts):
            out = out + expert(features, context) * gates[:, index, None, None, None]
        return out, routing


def make_dense(network: MEASNet) -> MEASNet:
    for module in network.modules():
        if type(module) is PixelExperts:
            module.__class__ = DensePixelExperts
        elif type(module) is ImageExpertLayer:
            module.__class__ = DenseImageExperts
    return network


class Step:
    """One training step of one network, timed in two halves."""

    def __init__(self, network: MEASNet, batch: int, crop: int) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        self.images = torch.rand(batch, 3, crop, crop)
        self.forward = self._forward
        self.bf16 = False

    def _forward(self) -> TrainingPass:
        return self.network.forward_training(self.images, NoisyRouting(draw=torch.zeros_like))

    def __call__(self) -> tuple[float, float]:
        """Seconds of the forward pass, and of the backward pass with the update."""
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            done = self.forward()
        loss = (done.restored - self.images).abs().mean() + 1e-3 * done.balance
        middle = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return middle - began, time.perf_counter() - middle


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cost(variant: str, batch: int, crop: int, rounds: int, recompute: bool) -> None:
    torch.manual_seed(0)
    network = MEASNet(VARIANTS[variant])
    network.recompute_blocks(recompute)
    step = Step(network, batch, crop)
    before = peak_bytes()
    times = [step() for _ in range(rounds + 1)][1:]  # the first one warms up
    forward, backward = (statistics.median(side) for side in zip(*times, strict=True))
    peak = peak_bytes()
    recipe = Recipe(variant, steps=1, batch=batch, crop=crop, recompute=recompute)
    expected = step_bytes(recipe, batch)
    print(
        f"{variant:6} batch {batch} of {crop}x{crop}{' recomputed' if recompute else '':11} "
        f"{batch / (forward + backward):6.2f} pictures/s  forward {1000 * forward:7.0f} ms  "
        f"backward {1000 * backward:7.0f} ms  peak {(peak - before) / 1e9:5.2f} GB, "
        f"{peak / 1e9:5.2f} in all ({expected / 1e9:5.2f} expected)"
    )


def against_dense(variant: str, batch: int, crop: int, rounds: int) -> None:
    steps = []
    for dense in (False, True):
        torch.manual_seed(0)
        network = MEASNet(VARIANTS[variant])
        steps.append(Step(make_dense(network) if dense else network, batch, crop))
    outputs = [step.network.eval()(step.images) for step in steps]
    largest = (outputs[0] - outputs[1]).abs().max().item()
    assert largest < 1e-4, f"not the same network: {largest}"
    for step in steps:
        step.network.train()
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for which, step in enumerate(steps):
            seconds = sum(step())
            if turn:
                times[which].append(seconds)
    ours, dense_time = (statistics.median(side) for side in times)
    print(
        f"{variant:6} batch {batch} of {crop}x{crop}: routed {1000 * ours:7.0f} ms, "
        f"dense {1000 * dense_time:7.0f} ms, dense over routed x{dense_time / ours:.2f}"
    )


def forms(variant: str, batch: int, crop: int, rounds: int, compiled: bool) -> None:
    torch.set_num_threads(1)
    steps: dict[str, Step] = {}
    ways = [(bf16, together, False) for bf16 in (False, True) for together in (False, True)]
    for bf16, together, compiles in [*ways, (True, True, True)] if compiled else ways:
        torch.manual_seed(0)
        network = MEASNet(VARIANTS[variant])
        network.ask_all_experts()  # as training from a pack does
        if together:
            keep_channels_together(network)
        step = Step(network, batch, crop)
        step.bf16 = bf16
        if compiles:
            step.forward = torch.compile(step.forward)
        layout = f"channels {'last' if together else 'first'}{', compiled' if compiles else ''}"
        steps[f"{'bf16' if bf16 else 'float32'}, {layout}"] = step
    for name, step in list(steps.items()):  # warms up, and compiles
        try:
            step()
        except Exception as error:
            print(f"{variant:6} {name:35} fails: {first_line(error)}")
            del steps[name]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            step()
            times[name].append(time.process_time() - began)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{variant:6} {name:35} {1000 * seconds:7.0f} ms  x{seconds / first:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["nano", "small"], choices=sorted(VARIANTS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--against-dense", action="store_true")
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.one:
        for variant in options.variants:
            own = [sys.executable, __file__, *sys.argv[1:], "--one", "--variants", variant]
            subprocess.run(own, check=True)
        return
    (variant,) = options.variants
    if options.against_dense:
        against_dense(variant, options.batch, options.crop, options.rounds)
    elif options.forms:
        forms(variant, options.batch, options.crop, options.rounds, options.compile)
    else:
        cost(variant, options.batch, options.crop, options.rounds, options.recompute)


if __name__ == "__main__":
    main()
