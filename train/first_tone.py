"""The tone of a gated network, fitted to whole pictures before training begins, and held from then on.

A gain and an offset for each colour are six numbers, and how good they are follows from a picture's means
and those of its clean one. So ``Tone`` is fitted in a minute on means alone, and training begins with dark
pictures that are light and hazy ones that are half clear. Crops are toned as the pictures that they are cut
from. A grey wall and a hazy street look much alike: the first judge is careful, and leaves both alone
rather. Most of what it sees are small parts of undamaged pictures, which look like haze more often than whole
ones do. The others may take their damage for granted, which is worth 2 to 7 dB; the prompt says which is.
That of darkness also sees dark pictures still darker, and ones that are dark but for what is lit
(``lit.py``).
Shapes: E pictures of a pack, N measured pictures, S statistics, H W size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import TONE_TASKS
from measnet.network.gated import TONE_GRID, Tone, statistics, with_logarithms
from measnet.train.cadence import Cadence
from measnet.train.data.pack import CLEAN, Pack
from measnet.train.data.packed_crops import drawn_by
from measnet.train.lit import drawn, lit

SHOWN_CLEAN = ("dehaze", "lowlight")
"""Tasks whose clean pictures are also shown as given, to be left alone: they are of the same places."""

TONED = (*SHOWN_CLEAN, "derain", "mixture")
"""Tasks whose pictures need another tone: dense rain is a veil."""

GIVEN, WANTED = 1, 2  # columns of a pack's entries
AT_ONCE = 4  # pictures of one size that are measured together; more do not fit a core's cache
ROUNDS = 5  # steps for each measured picture, at most
FITS = 3  # from other first weights each; the best is kept: some never learn what haze is
MINIBATCH = 256
RATE = 4e-3
DECAY = 0.1
BLUR = 0.1  # noise on the statistics, as a share of their spread: what is hardly different is toned alike
NEAR, NEARER = 1e-3, 3e-4  # mean squared error below which a picture counts as right: at first, then
FIRST = 1 / 3  # share of the steps until then
CAREFUL = 3.0  # from then on, how much more those count whose tone is as it should be
HARM = 30.0  # from then on, what squared error costs by which a picture becomes worse than it was given
MOST_HARM = 0.1  # of squared error: what counts at most, or one picture closes the gate for good
TOLD_UNDAMAGED = 0.15  # undamaged pictures for each one of a judge's task, which it takes for granted
TOLD_FLAT = 0.3  # pictures of one colour likewise, which stay as they are
TOLD_LIT = 0.3  # pictures that are dark but for what is lit likewise, for the judge of darkness
TOLD_PARTS = 1.0  # small parts of undamaged pictures likewise: they look like haze, and cost it little
FOLLOWED = {"dehaze": (0.76, 0.9), "lowlight": (0.52, 0.66)}
"""Shares of the damage in the prompt from which on such a judge is followed, and wholly is: the prompts of
undamaged pictures, plain floors and asphalt among them, stay below the first."""

PLAIN = 4  # views of each clean picture as asphalt and walls look: near, with little contrast
PLAIN_SIDE = 192  # pixels a side of such a view
FLAT, FLAT_SIDE = 40, 64  # pictures of one colour of each kind, and their sides in pixels
EXPOSED = 2  # views of each clean picture, darker or lighter
OPENS, OPEN = 0.1, 0.95
"""Values of the fitted gate that become 0 and 1: as fitted, it stands a little open for grey walls."""

LEAST_PLAIN = 48  # pixels that are looked at from near, at least
PARTS = {CLEAN: 8, "keep": 4, "coded": 1, "camera": 1, "dehaze": 1, "lowlight": 1, "deblur": 1}
"""Small parts that are seen of each picture of a task, to be left alone; of real pairs the clean one."""

PART_SIDES = (64, 192)  # pixels
PARTS_COUNT = 3.0  # how much more all of them count than another kind of pictures
DARK_PART = 0.12  # mean brightness below which a part may as well be of a dark picture
GRAIN = 40.0  # sigma of the noise on half of the clean ones, at most
DIMMED = (0.35, 0.9)  # how bright dark pictures are shown once more; those below the next not
DARKEST_DIMMED = 0.02
LIT_GRAIN = 6.0  # sigma of the noise on lit pictures, at most
STRONGEST = 58.0  # sigma of the noise on clean pictures, in 8-bit steps


class _Means(NamedTuple):
    """Figures from which the error of a toned picture follows: N S, and of each colour N 3."""

    seen: Tensor
    given: Tensor
    wanted: Tensor
    spread: Tensor
    """Variance of what is given."""

    common: Tensor
    """Covariance of both."""

    wanted_spread: Tensor

    def at(self, rows: Tensor) -> _Means:
        return _Means(*(values[rows] for values in self))


class _JudgedStatistics(NamedTuple):
    """Statistics of N pictures as a judge is shown them, and how well a tone suits them."""

    shown: Tensor
    """N 2S, as shares of their spread."""

    means: _Means

    def at(self, rows: Tensor) -> _JudgedStatistics:
        return _JudgedStatistics(self.shown[rows], self.means.at(rows))


def seen_of(pack: Pack) -> Tensor:
    """E S: the means of the tone's statistics, of every picture as it is given."""
    rows = list(_by_size(pack))
    means = torch.cat([seen_in(_pictures(pack, some, GIVEN)) for some in rows])
    seen = torch.empty_like(means)
    seen[torch.cat(rows)] = means
    return seen


