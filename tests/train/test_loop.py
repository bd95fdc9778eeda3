"""The loop: exact resume, a teacher, and a clear word when it cannot go on."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from short_training import SOON

from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts
from measnet.config import VARIANTS
from measnet.errors import CheckpointError, OutputError, UsageError
from measnet.network import MEASNet
from measnet.network.pixel_experts import NoisyRouting
from measnet.train import loop
from measnet.train.data.sets import ImageSet
from measnet.train.degradations import DEGRADATIONS
from measnet.train.loop import Start, TrainingError, _losses_and_gradients, learning_rate
from measnet.train.losses import TrainingStep, routing_distance
from measnet.train.optimizer import WeightUpdates
from measnet.train.recipe import Recipe
from measnet.train.task_prompts import is_collapsed

train = functools.partial(loop.train, cadence=SOON)

NARROW = {"width": 8, "blocks": (0, 0, 1, 1), "image_experts": (0, 0, 3), "ffn_expansion": 1.0}
SHORT = Recipe(variant="nano", network=NARROW, steps=4, batch=2, warmup_steps=2, save_every=2)


def state(network: MEASNet) -> dict[str, torch.Tensor]:
    return network.state_dict()


def test_a_run_ends_knowing_what_its_tasks_call_for(clean: ImageSet, tmp_path: Path) -> None:
    tasks = {"denoise15": 0.3, "denoise50": 0.2, "dehaze": 0.4, "keep": 0.1}
    recipe = dataclasses.replace(SHORT, tasks=tasks, steps=1)
    network = train(recipe, [clean], tmp_path, workers=0)
    saved = load_checkpoint(tmp_path / "weights.safetensors")
    assert list(saved.task_prompts) == list(network.task_prompts) == ["dehaze", "denoise"]
    for task, scores in saved.task_prompts.items():
        assert scores == pytest.approx(network.task_prompts[task], abs=1e-4)
    assert saved.task_prompts["dehaze"] != saved.task_prompts["denoise"]
    without = dataclasses.replace(recipe, network=NARROW | {"tspg": False})
    assert train(without, [clean], tmp_path / "no-prompt", workers=0).task_prompts == {}


def test_muon_moves_matrices_wherever_they_lie_in_memory() -> None:
    recipe = dataclasses.replace(SHORT, optimizer="muon", weight_decay=0.0)
    seen = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(16, 24, 3)
        layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
        before = layer.weight.detach().clone()
        updates = WeightUpdates(layer, recipe)
        layer(torch.rand(4, 16, 16, 16)).square().sum().backward()
        gradient = torch.linalg.svdvals(layer.weight.grad.flatten(1))
        assert gradient.max() > 20 * gradient.median()
        updates.step(1e-2)
        seen.append(layer.weight.detach() - before)
        directions = torch.linalg.svdvals(seen[-1].flatten(1))
        assert directions.max() < 2 * directions.median()
        updates.forget_gradients()
        assert layer.weight.grad is None and layer.bias is not None
    torch.testing.assert_close(seen[0], seen[1], atol=2e-4, rtol=0)


def test_routing_that_has_died_can_be_renewed(clean: ImageSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dead = MEASNet(SHORT.config)
    with torch.no_grad():
        assert dead.prompt is not None and dead.pixel_experts1 is not None
        dead.prompt.mixer.bias[5] += 300  # every image has prompt 5 ...
        dead.pixel_experts1.router.scores.zero_()  # ... and every pixel experts 0 and 1
    recipe = dataclasses.replace(SHORT, steps=1, learning_rate=0.0, tasks={"derain": 0.5, "dehaze": 0.5})
    as_it_was = train(recipe, [clean], tmp_path / "dead", start=Start(dead), workers=0)
    assert is_collapsed(as_it_was.task_prompts)
    renewed = train(recipe, [clean], tmp_path / "new", start=Start(dead, renew_routing=True), workers=0)
    assert not is_collapsed(renewed.task_prompts)
    pictures = torch.rand(4, 3, 128, 128) * torch.tensor([0.2, 0.5, 0.8, 1.0])[:, None, None, None]
    pictures[:, :, :64] *= 0.5
    done = renewed.restore(pictures)
    assert done.prompt_weights is not None and done.pixel_routing is not None
    assert done.prompt_weights.max() < 0.9
    shares = torch.bincount(done.pixel_routing.experts[:, 0].flatten(), minlength=4) / (4 * 64 * 64)
    assert shares.max() < 0.9


def test_prompt_and_routers_learn_at_a_rate_of_their_own_and_never_on_muon() -> None:
    for optimizer in ("adamw", "muon"):
        torch.manual_seed(0)
        network = MEASNet(SHORT.config).train()
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        updates = WeightUpdates(network, dataclasses.replace(SHORT, optimizer=optimizer, routing_rate=0.01))
        done = network.forward_training(torch.rand(2, 3, 128, 128))
        (done.restored.square().mean() + done.balance).backward()
        updates.step(1e-2)
        moved = {
            name: (weight.detach() - before[name]).abs().max().item()
            for name, weight in network.named_parameters()
        }
        routing = ("prompt.mixer.weight", "pixel_experts1.router.scores", "fd_mee3.low.experts.scores.weight")
        assert all(0 < moved[name] < 1.1e-4 for name in routing), moved  # AdamW moves by its rate, at most
        assert moved["stem.weight"] > 1e-3


def test_a_run_on_muon_that_is_cut_ends_with_the_same_weights(clean: ImageSet, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, optimizer="muon", steps=3, save_every=1)
    whole = train(recipe, [clean], tmp_path / "whole", workers=0)

    def cut(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, [clean], tmp_path / "cut", workers=0, on_step=cut)
    resumed = train(recipe, [clean], tmp_path / "cut", workers=0)
    assert all(torch.equal(tensor, state(resumed)[name]) for name, tensor in state(whole).items())


def test_a_run_that_is_to_stop_is_saved_behind_its_step(clean: ImageSet, tmp_path: Path) -> None:
    seldom = dataclasses.replace(SHORT, save_every=1000)
    whole = train(seldom, [clean], tmp_path / "whole", workers=0)
    stop, done = threading.Event(), list[int]()

    def ask(step: int, steps: int, figures: dict[str, float]) -> None:
        done.append(step)
        if step == 3:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        train(seldom, [clean], tmp_path / "cut", workers=0, on_step=ask, stop=stop)
    assert stored_facts(tmp_path / "cut/weights.safetensors")["measnet.steps"] == "3"
    resumed = train(seldom, [clean], tmp_path / "cut", workers=0, on_step=ask)
    assert done == [1, 2, 3, 4]
    assert all(torch.equal(tensor, state(resumed)[name]) for name, tensor in state(whole).items())


def test_ctrl_c_ends_a_run_with_workers_tidily(tmp_path: Path, clean: ImageSet) -> None:
    """It reaches them, too."""
    narrow = "width = 8, blocks = [0, 0, 1, 1], image_experts = [0, 0, 3], ffn_expansion = 1.0"
    changes = ["steps=100000", "batch=2", "tasks={denoise15 = 1}", f"network={{{narrow}}}"]
    command = [sys.executable, "-m", "measnet.train", "nano", "--data", str(clean.pairs[0].clean.parent)]
    command += ["--out", str(tmp_path / "run"), *itertools.chain(*(("--set", change) for change in changes))]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "run/log.jsonl").exists():
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        said = running.communicate(timeout=60)[0]
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130 and "Traceback" not in said and "error" not in said
    assert int(stored_facts(tmp_path / "run/weights.safetensors")["measnet.steps"]) >= 50


def test_a_run_cut_in_the_middle_ends_with_the_same_weights(clean: ImageSet, tmp_path: Path) -> None:
    whole = train(SHORT, [clean], tmp_path / "whole", workers=0)

    def cut(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SHORT, [clean], tmp_path / "cut", workers=0, on_step=cut)
    done: list[int] = []
    resumed = train(SHORT, [clean], tmp_path / "cut", workers=0, on_step=lambda s, _, __: done.append(s))
    assert done == [3, 4]
    for name, tensor in state(whole).items():
        assert torch.equal(tensor, state(resumed)[name]), name
    saved = load_checkpoint(tmp_path / "cut" / "weights.safetensors")
    assert all(torch.equal(tensor, state(saved)[name]) for name, tensor in state(whole).items())


def test_a_resume_with_another_recipe_or_start_is_refused(clean: ImageSet, tmp_path: Path) -> None:
    once = dataclasses.replace(SHORT, steps=1)
    train(once, [clean], tmp_path, workers=0)
    with pytest.raises(
        UsageError, match=r"other settings \(learning_rate, steps\).* --init .*weights\.safetensors"
    ):
        train(dataclasses.replace(SHORT, learning_rate=1e-5), [clean], tmp_path, workers=0)
    start = Start(MEASNet(SHORT.config), origin=(("measnet.init", "other.ckpt"),))
    with pytest.raises(UsageError, match=r"other settings \(measnet\.init\)"):
        train(once, [clean], tmp_path, start=start, workers=0)


def test_a_damaged_checkpoint_is_named_and_torchs_advice_to_read_it_unsafely_is_not_passed_on(
    clean: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"cannot resume from .*remove it to start over") as caught:
        train(SHORT, [clean], tmp_path, workers=0)
    assert "weights_only" not in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert "weights_only" not in str(caught.value)


def test_lines_logged_after_the_last_checkpoint_are_not_logged_twice(clean: ImageSet, tmp_path: Path) -> None:
    often = dataclasses.replace(SOON, log_every=1)

    def cut(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SHORT, [clean], tmp_path, workers=0, on_step=cut, cadence=often)
    train(SHORT, [clean], tmp_path, workers=0, cadence=often)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_loss_that_is_not_a_number_stops_with_the_batch_saved(
    clean: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEGRADATIONS, "denoise", lambda rng, picture: picture * np.float32("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        train(dataclasses.replace(SHORT, tasks={"denoise": 1.0}), [clean], tmp_path, workers=0)
    assert torch.load(tmp_path / "bad_batch.pt", weights_only=True)["degraded"].isnan().all()
    assert not (tmp_path / "weights.safetensors").exists()


def test_weights_to_start_from_are_where_the_run_starts(clean: ImageSet, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = MEASNet(SHORT.config)
    still = dataclasses.replace(SHORT, steps=1, learning_rate=0, weight_decay=0)
    ended = train(still, [clean], tmp_path, start=Start(network), workers=0)
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter, dict(ended.named_parameters())[name]), name
    with pytest.raises(UsageError, match="another configuration"):
        train(still, [clean], tmp_path, start=Start(MEASNet(VARIANTS["nano"])), workers=0)


def test_by_their_logarithms_pictures_count_by_their_share_of_error(clean: ImageSet) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 128, 128)
    aims = images + torch.tensor([0.01, 0.4]).reshape(2, 1, 1, 1)
    seen = {}
    for loss in ("l1", "log_l1"):
        step = TrainingStep(MEASNet(SHORT.config), dataclasses.replace(SHORT, loss=loss), None)
        network = step.network
        torch.nn.init.zeros_(network.output.weight)  # it gives back what comes in
        losses = step(images, aims, NoisyRouting(draw=torch.zeros_like), False)
        (gradient,) = torch.autograd.grad(losses["loss"], network.output.weight)
        seen[loss] = losses, gradient
    for losses, _ in seen.values():
        assert losses["l1"].item() == pytest.approx((0.01 + 0.4) / 2, abs=1e-5)
    expected = (np.log(0.01 + 5 / 255) + np.log(0.4 + 5 / 255)) / 2
    balance = SHORT.balance_weight * seen["log_l1"][0]["balance"].item()
    assert seen["log_l1"][0]["loss"].item() == pytest.approx(expected + balance, abs=1e-4)
    assert seen["log_l1"][1].norm() > seen["l1"][1].norm() > 0


def test_a_student_is_pulled_towards_its_teacher(clean: ImageSet) -> None:
    torch.manual_seed(0)
    recipe = dataclasses.replace(SHORT, distill_output=1.0, distill_routing=1.0, balance_weight=0)
    teacher = MEASNet(dataclasses.replace(recipe.config, width=16, pixel_experts=(6, 0, 0)))  # not four
    student = MEASNet(recipe.config).train()
    step = TrainingStep(student, recipe, teacher)
    images = torch.rand(2, 3, 128, 128)
    optimizer = torch.optim.Adam(student.parameters(), 1e-3)
    seen = []
    for _ in range(6):
        losses = step(images, images, NoisyRouting(draw=torch.zeros_like), False)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append((losses["output"].item(), losses["routing"].item()))
    assert student.pixel_experts1 is not None
    assert student.pixel_experts1.router.scores.grad is not None
    assert seen[-1][0] < seen[0][0] and seen[-1][1] < seen[0][1]
    assert all(not name.startswith("_teacher") for name, _ in step.named_parameters())


def test_routing_relations_ignore_the_order_of_experts() -> None:
    torch.manual_seed(0)
    network = MEASNet(SHORT.config).eval()
    done = network.forward_training(torch.rand(2, 3, 128, 128), NoisyRouting(draw=torch.zeros_like))
    assert done.pixel_demand is not None
    shuffled = done._replace(
        pixel_demand=done.pixel_demand.flip(1), image_demands=[d.flip(1) for d in done.image_demands]
    )
    assert routing_distance(done, shuffled).item() == pytest.approx(0, abs=1e-6)
    other = done._replace(pixel_demand=torch.rand_like(done.pixel_demand).softmax(dim=1))
    assert routing_distance(done, other).item() > 1e-4


def test_a_teacher_and_its_weights_belong_together(clean: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add --teacher"):
        train(dataclasses.replace(SHORT, distill_output=0.5), [clean], tmp_path, workers=0)
    with pytest.raises(UsageError, match="both 0"):
        train(SHORT, [clean], tmp_path, start=Start(teacher=MEASNet(SHORT.config)), workers=0)


def test_bf16_keeps_weights_and_losses_in_float32(clean: ImageSet, tmp_path: Path) -> None:
    figures: list[float] = []
    for precision in ("fp32", "bf16"):
        recipe = dataclasses.replace(SHORT, steps=1, precision=precision)
        network = train(
            recipe, [clean], tmp_path / precision, workers=0, on_step=lambda _, __, f: figures.append(f["l1"])
        )
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert figures[0] != figures[1]
    assert figures[0] == pytest.approx(figures[1], rel=0.05)


def test_the_schedule_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(variant="nano", steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step, 100, 100) for step in range(1, 101)]
    assert rates[4] == pytest.approx(0.5)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)


def test_the_released_schedule_steps_per_epoch() -> None:
    recipe = Recipe(variant="nano", epochs=150, schedule="released", learning_rate=2e-4)
    rates = [learning_rate(recipe, epoch * 10 + 1, 1500, 10) for epoch in range(150)]
    assert rates[0] == 0 and rates[14] == pytest.approx(2e-4) and rates[7] == pytest.approx(1e-4)
    assert learning_rate(recipe, 75, 1500, 10) == rates[7]
    assert rates[15] == pytest.approx(2e-4) and rates[97] == pytest.approx(1e-4, rel=0.02)
    assert 0 < rates[149] < 2e-5


def test_a_run_folder_that_cannot_be_written_is_said_before_training(clean: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to the run folder"):
        train(SHORT, [clean], tmp_path / "file" / "run", workers=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_during_a_checkpoint_leaves_the_one_before(clean: ImageSet, tmp_path: Path) -> None:
    train(dataclasses.replace(SHORT, steps=2), [clean], tmp_path / "once", workers=0)
    checkpoint = (tmp_path / "once" / "checkpoint.pt").stat().st_size
    weights = (tmp_path / "once" / "weights.safetensors").stat().st_size
    room = checkpoint + weights + checkpoint // 2  # a second checkpoint beside the first does not fit
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        with pytest.raises(OutputError, match="No space left"):
            train(SHORT, [clean], disk / "run", workers=0)
        kept = torch.load(disk / "run" / "checkpoint.pt", weights_only=True)
        assert kept["step"] == 2
        load_checkpoint(disk / "run" / "weights.safetensors")
        assert not list((disk / "run").glob("*.part"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", True),
        ("could not create a primitive", True),
        ("could not execute a primitive", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lack_of_memory_is_known_by_whoever_complains_of_it(words: str, told: bool) -> None:
    class Hungry(torch.nn.Module):
        def forward(self, *given: object) -> dict[str, torch.Tensor]:
            raise RuntimeError(words)

    batch = torch.zeros(2, 3, 8, 8)
    with pytest.raises(TrainingError if told else RuntimeError, match="memory ran out" if told else words):
        _losses_and_gradients(Hungry(), batch, batch, NoisyRouting(), False, [])


def test_a_step_that_outgrows_memory_says_which_setting_to_lower(pictures: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from measnet.train.cli import main\n"
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))\n"
        "main()\n"
    )
    arguments = ["smoke", "--data", str(pictures), "--out", str(tmp_path / "run"), "--workers", "0"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--set", "batch=64"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "error: memory ran out on a batch of 64 crops of 128 pixels: lower batch or crop" in done.stderr
    assert "Traceback" not in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 1 << 30


def test_checkpoints_of_a_network_of_another_form_can_be_trained(clean: ImageSet, tmp_path: Path) -> None:
    network_changes = {**NARROW, "fd": False, "ensemble": "weighted_sum"}
    recipe = dataclasses.replace(SHORT, steps=1, network=network_changes)
    network = train(recipe, [clean], tmp_path, workers=0)
    assert not network.config.fd and network.config.ensemble == "weighted_sum"
    save_checkpoint(network, tmp_path / "again.safetensors")
    assert load_checkpoint(tmp_path / "again.safetensors").config == network.config
