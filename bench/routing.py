"""Measures whether routing follows the damage: who restores which, the prompt, and each choice's worth in dB.

    python bench/routing.py nano --pack FILE [--pictures 24] [--markdown]
    python bench/routing.py runs/nano/weights.safetensors --pairs derain=FOLDER --clean FOLDER --sigma 25

Pictures come from a pack of measnet-train or from folders, as measnet-eval takes them; of each the middle is
taken, --side pixels at most. Mixtures are left out unless --tasks names them. In the tables:

- bits: mutual information between the degradation and a choice, and the most that there could be, and
  what pictures with shuffled degradations give, which is what so few pictures feign;
- worth: PSNR with the network's own choice less that with one choice for all pictures: the mean prompt; the
  most used pixel experts, with their mean gates; the mean filters and the most used image experts;
- blocks (--blocks alone): PSNR with all blocks less that without one of them, whose input goes on as it is;
- held: PSNR of each degradation's pictures with the prompt of a task (--task of measnet-run), as stored with
  the weights, or else the mean over these pictures, as training would store it.

PSNR is over RGB, the result clipped, at most 60 dB a picture, and a mean over pictures.
Shapes: B pictures, D numbers of all decisions, G degradations, N experts, S branches of FD-MEE, O outcomes.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from measnet.checkpoint import load_checkpoint
from measnet.config import MEASNetConfig
from measnet.damage import DAMAGE, NAMES, shares_by_name, wanted_shares
from measnet.decision_layout import DecisionKind, DecisionLayout
from measnet.errors import UsageError
from measnet.evaluation.cases import cases_of
from measnet.evaluation.protocol import PROTOCOLS
from measnet.image import Pixels, to_image
from measnet.metrics import psnr
from measnet.network import MEASNet
from measnet.network.blocks import Blocks
from measnet.network.decisions import SteeredNetwork, layout_of
from measnet.network.measnet import MEASNetOutput
from measnet.network.pixel_experts import PixelRouting
from measnet.train.data.layouts import find_sets, read_pairs
from measnet.train.data.pack import CLEAN, read_pack
from measnet.train.data.packed_crops import PackedCrops
from measnet.train.data.packing import DAMAGE_OF_FIELD
from measnet.train.data.pictures import list_pictures
from measnet.train.data.sets import CLEAN as CLEAN_SET
from measnet.train.data.sets import ImageSet, Pair
from measnet.train.task_prompts import task_name
from measnet.weights import NAMES as BUNDLED
from measnet.weights import bundled

CEILING = 60.0  # dB
SHUFFLES = 50
LEAST_GATE = 1e-6

Array = NDArray[np.float64]


# Where pictures come from.


class Sample(NamedTuple):
    """A degraded picture and its clean one, each 1 3 H W, 0 to 1; what was done to it."""

    degradation: str
    degraded: Tensor
    clean: Tensor
    damage: tuple[float, ...]
    """By ``DAMAGE``, 0 to 1."""


def from_pack(path: Path, tasks: Sequence[str] | None, side: int, count: int, seed: int) -> list[Sample]:
    """``count`` crops of every task in a pack."""
    pack = read_pack(path, side)
    held = ["denoise" if task == CLEAN else task for task in pack.tasks]
    samples = []
    for task in sorted(set(held) if tasks is None else tasks):
        if tasks is None and task == "mixture":
            continue
        batch = PackedCrops(pack, {task: 1.0}, crop=side, seed=seed).batch(1, count)
        for degraded, clean, damage in zip(batch.degraded, batch.clean, batch.damage.tolist(), strict=True):
            samples.append(Sample(task, degraded[None], clean[None], tuple(damage)))
    return samples


def from_folders(options: argparse.Namespace, config: MEASNetConfig) -> list[Sample]:
    """The first pictures of every set; a degradation of its own for each sigma."""
    images = [found for folder in options.data for found in find_sets(folder, split="test")]
    for text in options.pairs:
        task, _, folder = text.partition("=")
        images.append(read_pairs(Path(folder), task))
    for folder in options.clean:
        pairs = tuple(Pair(None, path) for path in list_pictures(folder))
        images.append(ImageSet(folder.name, CLEAN_SET, pairs))
    samples = []
    for cases in (cases for one in images for cases in cases_of(one, options.sigma, options.pictures)):
        degradation = cases.task if cases.sigma is None else f"{cases.task}{cases.sigma}"
        if options.tasks is not None and cases.task not in options.tasks:
            continue
        damage = tuple(DAMAGE_OF_FIELD[cases.task].get(name, 0.0) for name in DAMAGE)
        for case in cases.read(PROTOCOLS["paper"], options.seed):
            degraded, clean = (middle(pixels, options.side, config) for pixels in (case.degraded, case.clean))
            samples.append(Sample(degradation, degraded, clean, damage))
    return samples


def middle(pixels: Pixels, side: int, config: MEASNetConfig) -> Tensor:
    """The middle of a picture, ``side`` x ``side`` at most, as the network takes it: 1 3 H W."""
    rule = config.size_rule
    height, width = (min(side, length) // rule.multiple * rule.multiple for length in pixels.shape[:2])
    if min(height, width) < rule.minimum:
        raise UsageError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels is too small")
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return torch.from_numpy(to_image(np.ascontiguousarray(pixels[top : top + height, left : left + width])))


# Answers of the network to them.


@dataclass(frozen=True)
class Seen:
    """One picture, restored by the network's own choices."""

    degradation: str
    damage: tuple[float, ...]
    before: float
    """dB, as is ``free``."""

    free: float
    decisions: Tensor
    """D: all its image-level decisions."""

    prompt_weights: NDArray[np.float32] | None
    first: Array | None
    """N: share of the pixels whose first choice each expert is."""

    chosen: Array | None
    """N: share of the pixels that chose each at all."""

    gates: Array | None
    """N: the mean gate of each, 0 where it was not chosen."""

    sets: tuple[tuple[int, ...], ...]
    """S: the chosen image experts of each branch, by number."""


