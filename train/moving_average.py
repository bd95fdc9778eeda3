"""The moving average of the weights, which is what a run saves for use."""

from __future__ import annotations

import torch

from measnet.network import MEASNet


class MovingAverage:
    """Moves the weights of ``average`` towards those of ``network``, in place.

    The tensors are found once: whoever replaces them later makes another average.
    """

    def __init__(self, average: MEASNet, network: MEASNet, decay: float) -> None:
        ours, theirs = average.state_dict(), network.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        self._ours = [ours[name] for name in floating]
        self._theirs = [theirs[name] for name in floating]
        self._decay = decay

    def follow(self, step: int) -> None:
        """Takes in the weights after ``step`` (from 1)."""
        decay = min(self._decay, step / (step + 10))  # the first steps count less than they otherwise would
        torch._foreach_lerp_(self._ours, self._theirs, 1 - decay)
