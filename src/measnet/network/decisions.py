"""Decision points: where the network settles something once for a whole image.

They are the prompt's mixing, the affinities of channel attention, FD's filters, MEE's scores of the experts,
and what gated and frequency blocks sum up. Each comes from means over the image's pixels, or is the largest
of all, so each can also be had from elsewhere: from the whole picture for a tile of it, or from the frames
before. A point is called after its place in the network: ``fd_mee3.high.experts.demand``.
Shapes: B batch, C channels, H W size, P = H*W pixels, h heads, D numbers of all decisions, E of all norms.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.decision_layout import DecisionKind, DecisionLayout, DecisionPart

if TYPE_CHECKING:
    from measnet.network.measnet import MEASNet, MEASNetOutput

UNCOUNTED = 1e4  # less than any feature when subtracted, and still finite in FP16


class Decision(nn.Module):
    """A decision of this kind and shape, as the image itself has it. It has no weights, so it is not
    in checkpoints; its values are called by name, so it is not in the names of a graph's nodes either."""

    def __init__(self, kind: DecisionKind, *shape: int) -> None:
        super().__init__()
        self.kind: DecisionKind = kind
        self.shape = shape

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


class SteeredDecision(Decision):
    """The decision blended with a given one, and the image's own written down, for the pass that is on."""

    def __init__(self, part: DecisionPart) -> None:
        super().__init__(part.kind, *part.shape)
        self.part = part
        self.now: _Pass | None = None

    def mean(self, x: Tensor, keepdim: bool = False) -> Tensor:
        counted = self._counted((x.shape[2], x.shape[3]))
        return (x * counted).mean(dim=(2, 3), keepdim=keepdim) / counted.mean(dim=(2, 3), keepdim=keepdim)

    def peak(self, x: Tensor) -> Tensor:
        counted = self._counted((x.shape[2], x.shape[3]))
        return (x * counted + (counted - 1) * UNCOUNTED).amax(dim=(2, 3), keepdim=True)

    def settle(self, own: Tensor) -> Tensor:
        assert self.now is not None
        flat = own.flatten(1)  # B n
        held, hold = (given[:, self.part.numbers] for given in (self.now.held, self.now.hold))
        self.now.own[self.part.name] = flat
        return (flat * (1 - hold) + held * hold).reshape(own.shape)

    def affinities(self, q: Tensor, k: Tensor, size: tuple[int, int]) -> Tensor:
        assert self.now is not None
        counted = self._counted(size).flatten(2)[:, :, None]  # B 1 1 P
        q, k = q * counted, k * counted
        share = counted.mean(dim=-1)  # B 1 1
        self.now.norms[self.part.name] = torch.cat(
            [((x * x).mean(dim=-1) / share).flatten(1) for x in (q, k)], dim=1
        )  # B 2C
        return self.settle(super().affinities(q, k, size))

    def _counted(self, size: tuple[int, int]) -> Tensor:
        assert self.now is not None
        return F.interpolate(self.now.window, size=size, mode="nearest")


class _Pass:
    """The decisions of one pass: those it is given, and those of its own image, by name."""

    def __init__(self, window: Tensor, held: Tensor, hold: Tensor) -> None:
        self.window, self.held, self.hold = window, held, hold
        self.own: dict[str, Tensor] = {}
        self.norms: dict[str, Tensor] = {}


class SteeredNetwork:
    """A network that takes decisions from outside, one pass at a time; ``network`` itself becomes it."""

    def __init__(self, network: MEASNet) -> None:
        self.network = network
        self.layout = layout_of(network)
        self._points = [SteeredDecision(part) for part in self.layout.parts]
        for point in self._points:
            place, _, name = point.part.name.rpartition(".")
            setattr(network.get_submodule(place), name, point)

    @classmethod
    def of(cls, network: MEASNet) -> SteeredNetwork:
        """One that shares the weights of ``network``, which stays as it is."""
        weights: dict[int, object] = {id(x): x for x in (*network.parameters(), *network.buffers())}
        return cls(copy.deepcopy(network, weights))

    def restore(
        self, image: Tensor, window: Tensor, held: Tensor, hold: Tensor
    ) -> tuple[MEASNetOutput, Tensor, Tensor]:
        """As the network's own, and the decisions of the image itself (B D) and their norms (B E): what was
        used is ``own * (1 - hold) + held * hold``, and norms are the mean square of each channel of every
        query and key, which affinities need to be averaged.

        Args:
            image: B 3 H W in [0, 1].
            window: B 1 H W, 0 or 1: the pixels whose means decide.
            held: B D, decisions from elsewhere, in the order of ``layout``.
            hold: B D, 0 to 1: how much of each is taken from there.
        """
        now = _Pass(window, held, hold)
        for point in self._points:
            point.now = now
        try:
            restoration = self.network.restore(image)
        finally:
            for point in self._points:
                point.now = None
        own = torch.cat([now.own[part.name] for part in self.layout.parts], dim=1)
        norms = [now.norms[part.name] for part in self.layout.parts if part.name in now.norms]
        return restoration, own, torch.cat(norms, dim=1) if norms else own[:, :0]


def layout_of(network: nn.Module) -> DecisionLayout:
    """The decision points of ``network``, in the order in which it comes to them."""
    points = ((name, module) for name, module in network.named_modules() if isinstance(module, Decision))
    return DecisionLayout((name, point.kind, point.shape) for name, point in points)