class Held(NamedTuple):
    """Decisions that hold in place of a picture's own: each D, ``hold`` 0 or 1."""

    decisions: Tensor
    hold: Tensor


def restore(network: MEASNet, image: Tensor, held: Held | None = None) -> tuple[MEASNetOutput, Tensor]:
    """Returns the restored picture and the network's own decisions (D), whatever held."""
    steered = SteeredNetwork.of(network)
    nothing = torch.zeros(steered.layout.size)
    given = held or Held(nothing, nothing)
    window = torch.ones_like(image[:, :1])
    with torch.inference_mode():
        done, own, _ = steered.restore(image, window, given.decisions[None], given.hold[None])
        return done, own[0].clone()


def see(network: MEASNet, sample: Sample) -> Seen:
    done, decisions = restore(network, sample.degraded)
    first = chosen = gates = None
    if done.pixel_routing is not None:
        experts = network.config.pixel_experts[0]
        routing = done.pixel_routing
        of_expert = torch.nn.functional.one_hot(routing.experts[0], experts).double()  # K h w N
        first = of_expert[0].mean(dim=(0, 1)).numpy()
        chosen = of_expert.sum(dim=0).mean(dim=(0, 1)).numpy()
        gates = (of_expert * routing.log_gates[0].exp()[..., None]).sum(dim=0).mean(dim=(0, 1)).numpy()
    return Seen(
        sample.degradation,
        sample.damage,
        level(sample.degraded, sample.clean),
        level(done.restored, sample.clean),
        decisions,
        None if done.prompt_weights is None else done.prompt_weights[0].numpy(),
        first,
        chosen,
        gates,
        tuple(tuple(sorted(routing.experts[0].tolist())) for routing in done.image_routings),
    )


def level(restored: Tensor, clean: Tensor) -> float:
    """PSNR of a picture, dB."""
    return min(CEILING, psnr(restored.clamp(0, 1).numpy(), clean.numpy()))


# One choice for all pictures.


@functools.cache
def decisions_of(config: MEASNetConfig) -> DecisionLayout:
    """The layout of the decisions of a network with this configuration."""
    return layout_of(MEASNet(config))


def hold_parts(config: MEASNetConfig, decisions: Tensor, *kinds: DecisionKind) -> Held:
    """Holds the decisions of ``kinds``, all others are each picture's own."""
    hold = torch.zeros_like(decisions)
    for part in decisions_of(config).parts:
        if part.kind in kinds:
            hold[part.numbers] = 1
    return Held(decisions, hold)


def mean_prompt(config: MEASNetConfig, seen: Sequence[Seen]) -> Held:
    """Holds the prompt to the mean of the mixing weights."""
    decisions = torch.zeros_like(seen[0].decisions)
    weights = np.mean([np.asarray(one.prompt_weights) for one in seen], axis=0)
    decisions[decisions_of(config).prompt] = torch.from_numpy(np.log(weights + 1e-12)).float()
    return hold_parts(config, decisions, "prompt")