def fit_tone(
    tone: Tone, pack: Pack, seen: Tensor, seed: int, *, taught: bool, steps: int = Cadence.tone_steps
) -> None:
    """Sets the weights of ``tone`` by the pictures of ``pack``, every kind of them counting alike.

    Its first judge learns of all pictures, the others of those of their task, and of undamaged ones. They are
    followed where the prompt is ``taught`` what damage is. ``seen`` is what ``seen_of`` says of the pictures;
    each of several fits takes so many ``steps`` at most.
    """
    means, kinds = _measured(pack, seen, seed)
    often = 1 / torch.bincount(kinds)[kinds].float()  # N
    alone = 2 * len(pack.tasks)
    shown = with_logarithms(means.seen)  # N 2S
    tone.usual.copy_(shown.mean(dim=0))
    tone.spread.copy_(shown.std(dim=0, correction=0) + 1e-2)
    pictures = _JudgedStatistics((shown - tone.usual) / tone.spread, means)

    flat, in_light, dimmed = (often * (kinds == alone + number) for number in (4, 5, 6))
    weights = often - flat - in_light - dimmed  # the first judge leaves such alone unasked
    weights[kinds == alone + 3] *= PARTS_COUNT
    toned = [2 * number + real for number, task in enumerate(pack.tasks) if task in TONED for real in (0, 1)]
    later = weights * torch.where(torch.isin(kinds, torch.tensor(toned)), 1.0, CAREFUL)
    fits = []
    for number in range(FITS):
        judge = _fit_once(pictures, weights, later, HARM, drawn_by(seed, number), steps)
        with torch.no_grad():
            error = _error(judge, pictures, NEARER, HARM).cpu()
        fits.append(((later * error).sum().item(), number, judge))
    judges = [min(fits)[2]]
    for number, task in enumerate(TONE_TASKS):
        if task not in pack.tasks:
            judges.append(judges[0])
            continue
        kind = 2 * pack.tasks.index(task)
        of_task = often * ((kinds == kind) | (kinds == kind + 1))
        undamaged, parts = often * ((kinds == alone) | (kinds == alone + 2)), often * (kinds == alone + 3)
        if task == "lowlight":
            of_task += dimmed
        first = of_task.clone()
        for share, others in ((TOLD_UNDAMAGED, undamaged), (TOLD_PARTS, parts), (TOLD_FLAT, flat)):
            first += others * (share * of_task.sum() / others.sum().clamp(min=1e-9))
        both = first.clone()
        if task == "lowlight":  # later: seen from the beginning, they may close the gate for good
            both += in_light * (TOLD_LIT * of_task.sum() / in_light.sum().clamp(min=1e-9))
        if taught:
            tone.followed[:, number] = torch.tensor(FOLLOWED[task])
        judges.append(_fit_once(pictures, first, both, 0, drawn_by(seed, FITS + number), steps))
    with torch.no_grad():
        tone.see.weight.copy_(torch.cat([judge.see.weight for judge in judges]))
        tone.see.bias.copy_(torch.cat([judge.see.bias for judge in judges]))
        tone.decide.copy_(torch.cat([judge.decide for judge in judges]))
        tone.lean.copy_(torch.cat([judge.lean for judge in judges]))
    tone.requires_grad_(False)


