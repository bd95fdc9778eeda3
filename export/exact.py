"""Rewrites what cannot be exported, exactly: the export form of a MEASNet.

    experts per pixel   every expert answers every pixel; TopK chooses, a scatter puts the gates in place
    experts per image   the chosen experts' weights are gathered, image by image
    FFT and its mask    thin products with cosine and sine matrices, in real numbers

No tensor's shape depends on data, nothing is frozen to an example, and the tensors are the network's own.
Shapes: B batch, C channels, H W size, P = H*W pixels, N experts, K chosen, R inner width of an expert.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.decision_layout import INPUTS, OUTPUTS
from measnet.network import MEASNet
from measnet.network.decisions import SteeredNetwork
from measnet.network.frequency_block import CELL, BandSplit, FrequencyBlock
from measnet.network.image_experts import ImageExpertLayer, ImageRouting, choose_experts
from measnet.network.pixel_experts import (
    PixelExpert,
    PixelExperts,
    PixelRouting,
    StackedExperts,
    gates_of_all,
    stacked_experts,
    weighted_sum_of_all,
)
from measnet.network.transformer import CrossChannelAttention

NOT_CHOSEN = -1e30  # a log-gate so low that exp() of it is 0, and still a finite number


class ExactMEASNet(nn.Module):
    """A MEASNet in its export form: the same tensors, the same results, operators that ONNX has.

    ``static_size`` is the image's (height, width) when the graph is for one size: what that size never
    uses is left out. A ``steerable`` graph also takes image-level decisions and returns its own. The given
    network is not changed.
    """

    def __init__(
        self, network: MEASNet, static_size: tuple[int, int] | None = None, *, steerable: bool = False
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        for level in (2, 3):  # they serve the training loss alone
            setattr(self.network, f"pixel_experts{level}", None)
        _replace(self.network, PixelExperts, ExactPixelExperts)
        _replace(self.network, ImageExpertLayer, ExactImageExpertLayer)
        _replace(self.network, BandSplit, lambda split: ExactBandSplit())
        self.steered = SteeredNetwork(self.network) if steerable else None
        if static_size is not None:
            self._drop_empty_bands(static_size)
        config = network.config
        self.output_names = ["restored"]
        if config.tspg:
            self.output_names.append("prompt_weights")
        if self.network.pixel_experts1 is not None:
            self.output_names.append("pixel_experts")
        if config.mee and config.fd_mee_levels:
            self.output_names.append("image_experts")
        self.input_names = ["image"]
        if steerable:
            self.input_names += INPUTS
            self.output_names += OUTPUTS
        self.eval()

    def forward(
        self,
        image: Tensor,
        window: Tensor | None = None,
        held: Tensor | None = None,
        hold: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """B 3 H W in [0, 1] -> the outputs named in ``output_names``:

        ``restored`` B 3 H W; ``prompt_weights`` B T; ``pixel_experts`` B K h w, uint8, the strongest first;
        ``image_experts`` B S K, uint8, where S counts FD-MEE branches in the order they act.

        A steerable graph also takes what ``SteeredNetwork`` does: ``window`` B 1 H W, ``held`` and ``hold``
        B D; and returns ``decisions`` B D and ``norms`` B E (``measnet.decision_layout`` says what is where).
        """
        steered: tuple[Tensor, ...] = ()
        if self.steered is None:
            restoration = self.network.restore(image)
        else:
            assert window is not None and held is not None and hold is not None
            restoration, own, norms = self.steered.restore(image, window, held, hold)
            steered = own, norms
        outputs = [restoration.restored]
        if restoration.prompt_weights is not None:
            outputs.append(restoration.prompt_weights)
        for chosen in (restoration.pixel_experts(), restoration.image_experts()):
            if chosen is not None:
                outputs.append(chosen)
        return (*outputs, *steered)

    def _drop_empty_bands(self, size: tuple[int, int]) -> None:
        """At this size the masks of small feature maps are empty whatever the thresholds: no low band. Its
        attention stays where it may be held to what others of this size decided."""
        scale = self.network.config.stem_scale
        for level in (2, 3, 4):
            block = getattr(self.network, f"frequency{level}")
            smallest = min(size) // scale >> (level - 1)
            if isinstance(block, FrequencyBlock) and smallest < CELL:
                attention = block.low_attention
                assert isinstance(attention, CrossChannelAttention)
                block.add_module("split", NoLowBand(asked=self.steered is not None))
                if self.steered is None:
                    block.add_module("low_attention", UniformAttention(attention))


class ExactPixelExperts(nn.Module):
    """MESE without dispatch: gates of 0 silence the experts that a pixel did not choose."""

    def __init__(self, module: PixelExperts) -> None:
        super().__init__()
        self.router = module.router
        self.experts = nn.ModuleList()
        self.sum = None if module.ensemble == "logsumexp" else SumOfExperts(module)
        if self.sum is None:
            self.experts.extend(PointwiseExpert(expert, module.activation) for expert in module.experts)

    def forward(self, x: Tensor, prompt: Tensor | None) -> tuple[Tensor, PixelRouting]:
        scores = self.router(x, prompt)  # B N H W
        routing = self.router.choose(scores)
        if self.sum is None:
            return x + self._log_sum_of_all(x, routing, scores), routing
        return x + self.sum(x, gates_of_all(routing, scores.shape[1])), routing

    def _log_sum_of_all(self, x: Tensor, routing: PixelRouting, scores: Tensor) -> Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)  # B N C H W
        silent = torch.full_like(scores, NOT_CHOSEN)
        gates = silent.scatter(1, routing.experts, routing.log_gates)[:, :, None]  # B N 1 H W
        # The largest term is taken out, so exp() never overflows in any precision.
        terms = answers + gates  # B N C H W
        peak = terms.amax(dim=1, keepdim=True)  # B 1 C H W
        joint: Tensor = (terms - peak).exp().sum(dim=1).log() + peak[:, 0]  # B C H W
        return joint


class SumOfExperts(nn.Module):
    """The weighted sum of all experts in two products. A module of its own: 16 bits are enough for it."""

    def __init__(self, module: PixelExperts) -> None:
        super().__init__()
        self.activation = module.activation
        for name, tensor in stacked_experts(module)._asdict().items():
            self.register_buffer(name, tensor.detach())

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        stacked = StackedExperts(*(self.get_buffer(name) for name in StackedExperts._fields))
        return weighted_sum_of_all(x, gates, *stacked, self.activation)


class PointwiseExpert(nn.Module):
    """A pixel expert as 1x1 convolutions: the same MLP, on B C H W."""

    def __init__(self, expert: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        assert isinstance(expert, PixelExpert)
        self.activation = activation
        self.expand = _as_convolution(expert.expand)
        self.project = _as_convolution(expert.project)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.activation(self.expand(x)))


class ExactImageExpertLayer(nn.Module):
    """MEE by gathering the weights of each image's experts and applying them in one product.

    Experts differ in inner width; the narrower ones are filled up with zeros, which add nothing.
    """

    features_weight: Tensor  # N R C
    features_bias: Tensor  # N R
    context_weight: Tensor  # N R C
    context_bias: Tensor  # N R
    widen_weight: Tensor  # N C R
    widen_bias: Tensor  # N C

    def __init__(self, layer: ImageExpertLayer) -> None:
        super().__init__()
        self.scores = layer.scores
        self.demand = layer.demand
        self.top_k = layer.top_k
        self.bound = layer.bound
        widest = max(len(expert.get_parameter("narrow_features.bias")) for expert in layer.experts)
        self.register_buffer("features_weight", _stacked(layer, "narrow_features.weight", 0, widest))
        self.register_buffer("features_bias", _stacked(layer, "narrow_features.bias", 0, widest))
        self.register_buffer("context_weight", _stacked(layer, "narrow_context.weight", 0, widest))
        self.register_buffer("context_bias", _stacked(layer, "narrow_context.bias", 0, widest))
        self.register_buffer("widen_weight", _stacked(layer, "widen.weight", 1, widest))
        self.register_buffer("widen_bias", _stacked(layer, "widen.bias"))

    def forward(self, features: Tensor, context: Tensor) -> tuple[Tensor, ImageRouting]:
        routing = choose_experts(features, self.scores, self.top_k, self.demand)
        batch, channels, height, width = features.shape
        narrow_features = _narrowed(features, routing.experts, self.features_weight, self.features_bias)
        narrow_context = _narrowed(context, routing.experts, self.context_weight, self.context_bias)
        inner = self.bound(narrow_features) * self.bound(narrow_context)  # B K*R P
        gates = routing.gates[:, :, None, None]  # B K 1 1
        weight = _chosen(self.widen_weight, routing.experts) * gates  # B K C R
        weight = weight.transpose(1, 2).flatten(2)  # B C K*R
        bias = _chosen(self.widen_bias, routing.experts) * gates[:, :, 0]  # B K C
        bias = bias.sum(dim=1)[:, :, None]  # B C 1
        answer = weight @ inner + bias  # B C P
        return features + answer.view(batch, channels, height, width), routing


def _chosen(tensor: Tensor, experts: Tensor) -> Tensor:
    """The rows of ``tensor`` (N ...) that each image chose (B K): B K ..."""
    return tensor.index_select(0, experts.flatten()).view(*experts.shape, *tensor.shape[1:])


def _narrowed(x: Tensor, experts: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` (B C H W) through the chosen experts' (B K) first layer, ``weight`` (N R C): B K*R P."""
    out: Tensor = _chosen(weight, experts).flatten(1, 2) @ x.flatten(2)
    return out + _chosen(bias, experts).flatten(1)[:, :, None]


