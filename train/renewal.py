"""Makes prompt and pixel router anew, in a network in which they no longer decide anything.

A softmax that has run into its end passes no gradient, so a prompt that is the same for every image, or
experts that are the same for every pixel, stay so. The experts themselves are none the worse: noisy routing
has sent pixels to all of them. So the prompt begins again as it was for every image, differing a little by
what pictures have in them, and the router prefers no expert on average, but each for other pixels.
Shapes: I pictures, T basic prompts, M prompt length, C channels, P pixels, N experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from measnet.network import MEASNet
from measnet.network.pixel_experts import PixelRouter
from measnet.network.prompt import PromptGenerator
from measnet.train.data.crops import TrainingCrops

PICTURES = 96
DIRECTIONS = 5  # in which the prompt's features differ most, from picture to picture
SCORE = 0.7  # standard deviation of a basic prompt's score over pictures
SPREAD = 0.7  # of basic prompts around the one that all pictures had


def renew_routing(network: MEASNet, crops: TrainingCrops, seed: int = 0) -> None:
    """Changes ``network`` in place, by pictures of ``crops``; without TSPG and MESE nothing is to renew."""
    torch.manual_seed(seed)
    samples = crops.only(crops.draws, PICTURES)
    pictures = torch.stack([samples[number][0] for number in range(PICTURES)])
    with torch.no_grad():
        prompts = None if network.prompt is None else _renewed_prompts(network.prompt, pictures)
        if network.pixel_experts1 is not None:
            features = network.embed(pictures).permute(1, 0, 2, 3).flatten(1)  # C P
            _renew_router(network.pixel_experts1.router, features, prompts)


def _renewed_prompts(generator: PromptGenerator, pictures: Tensor) -> Tensor:
    """The prompts of ``pictures`` (I 3 H W) once the generator is renewed: I M."""
    usual = generator(pictures)[0].mean(dim=0) @ generator.basic_prompts  # M
    generator.features.load_state_dict(PromptGenerator().features.state_dict())
    means = generator.features(pictures).mean(dim=(2, 3))  # I T
    centre = means.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(means - centre, full_matrices=False)
    deviations = sizes[:DIRECTIONS] / math.sqrt(len(pictures))
    # Directions in which pictures hardly differ are not blown up to the size of the others.
    directions = directions[:DIRECTIONS] / deviations.clamp(min=deviations[0] / 25)[:, None]
    mix = torch.randn(len(generator.basic_prompts), DIRECTIONS) @ directions  # T T
    mix *= SCORE / ((means - centre) @ mix.t()).std(dim=0).mean()
    generator.mixer.weight.copy_(mix)
    generator.mixer.bias.copy_(-mix @ centre)
    generator.basic_prompts.copy_(usual + torch.randn_like(generator.basic_prompts) * SPREAD)
    return generator(pictures)[1]


def _renew_router(router: PixelRouter, features: Tensor, prompts: Tensor | None) -> None:
    channels, experts = features.shape[0], router.scores.shape[1]
    scores = torch.zeros_like(router.scores)
    centre = features.mean(dim=1, keepdim=True)  # C 1
    spread, directions = torch.linalg.eigh((features - centre) @ (features - centre).t() / features.shape[1])
    white = directions / spread.clamp(min=spread[-1] * 1e-3).sqrt()  # C C
    scores[:channels] = _impartial(white @ torch.randn(channels, experts), features.t(), 1.0)
    if prompts is not None and router.prompt_to_channels is not None:
        shown = router.prompt_to_channels(prompts)  # I C
        scores[channels:] = _impartial(torch.randn(channels, experts), shown, SCORE)
    router.scores.copy_(scores)
    router.noise.zero_()


def _impartial(weights: Tensor, rows: Tensor, deviation: float) -> Tensor:
    """C N such that no expert's score over ``rows`` (any C) has a mean, and all have this deviation."""
    centre = rows.mean(dim=0)
    weights = weights - torch.outer(centre, centre @ weights) / (centre @ centre).clamp(min=1e-12)
    return weights * (deviation / (rows @ weights).std(dim=0).clamp(min=1e-12))