def _fit_once(
    pictures: _JudgedStatistics, often: Tensor, later: Tensor, harm: float, seed: int, most_steps: int
) -> Tone:
    """A tone with one judge. Pictures are shown as ``often`` (N) as it says, from the middle on as ``later``
    does, when ``harm`` counts too."""
    rng = torch.Generator().manual_seed(seed)
    device = pictures.shown.device
    fitted = Tone(judges=1).to(device)
    first_weights = torch.empty_like(fitted.see.weight, device="cpu")
    nn.init.kaiming_uniform_(first_weights, a=math.sqrt(5), generator=rng)
    with torch.no_grad():
        fitted.see.weight.copy_(first_weights)
        fitted.see.bias.zero_()
    optimizer = torch.optim.AdamW(fitted.parameters(), lr=RATE, weight_decay=DECAY)
    steps = min(most_steps, ROUNDS * int(often.count_nonzero()))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        first = step < steps * FIRST
        rows = torch.multinomial(often if first else later, MINIBATCH, replacement=True, generator=rng)
        some = pictures.at(rows.to(device))
        off = torch.randn(some.shown.shape, generator=rng).to(device) * BLUR
        optimizer.zero_grad()
        some = some._replace(shown=some.shown + off)
        _error(fitted, some, *((NEAR, 0) if first else (NEARER, harm))).mean().backward()
        optimizer.step()
    steeper = 1 / (OPEN - OPENS)
    with torch.no_grad():
        fitted.decide[:, -1] *= steeper
        fitted.lean[:, -1] = (fitted.lean[:, -1] - OPENS) * steeper
    return fitted


def _error(tone: Tone, pictures: _JudgedStatistics, near: float, harm: float) -> Tensor:
    """N: the logarithm of the squared error, and ``harm`` for that by which it is more than untoned. ``tone``
    has one judge."""
    gain, offset = (said.squeeze(1) for said in tone.judged(pictures.shown))
    means = pictures.means
    error = _squared_error(gain.exp(), offset, means)
    as_given = _squared_error(torch.ones_like(means.given), torch.zeros_like(means.given), means)
    worse = F.relu(error - as_given)
    return (error + near).log() + harm * worse / (1 + worse / MOST_HARM)


