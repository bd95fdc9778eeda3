"""The memory of a training step is known before it: counted without content, as the step itself keeps it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.processes import Processes
from measnet.train.recipe import Recipe
from measnet.train.step_memory import check_step, kept_by, step_bytes


def really_kept(network: MEASNet, crops: int, side: int) -> int:
    """Bytes that a pass with content keeps for the backward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        passed = network.forward_training(
            torch.rand(crops, 3, side, side), NoisyRouting(draw=torch.randn_like)
        )
    assert passed.restored.grad_fn is not None
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("variant", ["nano", "small", "base"])
@pytest.mark.parametrize("ask_all", [False, True])
def test_what_is_counted_is_what_a_pass_keeps(variant: str, ask_all: bool) -> None:
    recipe = Recipe(variant=variant, network={"width": 16 if variant == "base" else 8}, steps=1)
    network = MEASNet(recipe.config).train()
    network.ask_all_experts(ask_all)
    side = recipe.config.size_rule.minimum
    really = really_kept(network, 2, side)
    counted = kept_by(network.to("meta"), 2, side)
    # Every image is taken to be given to all image experts: a little more than happens.
    assert 0.98 * really < counted.outside + counted.inside < 1.15 * really
    assert 0 < counted.largest < counted.inside


def test_it_grows_with_the_batch_and_shrinks_where_blocks_are_recomputed() -> None:
    def needed(**changes: Any) -> int:
        recipe = Recipe(variant="small", steps=1, **changes)
        return step_bytes(recipe, recipe.batch)

    assert needed(batch=4) < needed(batch=8) < needed(batch=8, steady_weight=0.1)
    assert needed(batch=8, recompute=True) < needed(batch=8)


@pytest.mark.parametrize(("world", "refused"), [(1, False), (4, True)])
def test_processes_on_one_cpu_share_its_memory(
    world: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(variant="small", steps=1, batch=8)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    try:
        check_step(recipe, Processes(), free_on=lambda device: step_bytes(recipe, 8) + 1)
    except UsageError as error:
        assert refused and "a step on 2 crops" in str(error)
    else:
        assert not refused


@pytest.mark.parametrize(
    ("precision", "share", "refused"), [("fp32", 0.9, True), ("auto", 0.9, False), ("auto", 0.4, True)]
)
def test_a_gpu_is_asked_how_much_it_has(precision: Any, share: float, refused: bool) -> None:
    recipe = Recipe(variant="small", steps=1, batch=8, precision=precision)
    free = round(step_bytes(recipe, 8) * share)
    gpu = SimpleNamespace(device=torch.device("cuda"), world=1, part_of=lambda batch: batch)
    try:
        check_step(recipe, cast(Processes, gpu), free_on=lambda device: free)
    except UsageError as error:
        assert refused and "GB of the GPU" in str(error)
    else:
        assert not refused
    check_step(
        recipe, cast(Processes, gpu), packed=True, free_on=lambda device: free
    )  # goes on with smaller batches by itself