def task_prompt(config: MEASNetConfig, scores: Sequence[float]) -> Held:
    """Holds the prompt to the scores of a task."""
    decisions = torch.zeros(decisions_of(config).size)
    decisions[decisions_of(config).prompt] = torch.tensor(scores)
    return hold_parts(config, decisions, "prompt")


def usual_image_choice(config: MEASNetConfig, seen: Sequence[Seen]) -> Held:
    """Holds FD's filters to their means, and MEE to its most used experts with their mean gates."""
    decisions = torch.stack([one.decisions for one in seen]).mean(dim=0)
    branches = [part for part in decisions_of(config).parts if part.kind == "experts"]
    for branch, part in enumerate(branches):
        counts = np.bincount([e for one in seen for e in one.sets[branch]], minlength=part.shape[0])
        usual = counts.argsort(kind="stable")[::-1][: len(seen[0].sets[branch])].copy()
        demand = torch.stack([one.decisions[part.numbers].softmax(dim=0) for one in seen]).mean(dim=0)
        held = demand.clamp(max=0.999 * float(demand[usual].min()))
        held[usual] = demand[usual]
        decisions[part.numbers] = held.log()
    return hold_parts(config, decisions, "filters", "experts")


@contextmanager
def usual_pixel_choice(network: MEASNet, seen: Sequence[Seen]) -> Iterator[None]:
    """Sends every pixel to the most used experts, with their mean gates."""
    assert network.pixel_experts1 is not None
    router = network.pixel_experts1.router
    use, gates = (np.mean([getattr(one, name) for one in seen], axis=0) for name in ("chosen", "gates"))
    usual = use.argsort(kind="stable")[::-1][: router.top_k].copy()
    usual = usual[gates[usual].argsort()[::-1]]
    log_gates = torch.from_numpy(np.log(gates[usual] / gates[usual].sum() + LEAST_GATE)).float()

    def choose(scores: Tensor) -> PixelRouting:
        shape = (len(scores), router.top_k, *scores.shape[2:])
        experts = torch.from_numpy(usual)[None, :, None, None].expand(shape)
        return PixelRouting(experts, log_gates[None, :, None, None].expand(shape))

    router.choose = choose  # type: ignore[method-assign]  # only until the end of this block
    try:
        yield
    finally:
        del router.choose  # the class has its own


def levels(network: MEASNet, samples: Sequence[Sample], held: Held | None = None) -> Array:
    """B: dB of each picture with what is held."""
    restored = (restore(network, sample.degraded, held)[0].restored for sample in samples)
    return np.array([level(done, sample.clean) for done, sample in zip(restored, samples, strict=True)])


# Figures.


def mutual_information(groups: NDArray[np.int64], outcomes: Array) -> float:
    """Bits that the outcome (B O, shares of each picture) and the picture's group (B) tell of each other."""
    joint = np.stack([outcomes[groups == group].sum(axis=0) for group in np.unique(groups)]) / len(groups)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)  # G O
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / apart[there])).sum())


def by_chance(groups: NDArray[np.int64], outcomes: Array) -> float:
    """The mean of it over shuffled groups."""
    rng = np.random.default_rng(0)
    return float(np.mean([mutual_information(rng.permutation(groups), outcomes) for _ in range(SHUFFLES)]))


def entropy(groups: NDArray[np.int64]) -> float:
    """Bits."""
    shares = np.unique(groups, return_counts=True)[1] / len(groups)
    return float(-(shares * np.log2(shares)).sum())


def one_hot(labels: Sequence[Any]) -> Array:
    """B labels -> B O."""
    names = sorted(set(labels))
    return np.array([[float(label == name) for name in names] for label in labels])


def largest(shares: dict[str, float]) -> str:
    return max(shares, key=shares.__getitem__)


def true_damage(damage: tuple[float, ...]) -> str:
    """The kind that there is most of."""
    shares = wanted_shares(torch.tensor([damage]))[0].tolist()
    return largest(dict(zip(NAMES, shares, strict=True)))


def branch_names(config: MEASNetConfig) -> list[str]:
    bands = ("high", "low") if config.fd else ("whole",)
    return [f"level {level} {band}" for level in config.fd_mee_levels for band in bands if config.mee]


# Tables.


class Table(NamedTuple):
    title: str
    head: list[str]
    rows: list[list[str]]