def _measured(pack: Pack, seen: Tensor, seed: int) -> tuple[_Means, Tensor]:
    """Means of whole pictures, of parts, and of pictures to be left alone; and the kind of each, N."""
    parts: list[_Means] = []
    kinds: list[Tensor] = []
    rng = torch.Generator(pack.pixels.device).manual_seed(seed)
    alone = 2 * len(pack.tasks)  # the first kind behind each task's made and real pictures
    for rows in _by_size(pack):
        given, wanted = _pictures(pack, rows, GIVEN), _pictures(pack, rows, WANTED)
        task, real = pack.entries[rows[0], [0, 5]].tolist()
        name = pack.tasks[task]
        part = _window(given.shape, 0.5, rng)
        near = _noisy(given[part], rng, STRONGEST) if name == CLEAN else given[part]
        kind = 2 * task + real
        views = [(near, seen_in(near), wanted[part], kind), (given, seen[rows], wanted, kind)]
        if name == "lowlight":
            dimmed = _dimmed(given, rng)
            views.append((dimmed, seen_in(dimmed), wanted, alone + 6))
        still = [(wanted, alone)] if real and name in SHOWN_CLEAN else []
        if name == CLEAN:
            still += [(_plain(wanted, rng), alone + 1) for _ in range(PLAIN)]
            still += [(_exposed(wanted, rng), alone + 2) for _ in range(EXPOSED)]
            still += [(_noisy(view, rng, LIT_GRAIN), alone + 5) for view in lit(wanted, rng)]
        views += [(view, seen_in(view), view, kind) for view, kind in still]
        for shown, statistics_of, aim, kind in views:
            parts.append(_means(shown, statistics_of, aim))
            kinds.append(torch.full((len(shown),), kind))
        for shown, aim in _small_parts(name, bool(real), given, wanted, rng):
            of_part = _means(shown, seen_in(shown), aim)
            light = (of_part.given.mean(dim=1) >= DARK_PART).nonzero().flatten()
            parts.append(of_part.at(light))
            kinds.append(torch.full((len(light),), alone + 3))
    for view in _flat(rng):
        parts.append(_means(view, seen_in(view), view))
        kinds.append(torch.full((len(view),), alone + 4))
    return _Means(*(torch.cat(values) for values in zip(*parts, strict=True))), torch.cat(kinds)


