"""How much memory a training step takes, beside what ``measnet-train`` expects it to.

    python bench/training_memory.py nano,8,128 small,4,128 three-task,2,64 three-task,2,128,recompute=true
"""

from __future__ import annotations

import subprocess
import sys


def measure(name: str, batch: str, crop: str, *changes: str) -> None:
    """Takes two steps in this process, and prints its peak."""
    import copy
    import resource

    import torch

    from measnet.network import MEASNet
    from measnet.network.pixel_experts import NoisyRouting
    from measnet.train.losses import TrainingStep
    from measnet.train.optimizer import WeightUpdates
    from measnet.train.recipe import read_recipe
    from measnet.train.steadiness import looks_at
    from measnet.train.step_memory import step_bytes

    recipe = read_recipe(name, [*changes, f"batch={batch}", f"crop={crop}"])
    network = MEASNet(recipe.config).train()
    network.recompute_blocks(recipe.recompute)
    average = copy.deepcopy(network)
    updates, step = WeightUpdates(network, recipe), TrainingStep(network, recipe, None)
    clean = torch.rand(recipe.batch, 3, recipe.crop, recipe.crop)
    for number in range(2):
        updates.forget_gradients()
        looks = looks_at(recipe.seed, number * recipe.batch, recipe.batch)
        step(clean * 0.9, clean, NoisyRouting(draw=torch.zeros_like), False, looks)["loss"].backward()
        updates.step(1e-4)
    del average
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    expected = step_bytes(recipe, recipe.batch)
    print(f"| {name} {' '.join(changes)} | {batch} × {crop} | {peak / 1e9:.2f} | {expected / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        measure(*sys.argv[2:])
    else:
        print("| recipe | crops | peak, GB | expected, GB |\n|---|---|---|---|", flush=True)
        for asked in sys.argv[1:]:
            subprocess.run([sys.executable, __file__, "--one", *asked.split(",")], check=True)