def by_degradation(seen: Sequence[Seen], values: Sequence[Any]) -> list[tuple[str, Array]]:
    """The mean of ``values`` (one of each picture) over each degradation's pictures."""
    names = sorted({one.degradation for one in seen})
    return [
        (name, np.mean([v for v, one in zip(values, seen, strict=True) if one.degradation == name], axis=0))
        for name in names
    ]


def percents(shares: Iterable[float]) -> list[str]:
    return [f"{100 * share:.0f} %" for share in shares]


def pixel_table(seen: Sequence[Seen]) -> Table:
    rows = []
    chosen = dict(by_degradation(seen, [one.chosen for one in seen]))
    for name, first in by_degradation(seen, [one.first for one in seen]):
        both = zip(percents(first), percents(chosen[name]), strict=True)
        rows.append([name, *(f"{a} ({b})" for a, b in both)])
    experts = range(len(chosen[rows[0][0]]))
    head = ["degraded by", *(f"expert {number}" for number in experts)]
    return Table("Pixels by expert: as their first choice (at all)", head, rows)


def image_table(seen: Sequence[Seen], branch: int, name: str, experts: int) -> Table:
    chosen = [[float(number in one.sets[branch]) for number in range(experts)] for one in seen]
    rows = [[name, *percents(shares.tolist())] for name, shares in by_degradation(seen, chosen)]
    head = ["degraded by", *(f"expert {number}" for number in range(experts))]
    return Table(f"Pictures by image expert, {name}", head, rows)


def information_table(config: MEASNetConfig, seen: Sequence[Seen]) -> Table:
    groups = np.unique([one.degradation for one in seen], return_inverse=True)[1].astype(np.int64)
    most = entropy(groups)
    rows = []

    def add(name: str, outcomes: Array, count: int) -> None:
        figures = (
            mutual_information(groups, outcomes),
            min(most, math.log2(count)),
            by_chance(groups, outcomes),
        )
        rows.append([name, *(f"{bits:.2f}" for bits in figures)])

    if seen[0].first is not None:
        add("pixel experts, first choice", np.array([one.first for one in seen]), config.pixel_experts[0])
    for branch, name in enumerate(branch_names(config)):
        of_level = int(name.split()[1]) - 1
        count = math.comb(config.image_experts[of_level], config.image_top_k[of_level])
        add(f"image experts, {name}", one_hot([one.sets[branch] for one in seen]), count)
    weights = [one.prompt_weights for one in seen]
    if weights[0] is not None:
        said = [largest(shares_by_name(q)) for q in weights if q is not None]
        add("largest prompt group", one_hot(said), len(NAMES))
        add(
            "largest basic prompt",
            one_hot([int(q.argmax()) for q in weights if q is not None]),
            len(weights[0]),
        )
    head = ["the degradation and", "bits", "most possible", "shuffled"]
    return Table(f"Mutual information, {len(set(groups))} degradations", head, rows)


def confusion_table(seen: Sequence[Seen], taught: bool) -> Table:
    true = [true_damage(one.damage) for one in seen]
    rows = []
    for name in NAMES:
        weights = [one.prompt_weights for one, kind in zip(seen, true, strict=True) if kind == name]
        said = [largest(shares_by_name(q)) for q in weights if q is not None]
        if said:
            rows.append([f"{name} ({len(said)})", *percents([said.count(n) / len(said) for n in NAMES])])
    told = "" if taught else "; these weights do not say that they were taught, so the names may mean nothing"
    return Table(f"Largest prompt group of pictures by true damage{told}", ["true (pictures)", *NAMES], rows)


def worth_table(network: MEASNet, samples: Sequence[Sample], seen: Sequence[Seen]) -> Table:
    config = network.config
    free = np.array([one.free for one in seen])
    columns: dict[str, Array] = {"before": np.array([one.before for one in seen]), "own choices": free}
    if network.prompt is not None:
        columns["TSPG"] = free - levels(network, samples, mean_prompt(config, seen))
    if network.pixel_experts1 is not None:
        with usual_pixel_choice(network, seen):
            columns["MESE"] = free - levels(network, samples)
    if config.fd_mee_levels:
        columns["FD-MEE"] = free - levels(network, samples, usual_image_choice(config, seen))
    rows = [
        [name, *(f"{value:+.2f}" if number > 1 else f"{value:.2f}" for number, value in enumerate(values))]
        for name, values in by_degradation(seen, np.stack(list(columns.values()), axis=1).tolist())
    ]
    title = "PSNR, dB, and what each module's choice for the picture is worth over one choice for all"
    return Table(title, ["degraded by", *columns], rows)