def _small_parts(
    name: str, real: bool, given: Tensor, wanted: Tensor, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of undamaged pictures, and of noisy and coded ones, each with its clean one."""
    if real or name == CLEAN:
        given = wanted
    elif name in TONED or name == "deblur":
        return
    least, most = (side // TONE_GRID for side in PART_SIDES)
    for number in range(PARTS.get(name, 0)):
        side = int(drawn(least, most + 1, 1, rng)) * TONE_GRID
        place = _window_of(given.shape, side, side, rng)
        noisy = name == CLEAN and number % 2 == 1
        yield (_noisy(given[place], rng, GRAIN) if noisy else given[place]), wanted[place]


def _flat(rng: torch.Generator) -> Iterator[Tensor]:
    """Pictures of one colour, black and nearly black ones among them, with and without noise."""
    for power in (0, 1, 3):
        colour = drawn(0, 1, FLAT * 3, rng).view(FLAT, 3, 1, 1)
        light = drawn(0, 1, FLAT, rng)
        view = (light**power * (power > 0) * (0.8 + 0.4 * (colour - 0.5))).clamp(0, 1)
        yield (pictures := view.expand(-1, -1, FLAT_SIDE, FLAT_SIDE).contiguous())
        yield _noisy(pictures, rng, STRONGEST / 4)


def _plain(clean: Tensor, rng: torch.Generator) -> Tensor:
    """A part of the pictures, from near and with less contrast, lighter or darker, with some noise."""
    part = clean[_window(clean.shape, float(drawn(0.2, 0.6, 1, rng)), rng)]
    near = F.interpolate(part, size=(PLAIN_SIDE, PLAIN_SIDE))
    mean = near.mean(dim=(2, 3), keepdim=True)
    contrast, light = (drawn(*ends, len(near), rng) for ends in ((0.3, 1.2), (-0.15, 0.2)))
    return _noisy(mean + (near - mean) * contrast.clamp(max=1) + light * (contrast < 1), rng, STRONGEST / 4)


def _exposed(clean: Tensor, rng: torch.Generator) -> Tensor:
    """A part of the pictures, exposed for longer or shorter, with noise."""
    part = clean[_window(clean.shape, float(drawn(0.4, 1, 1, rng)), rng)]
    return _noisy(part ** drawn(-0.8, 0.6, len(part), rng).exp(), rng, STRONGEST)


def _dimmed(dark: Tensor, rng: torch.Generator) -> Tensor:
    """Dark pictures with still less light: what a pack holds of them is seldom as dark as they get."""
    light = torch.where(
        dark.mean(dim=(1, 2, 3), keepdim=True) < DARKEST_DIMMED, 1, drawn(*DIMMED, len(dark), rng)
    )
    return (dark * light * 255).round() / 255


def _noisy(pictures: Tensor, rng: torch.Generator, most: float) -> Tensor:
    """With noise of a sigma up to ``most`` 8-bit steps, clipped."""
    noise = torch.randn(pictures.shape, generator=rng, device=pictures.device)
    return (pictures + noise * drawn(0, most / 255, len(pictures), rng)).clamp(0, 1)


def _window(shape: torch.Size, share: float, rng: torch.Generator) -> tuple[slice, ...]:
    """A place within pictures B 3 H W, of ``share`` of each side."""
    height, width = (max(LEAST_PLAIN, int(side * share) // TONE_GRID * TONE_GRID) for side in shape[2:])
    return _window_of(shape, height, width, rng)


def _window_of(shape: torch.Size, height: int, width: int, rng: torch.Generator) -> tuple[slice, ...]:
    """A place within pictures B 3 H W, of that size where they are as large."""
    sides = [min(side, cut) for side, cut in zip(shape[2:], (height, width), strict=True)]
    free = [side - cut for side, cut in zip(shape[2:], sides, strict=True)]
    starts = [int(drawn(0, room + 1, 1, rng)) for room in free]
    down, across = (slice(start, start + cut) for start, cut in zip(starts, sides, strict=True))
    return slice(None), slice(None), down, across


def _by_size(pack: Pack) -> Iterator[Tensor]:
    """Rows of pictures of one task and one size, a few at a time."""
    _, group = torch.unique(pack.entries.cpu()[:, [0, 3, 4, 5]], dim=0, return_inverse=True)
    for number in range(int(group.max()) + 1):
        yield from (group == number).nonzero().flatten().split(AT_ONCE)


def _pictures(pack: Pack, rows: Tensor, column: int) -> Tensor:
    """B 3 H W, 0 to 1."""
    entries = pack.entries[rows.to(pack.entries.device)].cpu()
    height, width = entries[0, 3:5].tolist()
    pixels = [pack.pixels[start : start + height * width * 3] for start in entries[:, column].tolist()]
    return torch.stack(pixels).view(-1, height, width, 3).permute(0, 3, 1, 2).float() / 255


def seen_in(picture: Tensor) -> Tensor:
    """B 3 H W -> B S: the means of the tone's statistics."""
    height, width = (side // TONE_GRID * TONE_GRID for side in picture.shape[2:])
    return statistics(picture[..., :height, :width]).mean(dim=(2, 3))


def _means(given: Tensor, seen: Tensor, wanted: Tensor) -> _Means:
    given, wanted = (picture[..., ::2, ::2].flatten(2) for picture in (given, wanted))  # B 3 pixels
    means = given.mean(dim=2), wanted.mean(dim=2)
    apart = given - means[0][..., None], wanted - means[1][..., None]
    products = (a * b for a, b in ((apart[0], apart[0]), (apart[0], apart[1]), (apart[1], apart[1])))
    return _Means(seen, *means, *(product.mean(dim=2) for product in products))


def _squared_error(gain: Tensor, offset: Tensor, means: _Means) -> Tensor:
    """N: of each picture once it is toned."""
    off = gain * means.given + offset - means.wanted  # N 3
    rest = means.wanted_spread + gain.square() * means.spread - 2 * gain * means.common
    return F.relu(off.square() + rest).mean(dim=1)