class ExactBandSplit(nn.Module):
    """The frequency split without an FFT.

    At most ``2 * (side // 128)`` frequencies of a side can pass the mask, so the low band is a product with
    that many cosines and sines each way, and by linearity the high band is the input minus it.
    """

    def forward(self, r: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        height, width = r.shape[2:]
        row_cos, row_sin, keep_rows = self._waves(height, thresholds[:, 0:1])  # F H, F H, B F
        col_cos, col_sin, keep_cols = self._waves(width, thresholds[:, 1:2])  # G W, G W, B G

        # Analysis: spectrum = (cos - i sin) rows . r . (cos - i sin) columns, of the few frequencies.
        r_cos, r_sin = r @ col_cos.t(), r @ col_sin.t()  # each B C H G
        real = row_cos @ r_cos - row_sin @ r_sin  # B C F G
        imag = -(row_cos @ r_sin) - row_sin @ r_cos
        mask = keep_rows[:, None, :, None] * keep_cols[:, None, None, :] / (height * width)  # B 1 F G
        real, imag = real * mask, imag * mask

        # Synthesis: the same with the opposite sign, one side after the other.
        row_cos, row_sin = row_cos.t(), row_sin.t()  # H F
        real, imag = row_cos @ real - row_sin @ imag, row_cos @ imag + row_sin @ real  # B C H G
        low_real = real @ col_cos - imag @ col_sin  # B C H W
        low_imag = real @ col_sin + imag @ col_cos
        high_real = r - low_real
        low = (low_real * low_real + low_imag * low_imag).sqrt()
        high = (high_real * high_real + low_imag * low_imag).sqrt()
        return low, high

    @staticmethod
    def _waves(side: int, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines and sines of the frequencies that can pass (F side), and which do (B F, 0 or 1)."""
        cells = side // CELL
        # At least one, kept out by the mask where there is none.
        half = torch.sym_max(cells, 1)
        frequency = torch.arange(2 * half, device=threshold.device) - half  # F
        position = torch.arange(side, device=threshold.device)  # side
        # The phase is reduced in whole numbers first: float32 angles stay exact at any size.
        period = position.new_full((1,), side)
        steps = (frequency[:, None] * position).remainder(period)  # F side
        angle = steps.to(torch.float32) * (2 * math.pi / period.to(torch.float32))
        m = (threshold * cells).floor()  # B 1
        kept = torch.logical_and(frequency >= -m, frequency < m)  # B F
        return angle.cos(), angle.sin(), kept.to(torch.float32)


class NoLowBand(nn.Module):
    """The frequency split where no frequency can pass: everything is high. The low band is zeros where it is
    ``asked`` for, and has no tensor elsewhere."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked

    def forward(self, r: Tensor, thresholds: Tensor) -> tuple[Tensor | None, Tensor]:
        return torch.zeros_like(r) if self.asked else None, r.abs()


class UniformAttention(nn.Module):
    """Cross attention asked by zeros: every score is 0, so the answer is the mean value of each head."""

    def __init__(self, attention: CrossChannelAttention) -> None:
        super().__init__()
        channels = attention.q.out_channels
        self.heads = attention.temperature.shape[0]
        self.v = nn.Conv2d(channels, channels, 1, bias=False)
        self.v_depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.v.weight = nn.Parameter(attention.kv.weight[channels:], requires_grad=False)
        self.v_depthwise.weight = nn.Parameter(attention.kv_depthwise.weight[channels:], requires_grad=False)
        self.project = attention.project

    def forward(self, asking: None, answering: Tensor) -> Tensor:
        v = self.v_depthwise(self.v(answering))  # B C H W
        batch, channels, height, width = v.shape
        heads = v.view(batch, self.heads, channels // self.heads, height, width)
        mean = heads.mean(dim=2, keepdim=True).expand_as(heads)
        return self.project(mean.reshape(batch, channels, height, width))


def _replace(root: nn.Module, old: type[nn.Module], rewrite: Callable[[Any], nn.Module]) -> None:
    for name, child in list(root.named_children()):
        if isinstance(child, old):
            setattr(root, name, rewrite(child))
        else:
            _replace(child, old, rewrite)


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(linear.in_features, linear.out_features, 1)
    convolution.weight = nn.Parameter(linear.weight[:, :, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(linear.bias, requires_grad=False)
    return convolution


def _stacked(layer: ImageExpertLayer, name: str, axis: int = 0, widest: int = 0) -> Tensor:
    """One tensor of all N experts, zeros appended along ``axis`` up to ``widest``; kernels as matrices."""
    filled = []
    for expert in layer.experts:
        tensor = expert.get_parameter(name).detach()
        tensor = tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
        padding = [0, 0] * tensor.ndim
        padding[2 * (tensor.ndim - 1 - axis) + 1] = max(0, widest - tensor.shape[axis])
        filled.append(F.pad(tensor, padding))
    return torch.stack(filled)