def block_table(network: MEASNet, samples: Sequence[Sample]) -> Table:
    """A row for every block."""
    names = [sample.degradation for sample in samples]
    whole = levels(network, samples)
    rows = []
    for level_name, blocks in network.named_modules():
        if not isinstance(blocks, Blocks):
            continue
        for number, block in enumerate(blocks):
            with skipped(block):
                worth = whole - levels(network, samples)
            means = [np.mean(worth[[one == name for one in names]]) for name in sorted(set(names))]
            size = sum(weights.numel() for weights in block.parameters()) / 1e6
            rows.append([f"{level_name}.{number}", f"{size:.2f}", *(f"{mean:+.2f}" for mean in means)])
    head = ["block", "parameters, M", *sorted(set(names))]
    return Table("What each block is worth, dB", head, rows)


@contextmanager
def skipped(block: nn.Module) -> Iterator[None]:
    """Makes a block add nothing."""
    handle = block.register_forward_hook(lambda _, given, made: given[0])
    try:
        yield
    finally:
        handle.remove()


def held_table(network: MEASNet, samples: Sequence[Sample], seen: Sequence[Seen]) -> Table:
    scores, origin = dict(network.task_prompts), "stored"
    if not scores:
        prompts = decisions_of(network.config).prompt
        own: dict[str, list[Tensor]] = {}
        for one in seen:
            if (task := task_name(one.degradation)) is not None:
                own.setdefault(task, []).append(one.decisions[prompts])
        scores = {task: tuple(torch.stack(rows).mean(dim=0).tolist()) for task, rows in own.items()}
        origin = "measured on these pictures"
    columns: dict[str, Array] = {"free": np.array([one.free for one in seen])}
    for task in sorted(scores):
        columns[task] = levels(network, samples, task_prompt(network.config, scores[task]))
    rows = [
        [name, *(f"{value:.2f}" for value in values)]
        for name, values in by_degradation(seen, np.stack(list(columns.values()), axis=1).tolist())
    ]
    return Table(f"PSNR, dB, held to each task's prompt ({origin})", ["degraded by", *columns], rows)


def tables(network: MEASNet, samples: Sequence[Sample]) -> Iterator[Table]:
    seen = [see(network, sample) for sample in samples]
    config = network.config
    if network.pixel_experts1 is not None:
        yield pixel_table(seen)
    for branch, name in enumerate(branch_names(config)):
        yield image_table(seen, branch, name, config.image_experts[int(name.split()[1]) - 1])
    yield information_table(config, seen)
    if network.prompt is not None:
        yield confusion_table(seen, network.taught)
    yield worth_table(network, samples, seen)
    if network.prompt is not None:
        yield held_table(network, samples, seen)


def as_text(table: Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    shown = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return "\n".join([table.title, *(f"  {line}" for line in shown)])


def as_markdown(table: Table) -> str:
    lines = [table.head, ["---"] + ["---:"] * (len(table.head) - 1), *table.rows]
    return "\n".join([f"**{table.title}**\n", *(f"| {' | '.join(line)} |" for line in lines)])


# The command.


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a bundled name or a checkpoint")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--pairs", action="append", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--clean", type=Path, action="append", default=[])
    parser.add_argument("--sigma", type=int, nargs="+", default=[15, 25, 50])
    parser.add_argument("--tasks", type=lambda text: text.split(","), metavar="TASK,TASK")
    parser.add_argument("--pictures", type=int, default=24, help="of each degradation")
    parser.add_argument("--side", type=int, help="pixels; 128 of a pack, 256 of folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--blocks", action="store_true", help="what each block is worth, and nothing else")
    options = parser.parse_args()
    network = load_checkpoint(
        bundled(options.model, ".safetensors") if options.model in BUNDLED else Path(options.model)
    )
    options.side = options.side or (128 if options.pack else 256)
    if options.pack:
        samples = from_pack(options.pack, options.tasks, options.side, options.pictures, options.seed)
    else:
        samples = from_folders(options, network.config)
    if not samples:
        parser.error("no pictures: give --pack, --data, --pairs or --clean")
    show: Callable[[Table], str] = as_markdown if options.markdown else as_text
    print(f"{options.model}: {len(samples)} pictures")
    for table in [block_table(network, samples)] if options.blocks else tables(network, samples):
        print("\n" + show(table), flush=True)


if __name__ == "__main__":
    main()
