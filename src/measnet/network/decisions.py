"""Image-level decisions: what the network settles once for a whole image.

They are the prompt's mixing, the affinities of channel attention, FD's filters, MEE's scores of the experts,
and what the frequency blocks sum up. Each comes from means over the image's pixels, or is the largest of all,
so each can also be had from elsewhere: from the whole picture for a tile of it, or from the frames before.
Shapes: B batch, C channels, H W size, P = H*W pixels, h heads, D numbers of all decisions, E of all norms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Decisions:
    """Every decision as the image itself has it: how the network works by itself."""

    def mean(self, x: Tensor, keepdim: bool = False) -> Tensor:
        """B C H W -> B C, or B C 1 1: the mean over the pixels that count."""
        return x.mean(dim=(2, 3), keepdim=keepdim)

    def peak(self, x: Tensor) -> Tensor:
        """B C H W -> B C 1 1: the largest of the pixels that count."""
        return x.amax(dim=(2, 3), keepdim=True)

    def settle(self, own: Tensor) -> Tensor:
        """The image's own decision (B ...) -> the decision that is used, of the same shape."""
        return own

    def affinities(self, q: Tensor, k: Tensor, size: tuple[int, int]) -> Tensor:
        """Cosines between channels: two times B h C/h P, of features of ``size`` (H, W) -> B h C/h C/h."""
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)


OWN = Decisions()

UNCOUNTED = 1e4  # less than any feature when subtracted, and still finite in FP16


class SteeredDecisions(Decisions):
    """One pass with decisions blended with given ones, and the image's own written down.

    Args:
        window: B 1 H W of the image, 0 or 1: the pixels whose means decide.
        held: B D, decisions from elsewhere, in the order of ``measnet.decisions``.
        hold: B D, 0 to 1: how much of each is taken from there.
    """

    def __init__(self, window: Tensor, held: Tensor, hold: Tensor) -> None:
        self._window = window
        self._held = held
        self._hold = hold
        self._own: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._next = 0

    def mean(self, x: Tensor, keepdim: bool = False) -> Tensor:
        counted = self._counted((x.shape[2], x.shape[3]))
        return (x * counted).mean(dim=(2, 3), keepdim=keepdim) / counted.mean(dim=(2, 3), keepdim=keepdim)

    def peak(self, x: Tensor) -> Tensor:
        counted = self._counted((x.shape[2], x.shape[3]))
        return (x * counted + (counted - 1) * UNCOUNTED).amax(dim=(2, 3), keepdim=True)

    def settle(self, own: Tensor) -> Tensor:
        flat = own.flatten(1)  # B n
        first, self._next = self._next, self._next + flat.shape[1]
        held, hold = (given[:, first : self._next] for given in (self._held, self._hold))
        self._own.append(flat)
        return (flat * (1 - hold) + held * hold).reshape(own.shape)

    def affinities(self, q: Tensor, k: Tensor, size: tuple[int, int]) -> Tensor:
        counted = self._counted(size).flatten(2)[:, :, None]  # B 1 1 P
        q, k = q * counted, k * counted
        share = counted.mean(dim=-1)  # B 1 1
        self._norms += [((x * x).mean(dim=-1) / share).flatten(1) for x in (q, k)]  # each B C
        return self.settle(super().affinities(q, k, size))

    def own(self) -> Tensor:
        """B D: what the image said, of the pass that is done. What held is ``own * (1 - hold) + held *
        hold``."""
        return torch.cat(self._own, dim=1)

    def norms(self) -> Tensor:
        """B E: the mean square of each channel of every query and key, which affinities need to be
        averaged."""
        return torch.cat(self._norms, dim=1) if self._norms else self._own[0][:, :0]

    def _counted(self, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self._window, size=size, mode="nearest")
