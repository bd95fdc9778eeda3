"""Compares small networks, trained for equal minutes: which is worth its time, and what each takes to run.

    python bench/candidates.py --data CLEAN_PICTURES --clean HELD_OUT_PICTURES [--minutes 4] [--only NAME ...]

Every candidate begins at random weights and learns to remove Gaussian noise of σ 0 to 55 from crops of the
pictures in ``--data``: 8 of 128x128 a step, L1, AdamW, a cosine that ends with the minutes. Minutes are
processor time of one thread, so that a busy machine is fair to all. Milliseconds are that of its ONNX graph
on 640x360, all candidates in turns; the ratio is to the first. dB are the mean over the pictures of
``--clean``, in their middle 256x256.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from measnet.config import FORMER_VARIANTS, VARIANTS, MEASNetConfig
from measnet.errors import UsageError
from measnet.export.exact import ExactMEASNet
from measnet.image import pad, to_image
from measnet.metrics import psnr
from measnet.network import MEASNet
from measnet.train.data.pictures import list_pictures, read_picture
from measnet.train.packed_loop import Clock

NANO = VARIANTS["nano"]

CANDIDATES: dict[str, MEASNetConfig] = {
    "former nano": FORMER_VARIANTS["nano"],
    "nano": NANO,
    "nano without MESE": replace(NANO, mese=False),
    "nano without FD-MEE": replace(NANO, fd=False, mee=False),
    "nano without TSPG": replace(NANO, tspg=False),
    "nano without experts": replace(NANO, mese=False, fd=False, mee=False),
    "nano of width 16": replace(NANO, width=16),
    "nano of transformer blocks": replace(NANO, block="transformer", width=16, refinement_blocks=0),
}

BATCH, CROP = 8, 128
MOST_SIGMA = 55
SIGMAS = (15, 25, 50)
RATE, LEAST_RATE, WARMUP = 1e-3, 1e-5, 50
SIZE = (360, 640)
TESTED = 256  # side of what is tested of a picture


class Candidate:
    """One network, and what it was found to be."""

    def __init__(self, name: str, config: MEASNetConfig) -> None:
        torch.manual_seed(0)
        self.name = name
        self.network = MEASNet(config)
        self.steps = 0
        exact = ExactMEASNet(self.network)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            exact(torch.zeros(1, 3, 256, 256))
        self.gflop = counter.get_total_flops() / 1e9
        self.session = session(exact, config.size_rule.fit(*SIZE))
        self.seconds: list[float] = []

    def time(self) -> None:
        """Runs the graph once."""
        (given,) = self.session.get_inputs()
        picture = np.random.default_rng(0).random(given.shape, np.float32)
        began = time.process_time()
        self.session.run(["restored"], {given.name: picture})
        self.seconds.append(time.process_time() - began)

    def learn(self, crops: Iterator[Tensor], minutes: float) -> None:
        clock, network = Clock(1, minutes), self.network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
        noise, began = torch.Generator().manual_seed(1), time.process_time()
        while (done := clock.done(self.steps + 1, time.process_time() - began)) < 1:
            self.steps += 1
            clean = next(crops)
            sigma = torch.rand(len(clean), 1, 1, 1, generator=noise) * MOST_SIGMA / 255
            passed = network.forward_training(clean + torch.randn(clean.shape, generator=noise) * sigma)
            loss = (passed.restored - clean).abs().mean() + 1e-3 * passed.balance
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            cosine = LEAST_RATE + (RATE - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = cosine * min(1.0, self.steps / WARMUP)
            optimizer.step()

    def decibels(self, pictures: list[np.ndarray]) -> list[float]:
        """The mean PSNR over ``pictures`` (1 3 H W), of each σ."""
        network, found = self.network.eval(), []
        for sigma in SIGMAS:
            noise, each = np.random.default_rng(sigma), []
            for clean in pictures:
                noisy = clean + noise.normal(0, sigma / 255, clean.shape).astype(np.float32)
                fitted = pad(noisy, network.config.size_rule.fit(*clean.shape[2:]))
                with torch.inference_mode():
                    restored = network(torch.from_numpy(fitted)).clamp(0, 1).numpy()
                each.append(psnr(restored[:, :, : clean.shape[2], : clean.shape[3]], clean))
            found.append(statistics.mean(each))
        return found


def session(exact: ExactMEASNet, size: tuple[int, int]) -> ort.InferenceSession:
    """The graph for one size, traced the quick way, on one thread."""
    buffer, options = io.BytesIO(), ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exact,
            (torch.zeros(1, 3, *size),),
            buffer,  # type: ignore[arg-type]  # the exporter without dynamo takes it
            opset_version=18,
            dynamo=False,
            input_names=exact.input_names,
            output_names=exact.output_names,
        )
    return ort.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])


def endless_crops(paths: list[Path]) -> Iterator[Tensor]:
    """B 3 S S, turned and mirrored; the same for every candidate."""
    draw = np.random.default_rng(0)
    pictures = [picture for picture in map(read_picture, paths) if min(picture.shape[:2]) >= CROP]
    while True:
        batch = []
        for index in draw.integers(len(pictures), size=BATCH):
            height, width = pictures[index].shape[:2]
            top, left = draw.integers(height - CROP + 1), draw.integers(width - CROP + 1)
            crop = np.rot90(pictures[index][top : top + CROP, left : left + CROP], int(draw.integers(4)))
            batch.append(to_image(np.ascontiguousarray(crop[:, ::-1] if draw.integers(2) else crop)))
        yield torch.from_numpy(np.concatenate(batch))


def middle(path: Path) -> np.ndarray:
    """1 3 H W, 0 to 1."""
    pixels = read_picture(path)
    top, left = (max(0, side - TESTED) // 2 for side in pixels.shape[:2])
    return to_image(np.ascontiguousarray(pixels[top : top + TESTED, left : left + TESTED]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clean", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument(
        "--only", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="NAME"
    )
    parser.add_argument("--pictures", type=int, default=200, help="of --data, evenly spaced")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    try:
        Clock(1, options.minutes)
    except UsageError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    paths = list_pictures(options.data)
    paths = paths[:: max(1, len(paths) // options.pictures)][: options.pictures]
    tested = [middle(path) for path in list_pictures(options.clean)]

    candidates = [Candidate(name, CANDIDATES[name]) for name in options.only]
    for _ in range(options.rounds + 1):
        for candidate in candidates:
            candidate.time()
    times = [statistics.median(candidate.seconds[1:]) for candidate in candidates]  # the first warms up
    print(f"{options.minutes:g} minutes each, on {len(paths)} pictures; tested on {len(tested)}\n")
    sigmas = " | ".join(f"σ {sigma}, dB" for sigma in SIGMAS)
    print(f"| candidate | parameters, M | GFLOP at 256x256 | ms at 640x360 | ratio | steps | {sigmas} |")
    print("|---" * (6 + len(SIGMAS)) + "|")
    for candidate, seconds in zip(candidates, times, strict=True):
        candidate.learn(endless_crops(paths), options.minutes)
        parameters = sum(p.numel() for p in candidate.network.parameters()) / 1e6
        figures = " | ".join(f"{figure:.2f}" for figure in candidate.decibels(tested))
        print(
            f"| {candidate.name} | {parameters:.2f} | {candidate.gflop:.2f} | {1000 * seconds:.0f} "
            f"| {seconds / times[0]:.2f} | {candidate.steps} | {figures} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
