"""MESE, experts chosen for every pixel (section III-B2, eqs. 2-6).

Shapes: B batch, C channels, H W size, P = B*H*W pixels, N experts, K chosen, M prompt length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import PROMPT_LENGTH, Ensemble


class PixelRouting(NamedTuple):
    """The router's choice of experts, and their weights."""

    experts: Tensor
    """B K H W, int64: the chosen experts of each pixel, the strongest first."""

    log_gates: Tensor
    """B K H W: logarithm of the weight of each chosen expert; weights of a pixel sum to 1."""


Balance = Literal["released", "paper"]


class NoisyRouting(NamedTuple):
    """The noise of routing in training, and the sums over processes that it needs."""

    draw: Callable[[Tensor], Tensor] = torch.randn_like
    """Standard normal noise in the shape of the scores, B N H W."""

    total: Callable[[Tensor], Tensor] = lambda amounts: amounts
    """Sums amounts over all processes that share a batch; one process has them all."""

    balance: Balance = "released"
    """The released code's balance loss, or eq. 6 as the paper prints it."""


class PixelExpert(nn.Module):
    """The layers of one expert, an MLP on a pixel's channels; ``PixelExperts`` puts in the activation."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)


class PixelRouter(nn.Module):
    """Scores the experts for every pixel from its features and the image's prompt (eq. 2).

    The scores are ``[f, d] . w``, features first; the prompt's half is the same for all pixels of an
    image, so it is computed once per image.
    """

    def __init__(self, channels: int, experts: int, top_k: int, prompted: bool) -> None:
        super().__init__()
        rows = channels * 2 if prompted else channels
        self.prompt_to_channels = nn.Linear(PROMPT_LENGTH, channels) if prompted else None
        self.scores = nn.Parameter(torch.zeros(rows, experts))  # p_e: 2C N
        self.noise = nn.Parameter(torch.zeros(rows, experts))  # 2C N, acts in training only
        self.top_k = top_k
        nn.init.normal_(self.scores, std=1 / math.sqrt(rows))

    def forward(self, x: Tensor, prompt: Tensor | None) -> Tensor:
        """Scores of the experts, B N H W."""
        return self._project(x, prompt, self.scores)

    def noise_scale(self, x: Tensor, prompt: Tensor | None) -> Tensor:
        """Standard deviation of the noise that training adds to the scores, B N H W."""
        return F.softplus(self._project(x, prompt, self.noise)) + 0.01

    def _project(self, x: Tensor, prompt: Tensor | None, weight: Tensor) -> Tensor:
        channels = x.shape[1]
        scores = F.conv2d(x, weight[:channels].t()[:, :, None, None])  # B N H W
        if self.prompt_to_channels is None:
            return scores
        d = self.prompt_to_channels(prompt)  # B C
        return scores + (d @ weight[channels:])[:, :, None, None]

    def choose(self, scores: Tensor) -> PixelRouting:
        """The K best experts of each pixel; their weights are a softmax over those K alone."""
        best, experts = scores.topk(self.top_k, dim=1)  # B K H W
        # A log-softmax over the channels, in steps: as one, ONNX Runtime transposes for it, 20 times as long.
        below = best - best[:, :1]
        return PixelRouting(experts, below - below.exp().sum(dim=1, keepdim=True).log())


class PixelExperts(nn.Module):
    """Sends every pixel through its K best experts and joins their answers."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        experts: int,
        top_k: int,
        *,
        prompted: bool = True,
        ensemble: Ensemble = "logsumexp",
        activation: Callable[[Tensor], Tensor] = F.gelu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.router = PixelRouter(channels, experts, top_k, prompted)
        self.experts = nn.ModuleList(PixelExpert(channels, hidden) for _ in range(experts))
        self.ensemble = ensemble
        self.ask_all = False
        """True where training computes every expert for every pixel, as the export form does: more work, but
        of one shape, which GPUs and compilers prefer. The results differ by rounding alone."""

    def begin_quietly(self, share: float) -> None:
        """Scales the experts' answers to ``share`` of their usual size, before training: experts drawn by
        chance, and chosen by chance, are noise on the first features."""
        with torch.no_grad():
            for expert in cast(Iterable[PixelExpert], self.experts):
                expert.project.weight.mul_(share)
                nn.init.zeros_(expert.project.bias)

    def forward(self, x: Tensor, prompt: Tensor | None) -> tuple[Tensor, PixelRouting]:
        """B C H W -> the same shape, and who did it."""
        routing = self.router.choose(self.router(x, prompt))
        return x + self.join(x, routing), routing

    def forward_training(
        self, x: Tensor, prompt: Tensor | None, noisy: NoisyRouting
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As ``forward`` with noisy routing.

        Returns the features, the balance loss (a scalar), what the router thinks of every expert (B N H W, a
        softmax without the noise), and how large its scores are (a scalar: the z-loss).
        """
        scores = self.router(x, prompt).float()  # B N H W; choices want more than 16 bits
        scale = self.router.noise_scale(x, prompt).float()  # B N H W
        noisy_scores = scores + noisy.draw(scores) * scale
        routing = self.router.choose(noisy_scores)
        out = x + self.join(x, routing)
        demand = scores.softmax(dim=1)  # W_i of eq. 2
        size = scores.logsumexp(dim=1).square().mean()
        if noisy.balance == "paper":
            return out, balance_loss_of_the_paper(demand, routing), demand, size
        return out, balance_loss(scores, noisy_scores, scale, routing, noisy.total), demand, size

    def join(self, x: Tensor, routing: PixelRouting) -> Tensor:
        """The chosen experts' joint answer, B C H W.

        In the exponential domain of the released code, ``log(sum_k g_k exp(E_k(f)))``, written so that
        it neither overflows nor underflows; or the paper's ``sum_k g_k E_k(f)`` (eq. 3).
        """
        batch, channels, height, width = x.shape
        if self.ask_all and self.ensemble == "weighted_sum":
            gates = gates_of_all(routing, len(self.experts)).to(x.dtype)
            return weighted_sum_of_all(x, gates, *stacked_experts(self), self.activation)
        top_k = routing.experts.shape[1]
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)  # P C
        chosen = routing.experts.permute(0, 2, 3, 1).reshape(-1, top_k)  # P K
        log_gates = routing.log_gates.permute(0, 2, 3, 1).reshape(-1, top_k, 1)  # P K 1

        # Sorting the P*K (pixel, expert) pairs by expert gives each expert one run of rows.
        order = chosen.flatten().argsort(stable=True)  # P*K
        rows = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        runs = pixels[order // top_k].split(rows)
        experts = cast(Iterable[PixelExpert], self.experts)
        # One activation for all: on a CPU PyTorch compiles it anew for every number of rows, and keeps that.
        hidden = self.activation(
            torch.cat([expert.expand(run) for expert, run in zip(experts, runs, strict=True)])
        )
        answers = torch.cat(
            [expert.project(run) for expert, run in zip(experts, hidden.split(rows), strict=True)]
        )
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        answers = answers[back].view(-1, top_k, channels)  # P K C

        if self.ensemble == "logsumexp":
            joint = (answers + log_gates).logsumexp(dim=1)  # P C
        else:
            joint = (answers * log_gates.exp()).sum(dim=1)  # P C, eq. 3
        return joint.view(batch, height, width, channels).permute(0, 3, 1, 2)


class StackedExperts(NamedTuple):
    """All experts' layers side by side: N experts of hidden width R."""

    expand_weight: Tensor
    """N*R C 1 1."""

    expand_bias: Tensor
    """N*R."""

    project_weight: Tensor
    """C N*R 1 1."""

    project_bias: Tensor
    """C N 1 1."""

    spread: Tensor
    """N*R N 1 1, 0 or 1: brings an expert's gate to its own hidden channels."""


def stacked_experts(module: PixelExperts) -> StackedExperts:
    experts = list(cast(Iterable[PixelExpert], module.experts))
    hidden = experts[0].expand.out_features
    own = torch.eye(len(experts), device=experts[0].expand.weight.device)
    return StackedExperts(
        torch.cat([expert.expand.weight for expert in experts])[:, :, None, None],
        torch.cat([expert.expand.bias for expert in experts]),
        torch.cat([expert.project.weight for expert in experts], dim=1)[:, :, None, None],
        torch.stack([expert.project.bias for expert in experts], dim=1)[:, :, None, None],
        own.repeat_interleave(hidden, dim=0)[:, :, None, None],
    )


def gates_of_all(routing: PixelRouting, experts: int) -> Tensor:
    """B N H W: the weight of each expert at each pixel, 0 of those that it did not choose."""
    batch, _, height, width = routing.experts.shape
    none = routing.log_gates.new_zeros(batch, experts, height, width)
    return none.scatter(1, routing.experts, routing.log_gates.exp())


def weighted_sum_of_all(
    x: Tensor,
    gates: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    spread: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """Eq. 3 with every expert at every pixel (``gates_of_all``, B N H W).

    The gates act on the hidden channels, which is the same and keeps all experts in two products.
    """
    hidden = activation(F.conv2d(x, expand_weight, expand_bias)) * F.conv2d(gates, spread)  # B N*R H W
    return F.conv2d(hidden, project_weight) + F.conv2d(gates, project_bias)  # B C H W


def balance_loss(
    scores: Tensor,
    noisy: Tensor,
    scale: Tensor,
    routing: PixelRouting,
    total: Callable[[Tensor], Tensor] = lambda amounts: amounts,
) -> Tensor:
    """The imbalance in the use of experts (eqs. 4-6, in the released code's form; a scalar).

    The importance of an expert is the sum of its weights (eq. 4). Its load is the number of pixels
    expected to choose it if the noise were drawn again: a differentiable eq. 5, from Shazeer et al.,
    "Outrageously Large Neural Networks", 2017, appendix A.
    """
    top_k = routing.experts.shape[1]
    gates = torch.zeros_like(scores).scatter(1, routing.experts, routing.log_gates.exp())  # B N H W
    importance = gates.sum(dim=(0, 2, 3))  # N

    best = noisy.topk(top_k + 1, dim=1).values  # B K+1 H W
    bar_if_chosen, bar_if_not = best[:, top_k:], best[:, top_k - 1 : top_k]  # B 1 H W
    bar = torch.where(noisy > bar_if_chosen, bar_if_chosen, bar_if_not)  # B N H W
    load = torch.special.ndtr((scores - bar) / scale).sum(dim=(0, 2, 3))  # N
    return squared_variation(total(importance)) + squared_variation(total(load))


def balance_loss_of_the_paper(demand: Tensor, routing: PixelRouting) -> Tensor:
    """Eqs. 4-6 as printed, a mean over the images of the batch (a scalar).

    S sums the whole softmax (``demand``, B N H W), not only the chosen experts' part. The counts of eq. 5
    pass no gradient: they can only report. Each term is a standard deviation over a squared mean.
    """
    chosen = torch.zeros_like(demand).scatter(1, routing.experts, 1.0)  # B N H W
    loss = demand.new_zeros(())
    for amounts in (demand.sum(dim=(2, 3)), chosen.sum(dim=(2, 3))):  # eq. 4, eq. 5: B N
        loss = loss + (amounts.std(dim=1) / (amounts.mean(dim=1) ** 2 + 1e-10)).mean()
    return loss


def squared_variation(amounts: Tensor) -> Tensor:
    """Squared coefficient of variation of N amounts: unbiased variance over squared mean."""
    return amounts.var() / (amounts.mean() ** 2 + 1e-10)
