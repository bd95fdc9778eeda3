"""Training from a pack: exact resume, an end by the clock, and going on when memory or a loss fails."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from short_training import SOON, Change, HalfSeconds
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from measnet.checkpoint import load_checkpoint, stored_facts
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.measnet import TrainingPass
from measnet.train import packed_loop
from measnet.train.data.pack import Pack, read_pack
from measnet.train.data.packing import Packing, plan_pack, write_pack
from measnet.train.data.sets import ImageSet
from measnet.train.loop import Start, TrainingError
from measnet.train.packed_loop import StepFigures, information
from measnet.train.recipe import Recipe

train_packed = functools.partial(packed_loop.train_packed, cadence=SOON)
OFTEN = dataclasses.replace(SOON, log_every=1)

TASKS = {"denoise15": 1.0, "derain": 1.0, "lowlight": 1.0, "keep": 1.0}
TINY = Recipe(
    variant="nano",
    network={"width": 8, "blocks": (0, 0, 1, 1), "image_experts": (0, 0, 3)},
    tasks=TASKS,
    steps=6,
    batch=4,
    warmup_steps=2,
    save_every=3,
    steady_weight=0.1,
    teach_weight=0.02,
    z_weight=1e-3,
    quiet_share=0.5,
    loss="log_l1",
)
BY_CLOCK = dataclasses.replace(TINY, steps=100_000, steady_weight=0.0, batch=2)


@pytest.fixture(scope="module")
def pack(clean: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    path = tmp_path_factory.mktemp("pack") / "set.pack"
    write_pack(plan_pack([clean], TASKS, Packing(12, side=144)), path, workers=1)
    return read_pack(path, 128)


def same(ours: MEASNet, theirs: MEASNet) -> bool:
    other = theirs.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in ours.state_dict().items())


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(pack: Pack, tmp_path: Path) -> None:
    whole = train_packed(TINY, pack, tmp_path / "whole", cadence=OFTEN)

    def cut(at: StepFigures) -> None:
        if at.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_packed(TINY, pack, tmp_path / "cut", on_figures=cut, cadence=OFTEN)
    done: list[int] = []
    resumed = train_packed(
        TINY, pack, tmp_path / "cut", on_step=lambda step, _: done.append(step), cadence=OFTEN
    )
    assert done == [4, 5, 6] and same(whole, resumed)
    ends = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut")]
    assert ends[0] == ends[1]
    assert [line["step"] for line in lines(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(lines(tmp_path / "whole"), lines(tmp_path / "cut"), strict=True):
        for name in ("loss", "l1", "taught", "router_size"):
            assert ours[name] == theirs[name]


def test_a_run_that_is_to_stop_is_saved_behind_its_step_and_goes_on_there(pack: Pack, tmp_path: Path) -> None:
    seldom = dataclasses.replace(TINY, save_every=1000)
    train_packed(seldom, pack, tmp_path / "whole")
    stop, steps = threading.Event(), list[int]()

    def ask(step: int, done: float) -> None:
        steps.append(step)
        if step == 4:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        train_packed(seldom, pack, tmp_path / "cut", on_step=ask, stop=stop)
    assert stored_facts(tmp_path / "cut/weights.safetensors")["measnet.steps"] == "4"
    train_packed(seldom, pack, tmp_path / "cut", on_step=ask)
    assert steps == [1, 2, 3, 4, 5, 6]
    whole, cut = ((tmp_path / run / "weights.safetensors").read_bytes() for run in ("whole", "cut"))
    assert whole == cut


def test_a_run_that_is_to_stop_at_its_last_step_is_whole(pack: Pack, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    train_packed(dataclasses.replace(TINY, steps=1), pack, tmp_path / "run", stop=stop)
    assert load_checkpoint(tmp_path / "run/weights.safetensors").task_prompts


def test_a_run_that_is_done_is_left_as_it_is(pack: Pack, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, steps=2)
    first = train_packed(short, pack, tmp_path)
    before = (tmp_path / "weights.safetensors").read_bytes()
    assert same(first, train_packed(short, pack, tmp_path))
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_the_log_and_tensorboard_know_the_psnr_of_each_task(pack: Pack, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, steps=2, batch=8)
    cadence = dataclasses.replace(SOON, pictures_every=1)
    network = train_packed(recipe, pack, tmp_path, cadence=cadence)
    (line,) = lines(tmp_path)
    assert line["step"] == 2, "the last step is logged, whatever its number"
    assert {f"psnr_{task}" for task in TASKS} <= set(line)
    assert {"loss", "l1", "balance", "pictures_per_second", "minutes"} <= set(line)
    assert all(4 < line[f"psnr_{task}"] < 45 for task in TASKS)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "psnr/derain"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["degraded_restored_clean"]
    saved = load_checkpoint(tmp_path / "weights.safetensors")
    assert list(saved.task_prompts) == list(network.task_prompts) == ["denoise", "derain", "lowlight"]


def test_a_run_by_the_clock_ends_with_its_minutes_and_its_schedule(
    pack: Pack, tmp_path: Path, half_seconds: HalfSeconds
) -> None:
    rates: list[float] = []
    done: list[float] = []
    cadence = dataclasses.replace(half_seconds.cadence, log_every=1)
    recipe = dataclasses.replace(BY_CLOCK, warmup_steps=1)
    train_packed(
        recipe,
        pack,
        tmp_path,
        minutes=0.1,
        on_step=lambda _, share: done.append(share),
        on_figures=lambda at: rates.append(at.figures["learning_rate"]),
        cadence=cadence,
    )
    assert half_seconds.now == 6 and len(done) == len(rates) == 12
    assert done[-1] == 1 and sorted(done) == done
    assert rates[0] == pytest.approx(recipe.learning_rate) and rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * recipe.learning_rate, "it ends where its schedule does"
    assert lines(tmp_path)[-1]["minutes"] == 0.1


def test_a_step_that_would_end_after_the_run_is_not_begun(
    pack: Pack, tmp_path: Path, half_seconds: HalfSeconds
) -> None:
    train_packed(BY_CLOCK, pack, tmp_path, minutes=2.3 / 60, cadence=half_seconds.cadence)
    assert half_seconds.now == 2
    done = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]
    assert done["step"] == 4 and done["seconds"] == pytest.approx(2.3), "what was too short for it is spent"


def test_where_getting_ready_takes_all_the_time_there_are_weights_all_the_same(
    pack: Pack, tmp_path: Path, half_seconds: HalfSeconds
) -> None:
    def slow(words: str) -> None:
        """Is told how much memory the pack takes, before a step is taken."""
        half_seconds.now += 60

    steps: list[int] = []
    train_packed(
        BY_CLOCK,
        pack,
        tmp_path,
        minutes=0.1,
        on_step=lambda step, _: steps.append(step),
        on_event=slow,
        cadence=half_seconds.cadence,
    )
    assert steps == [1] and load_checkpoint(tmp_path / "weights.safetensors")


def test_a_second_start_goes_on_with_the_time_that_is_left(
    pack: Pack, tmp_path: Path, half_seconds: HalfSeconds
) -> None:
    cadence = dataclasses.replace(half_seconds.cadence, log_every=1, save_seconds=0.0)

    def cut(at: StepFigures) -> None:
        if at.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_packed(BY_CLOCK, pack, tmp_path, minutes=0.1, on_figures=cut, cadence=cadence)
    steps: list[int] = []
    train_packed(
        BY_CLOCK, pack, tmp_path, minutes=0.1, on_figures=lambda at: steps.append(at.step), cadence=cadence
    )
    assert steps == [6, 7, 8, 9, 10, 11, 12], "the time up to the last checkpoint counts"
    done = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]
    assert done["step"] == 12 and done["seconds"] == 6
    again: list[int] = []
    train_packed(
        BY_CLOCK, pack, tmp_path, minutes=0.1, on_step=lambda step, _: again.append(step), cadence=cadence
    )
    assert again == [], "no time is left for a third"


@pytest.mark.parametrize("minutes", [0.1, 0.0, -1.0, math.nan, math.inf])
def test_a_time_too_short_is_refused_with_the_least_that_makes_sense(
    minutes: float, pack: Pack, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"give at least 0\.2$"):
        train_packed(TINY, pack, tmp_path / "run", minutes=minutes)
    assert not (tmp_path / "run").exists()


def test_on_a_gpu_the_least_time_has_room_for_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match="give at least 3"):
        packed_loop.Clock(10, 2.0)


def test_where_memory_runs_out_half_the_batch_goes_on_and_is_remembered(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    sizes: list[int] = []

    def fits_four(given: Tensor, passed: TrainingPass) -> TrainingPass:
        sizes.append(len(given))
        if len(given) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return passed

    change_passes(fits_four)
    recipe = dataclasses.replace(TINY, steps=2, batch=8, save_every=1, steady_weight=0.0)
    heard: list[str] = []

    def cut(at: StepFigures) -> None:
        if at.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_packed(recipe, pack, tmp_path, on_figures=cut, on_event=heard.append, cadence=OFTEN)
    assert heard[1:] == ["memory ran out: going on with 4 crops a step"]
    assert sizes == [8, 4, 4]
    train_packed(recipe, pack, tmp_path, on_event=heard.append, cadence=OFTEN)
    assert sizes == [8, 4, 4, 4] and len(heard) == 3
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["batch"] == 4


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("could not create a primitive")]
)
def test_where_memory_is_too_short_for_any_batch_one_line_says_so(
    error: Exception, pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    def fails(given: Tensor, passed: TrainingPass) -> TrainingPass:
        raise error

    change_passes(fails)
    with pytest.raises(
        TrainingError, match="batch of 4 crops of 128 pixels: lower crop in the recipe, or set"
    ):
        train_packed(dataclasses.replace(TINY, batch=8), pack, tmp_path)


def test_an_error_of_another_kind_is_passed_on(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    def fails(given: Tensor, passed: TrainingPass) -> TrainingPass:
        raise RuntimeError("shapes do not match")

    change_passes(fails)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train_packed(TINY, pack, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler"),  # what TorchDynamoException is
        UnboundLocalError("cannot access local variable 'buf111'"),  # made by PyTorch 2.13 for a CPU
    ],
)
def test_where_compiling_fails_training_goes_on_without(
    error: Exception, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(given: Tensor, noise: Tensor, seen: Tensor | None) -> TrainingPass:
        raise error

    made = packed_loop._Run.__init__

    def on_a_gpu(self: packed_loop._Run, *arguments: object) -> None:
        made(self, *arguments)  # type: ignore[arg-type]
        self.compiles, self.forward = True, fails

    whole = train_packed(dataclasses.replace(TINY, steps=2), pack, tmp_path / "plain")
    monkeypatch.setattr(packed_loop._Run, "__init__", on_a_gpu)
    heard: list[str] = []
    fallen = train_packed(dataclasses.replace(TINY, steps=2), pack, tmp_path / "run", on_event=heard.append)
    assert heard[1].startswith("compiling the network for this GPU")
    assert heard[2].startswith("going on without compiling") and str(error) in heard[2]
    assert same(whole, fallen)


def nan_at(change_passes: Callable[[Change], None], wrong: Callable[[int], bool]) -> list[int]:
    """Makes the pictures of some passes (from 1) no numbers; returns the list that counts them."""
    passes: list[int] = []

    def spoil(given: Tensor, passed: TrainingPass) -> TrainingPass:
        passes.append(len(given))
        return passed._replace(restored=passed.restored * math.nan) if wrong(len(passes)) else passed

    change_passes(spoil)
    return passes


def test_a_step_without_a_finite_loss_is_left_out(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    passes = nan_at(change_passes, lambda number: number in (2, 3))
    seen: list[StepFigures] = []
    network = train_packed(TINY, pack, tmp_path, on_figures=seen.append, cadence=OFTEN)
    assert len(passes) == TINY.steps
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for part in ("network", "average"):
        assert all(tensor.isfinite().all() for tensor in state[part].values())
    assert ["loss" in at.figures for at in seen] == [True, False, False, True, True, True]
    assert all(math.isfinite(value) for at in seen for value in at.figures.values())


def test_a_gradient_that_is_no_number_is_left_out_too(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    def spoil(given: Tensor, passed: TrainingPass) -> TrainingPass:
        steep = (passed.restored * 0).clamp_min(0).sqrt()  # 0, and its slope is not a number
        return passed._replace(restored=passed.restored + steep)

    change_passes(spoil)
    with pytest.raises(TrainingError, match="gave a finite loss"):
        train_packed(TINY, pack, tmp_path, cadence=dataclasses.replace(SOON, most_missed=1))


def test_a_gradient_that_would_leave_nothing_of_all_others_is_left_out(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    passes: list[int] = []

    def louder(given: Tensor, passed: TrainingPass) -> TrainingPass:
        passes.append(len(given))
        if len(passes) != 2:
            return passed
        return passed._replace(balance=passed.balance + 1e6 * passed.restored.square().mean())

    change_passes(louder)
    seen: list[StepFigures] = []
    recipe = dataclasses.replace(TINY, balance_weight=0.01)
    train_packed(recipe, pack, tmp_path, on_figures=seen.append, cadence=OFTEN)
    assert ["loss" in at.figures for at in seen] == [True, False, True, True, True, True]


def test_where_no_step_gives_a_finite_loss_the_run_ends_with_a_line(
    pack: Pack, tmp_path: Path, change_passes: Callable[[Change], None]
) -> None:
    passes = nan_at(change_passes, lambda number: number > 1)
    recipe = dataclasses.replace(TINY, steady_weight=0.0, batch=2)
    with pytest.raises(
        TrainingError, match="no step from 2 on gave a finite loss and a gradient of usual length; lower"
    ) as caught:
        train_packed(recipe, pack, tmp_path, cadence=dataclasses.replace(SOON, most_missed=3))
    assert len(passes) == 1 + 3 + 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2, "steps": 0}, "counts epochs cannot train from a pack; give steps"),
        (
            {"zoom": 0.5, "turns": 7},
            "these entries of the recipe would do nothing: turns, zoom; leave them out",
        ),
        ({"distill_output": 0.5}, "would do nothing: distill_output"),
    ],
)
def test_what_a_pack_cannot_do_is_refused(
    changes: dict[str, object], message: str, pack: Pack, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train_packed(dataclasses.replace(TINY, **changes), pack, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_teachers_and_torchrun_are_refused(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="has no teacher"):
        train_packed(TINY, pack, tmp_path / "run", start=Start(teacher=MEASNet(TINY.config)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start it without torchrun"):
        train_packed(TINY, pack, tmp_path / "run")


def test_recomputing_blocks_changes_no_step(pack: Pack, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, steps=2)
    plain = train_packed(short, pack, tmp_path / "plain").state_dict()
    again = train_packed(dataclasses.replace(short, recompute=True), pack, tmp_path / "again").state_dict()
    assert all(torch.allclose(plain[name], again[name], atol=1e-6) for name in plain)


def test_information_is_nothing_where_all_pictures_think_alike_and_most_where_each_has_its_own_expert() -> (
    None
):
    alike = torch.tensor([[0.7, 0.2, 0.1]]).expand(6, 3)
    assert information(alike).item() == pytest.approx(0, abs=1e-6)
    assert information(torch.eye(4)).item() == pytest.approx(math.log(4), abs=1e-4)
    unsure = torch.full((4, 4), 0.25)
    assert information(unsure).item() == pytest.approx(0, abs=1e-6)
