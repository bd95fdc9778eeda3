"""Frames that help each other: each restored frame is joined with what the frames before it showed.

A network that sees one frame leaves some of its noise in, differently in every frame, and takes some detail
away, alike in every frame. Both can be mended from the past, once the light that it adds is held steady:

    restored ─┬─ motion ── past, where it is now ── how far may it be trusted ── weighted mean ─┐
    source ───┴─ what the network took from still places, averaged until the noise is gone ─────┴─ fused

The past is a running mean, as a Kalman filter keeps it: per place, how many frames its mean is worth. What
differs more than restored frames do where all is well counts for less, so that whatever moves unseen, flashes
or is covered comes from the frame itself. Where the scene stands, a place that always differs more is trusted
all the same, unless the means of tiles, which noise moves little, say that something has changed.

All levels are of 255, whatever the depth of the pixels. Shapes:
H W of the frame, h w half of it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels
from measnet.runtime import motion, planes
from measnet.runtime.held_light import HeldLight
from measnet.runtime.past import BROAD, Light, Past, Sources
from measnet.runtime.planes import Plane
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.taken_noise import TakenNoise, taken_noise
from measnet.runtime.trust import Judge, LearntTrust, ScratchArrays, Seen

RULE = 5
"""Number of the rule: another one makes other frames of the same."""

DEPTH = 12
"""Frames that the mean of what moves is worth at most, where nobody says another number."""

STILL_DEPTH = 32
"""The same for what stands still; a depth below ``DEPTH`` lowers it alike."""

_LEAST = 32  # pixels: smaller frames have no room to look for motion
_QUANTILE = 0.35  # of all places: so many, at least, are taken to be as the frame before had them
_TOLERANCE = np.float32(0.9)  # times the usual difference that is no mismatch
_STILL_TOLERANCE = np.float32(3)  # the same where nothing moves
_LEAST_VARIANCE = 0.05
_SUDDEN = 1.5  # times what was usual before, beyond which a difference is never taken to be usual
_FIRST = 0.7  # of what seems usual between the first two frames, as nothing was seen before
_FIRST_WORTH = np.float32(0.6)  # of the trust in it: coders make the frames after it better
_AS_STILL = 1.2  # times the difference after motion, up to which a place may stand still
_STILL_SHARES = (
    0.2,
    0.35,
)  # of places that may: below the first the camera moves, above the second it stands
_MOST_AS_STILL = 2.0
_STANDS = (0.35, 0.6)  # the same share: below the first no scene stands, above the second it does for sure
_MORE_HERE = np.float32(3)  # there: times the usual difference, more of which a place may be used to
_USED_TO = np.float32(8)  # frames that what a place is used to is averaged over
_BROADLY = np.float32(2.0)  # there: times what noise does to the mean of a tile, beyond which it has changed
_MEDIAN = np.float32(0.8)  # of that in the mean, as the noise of three colours has it
_NEIGHBOURS = 7  # half-size pixels
_MAJORITY = 0.7  # of the neighbours
_COARSE = 8  # pixels: of light that changes, as lamps and fades do
_ADDED_DEPTH = np.float32(32)  # frames that its mean is worth at most
_JUDGED_ANEW = np.float32(14)  # levels from that mean, beyond which a network means it; the double: all of it
_LIT_ANEW = np.float32(2.5)  # times the usual change of the source, beyond which its light has changed
_MOST_USUAL, _LEAST_CHANGE = np.float32(1.5), np.float32(0.5)  # levels, of that change
_IN_NOISE = np.float32(1.4)  # times what noise does to it: by so little light may be off
_NEXT_IN_NOISE = np.float32(0.7)  # the same of the next frame, which flickers against this one's source
_HELD = np.float32(8)  # frames over which the light that is added changes
_SLACK = np.float32(0.8)  # levels, by which it may lag behind
_FLASH = (2.0, 5.0)  # levels that the light of all of the source changed by: held less, and not at all
_TURNED = np.float32(5)  # levels that light was turned by, beyond which a place is trusted less
_LIGHT = 0.5  # times the usual difference, up to which light is taken to be the same
_SMOOTH = 0.9  # share of the frames before in figures of the whole frame
_UNUSUAL, _FORGET = 1.5, 0.3  # times the usual difference: what was usual before is no more; the share then
_FINE = 8.0  # pixels: σ of the detail that is given back
_NOISE_MARGIN = np.float32(1.0)  # times the noise that a mean should have left
_STRANGE = np.float32(1.5)  # times the noise, beyond which a source differs from their mean
_LITTLE, _NOTHING = np.float32(1e-3), np.float32(0)
_ALIKE = 0.8  # of a restored frame's variance that the source explains: below, more than noise was taken
_CALM, _FINE_SHARE = 0.3, 0.97  # of the places; of white noise, which is finer than 9 pixels
_KEYS = np.float32(128)  # steps to a level, in which keys are told apart
_CAUTION = (0.3, 0.12)  # times the usual difference, by which the next frame counts less, in both cases below
_FAR_OFF = np.float32(0.008)  # times its square likewise: what is far off, as rain, counts hardly at all
_REPEATED = (0.045, 0.11)  # how much frames differ, of the noise that was taken, if it is new or repeated
_DETAILED = (2.0, 3.5)  # fine detail, in variance, for the noise that was taken: moving harms it
_LINEAR = 0.5  # of that way, beyond which the next frame is moved with a slight blur
_ENOUGH = 2.5  # frames, before which no detail is given back
_LONGEST_STEP = 1.0  # seconds from frame to frame, beyond which the clock jumped or frames are lost
_USUAL_STEPS = 3.0  # times the step before: a slow video may take longer
_HEAD = struct.Struct("<dd")


@dataclass(frozen=True)
class _Last:
    """The frame before, as the next one needs it."""

    fused: Pixels

    trust: Plane
    """h w: frames that those before it were worth."""

    usual: Plane
    """h w: the usual difference of frames, squared, as far as noise explains it."""

    taken: TakenNoise
    detail: float
    """The finest detail, squared."""

    stands: bool
    """True where detail comes back, too: there one frame more adds hardly anything."""

    def noise_repeated(self) -> float:
        """From 0, where noise is new in each frame, to 1, where a codec repeats it. New, it is taken nearly
        whole; repeated, much of it is left, and frames differ by less than they are wrong. A frame with
        far more detail than noise was coded well, and is taken for new."""
        taken = self.taken.mean_square()
        repeated = np.interp(planes.median(planes.some(self.usual)) / taken, _REPEATED, (0, 1))
        return float(repeated * np.interp(self.detail / taken, _DETAILED, (1, 0)))


@dataclass
class Figures:
    """Figures of the frames of one video."""

    depth: int
    frames: int = 0
    worth: float = 0.0
    """Frames that a fused one was worth, in the mean."""

    let_go: dict[str, int] = field(default_factory=dict)
    """Reasons why the past was let go, and how often."""

    def for_report(self) -> dict[str, Any]:
        return {"depth": self.depth, "frames_worth": round(self.worth, 2), "let_go": self.let_go}


class TemporalFusion:
    """Fuses the restored frames of one video, in their order.

    Moving places are averaged over up to ``depth`` frames, from 1. ``judge`` corrects how far the past is
    trusted; by default the learnt one does. With ``ahead`` each frame is joined with the one that follows it,
    too, and stands in ``before`` one frame later. ``intra`` frames, each coded by itself, have new noise in
    each; of others it is measured whether they do. Light that restoring adds may not grow fast within a scene
    (``held_light.py``), unless a caller who knows the damage is ``sure``. The same frames always
    give the same result.

    Raises nothing: frames that do not fit those before them begin anew.
    """

    def __init__(
        self,
        depth: int = DEPTH,
        judge: Judge | None = None,
        *,
        ahead: bool = False,
        sure: bool = False,
        intra: bool = False,
    ) -> None:
        self._depth = np.float32(depth)
        self._still_depth = np.float32(STILL_DEPTH * max(1.0, depth / DEPTH) if depth >= DEPTH else depth)
        self._past: Past | None = None
        self._shown_at: float | None = None
        self._step = 0.0  # seconds, from the frame before the last to the last
        self._cut = SceneCut()
        self._light = HeldLight()
        self._sure = sure
        self._intra = intra
        self._judge = LearntTrust() if judge is None else judge
        self._ahead = ahead
        self._last: _Last | None = None
        self.before: Pixels | None = None
        """With ``ahead``: the frame before the last one, joined with it; None where it stays as it was."""
        self._room = ScratchArrays()
        self._spare: Plane | None = None  # for the next mean
        self._motion = motion.Motion()
        self.figures = Figures(depth)

    def fuse(
        self,
        source: Pixels,
        restored: Pixels,
        new_scene: bool | None = None,
        *,
        shown_at: float | None = None,
        faulty: bool = False,
    ) -> Pixels:
        """A frame and what was made of it, H W 3, uint8 or uint16 -> the fused one, as deep as the latter.

        ``new_scene`` says whether it begins another scene; where nobody says so, it is looked at for that.
        ``shown_at`` is when it is shown, in seconds. A ``faulty`` one, which did not come back as it should
        have, is given back as it is, and none after it is fused with it.
        """
        self.before = None if self._last is None else self._last.fused
        begins = self._cut.begins_with(source) if new_scene is None else new_scene
        gap = self._is_gap(shown_at)
        if faulty:
            self._let_go("a fault")
            return self._done(restored)
        if not self._sure:
            restored = self._light.hold(source, restored, begins)
        self._check_past(restored.shape, begins, gap)
        if min(restored.shape[:2]) < _LEAST:
            return self._done(restored)
        now = self._room.take("now", restored.shape)
        planes.levels(restored, now)
        if self._past is None:
            before = self._room.take("source", restored.shape)
            planes.levels(source, before)
            height, width = now.shape[:2]
            broad = planes.coarse(before, BROAD)
            added = planes.coarse(now, BROAD) - broad
            light = Light(broad, added, np.ones(broad.shape[:2], np.float32), added)
            count = np.ones(((height + 1) // 2, (width + 1) // 2), np.float32)
            self._past = Past(now.copy(), count, light, np.zeros_like(count))
            return self._done(restored)  # nobody knows yet how much frames usually differ
        past, half = self._past, planes.half(now)
        moves = (past.still_share or 0) < _STILL_SHARES[1]
        flow = self._motion.between(planes.grey(half), planes.grey(past.half), fit=moves)
        if self._last is not None and not self._last.stands:
            self.before = self._joined_with(self._last, past, now, motion.turned_round(flow))
        before = self._room.take("source", restored.shape)
        planes.levels(source, before)
        taken = self._steady_light(past.light, before, now, half, flow)
        still, mismatch, trust, usual = self._join(past, before, now, half, flow, taken)
        detail = self._detail(past, before, now, half, still, mismatch)
        if detail is not None:
            cv2.add(past.mean, detail, dst=detail)
        fused = planes.pixels(past.mean if detail is None else detail, restored.dtype)
        last = None
        if self._ahead:
            last = _Last(fused, trust, usual, taken, planes.finest(now, half), detail is not None)
        return self._done(fused, last, float(past.count.mean()))

    def _done(self, fused: Pixels, last: _Last | None = None, worth: float = 1.0) -> Pixels:
        """Ends a frame: counts the frames that it is worth, and keeps ``last`` for the next one."""
        figures = self.figures
        figures.frames += 1
        figures.worth += (worth - figures.worth) / figures.frames
        self._last = last
        return fused

    def _joined_with(self, last: _Last, past: Past, following: Plane, flow: Plane) -> Pixels:
        """Joins the frame before, which is the past as it is, with the one that follows it (H W 3), moved to
        where things were; ``flow`` says where they went, h w 2.

        Nothing of this becomes part of the past. The rule alone says how far the one that follows is trusted:
        where the two differ no more than frames usually do there.
        """
        repeated = 0.0 if self._intra else last.noise_repeated()
        moved = self._room.take("a", following.shape)
        # A codec has taken the finest detail already: what is blurred then is its noise.
        self._move(following, flow, moved, cv2.INTER_LINEAR if repeated > _LINEAR else cv2.INTER_CUBIC)
        off = planes.squared_difference(past.half, planes.half(moved)) / last.usual
        caution = np.float32(np.interp(repeated, (0, 1), _CAUTION))
        trust = 1 / (1 + caution * off + _FAR_OFF * off * off)
        cv2.subtract(moved, past.mean, dst=moved)
        self._weigh(moved, trust / (1 + last.trust + trust))
        # As in the past, light over some breadth stays that of the frame, and more strictly.
        self._brighten(-last.taken.of_light(planes.coarse(moved, BROAD), _NEXT_IN_NOISE), BROAD, moved)
        cv2.add(past.mean, moved, dst=moved)
        return planes.pixels(moved, last.fused.dtype)

    def state(self) -> bytes:
        """Packs its state, and goes on from the packed one, which is a little coarser: so a run that goes on
        from these bytes makes the same frames."""
        head = _HEAD.pack(math.nan if self._shown_at is None else self._shown_at, self._step)
        state = head + self._light.state() + Past.packed(self._past) + self._cut.state()
        self.set_state(state)
        return state

    def set_state(self, state: bytes) -> None:
        """Goes on behind the frame after which ``state`` was taken. Raises ValueError for other bytes."""
        start = _HEAD.size + HeldLight.SIZE
        past, rest = Past.unpacked(state[start:])
        self._cut.set_state(rest)
        self._light.set_state(state[_HEAD.size : start])
        shown_at, self._step = _HEAD.unpack_from(state)
        self._shown_at = None if math.isnan(shown_at) else shown_at
        self._past = past

    def _check_past(self, shape: tuple[int, ...], new_scene: bool, gap: bool) -> None:
        """Lets go of a past that says nothing of this frame."""
        if self._past is None:
            return
        if self._past.mean.shape != shape:
            self._let_go("another size")
        elif new_scene:
            self._let_go("a cut")
        elif gap:
            self._let_go("a gap in time")

    def _is_gap(self, shown_at: float | None) -> bool:
        """Says whether the clock jumped, or frames were lost, before the one that is shown now."""
        before, self._shown_at = self._shown_at, shown_at
        if before is None or shown_at is None:
            return False
        step, usual = shown_at - before, self._step
        self._step = max(0.0, step)
        return not 0 <= step <= max(_LONGEST_STEP, _USUAL_STEPS * usual)

    def _let_go(self, why: str) -> None:
        self._past = None
        self.figures.let_go[why] = self.figures.let_go.get(why, 0) + 1

    def _steady_light(self, light: Light, source: Plane, now: Plane, half: Plane, flow: Plane) -> TakenNoise:
        """Gives the frame, in place, the light that restoring added before, where its source's light has not
        changed; says what noise restoring took.

        A network judges anew in every frame how much to add, so it adds a little more or less each time.
        Where it adds something else by far, or the source itself has changed, it is taken at its word.
        """
        fine, square = (self._room.take(name, now.shape) for name in ("a", "b"))
        cv2.subtract(now, source, dst=fine)
        cv2.multiply(fine, fine, dst=square)
        added, taken = taken_noise(fine, square, intra=self._intra)
        broad = planes.coarse(source, BROAD)
        height, width = broad.shape[:2]
        tiles = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * np.float32(2 / BROAD)
        source_before, mean, count = (
            motion.moved(plane, tiles) for plane in (light.source, light.added, light.count)
        )
        lit = broad - source_before
        change = np.abs(lit).max(axis=2)
        usual = np.minimum(planes.median(change), _MOST_USUAL)
        anew = np.abs(added - mean).max(axis=2)
        unlike = np.maximum(0, change / (usual + _LEAST_CHANGE) - _LIT_ANEW) ** 4
        unlike += np.maximum(0, anew / _JUDGED_ANEW - 1) ** 4
        unlike[anew > 2 * _JUDGED_ANEW] = np.inf
        trust = np.minimum(1 / (1 / count + unlike), _ADDED_DEPTH)
        mean = mean + (added - mean) / (1 + trust)[..., None]
        light.source, light.added, light.count = broad, mean, trust + 1
        wanted = added + taken.of_light(mean - added, _IN_NOISE)
        held = light.shown - wanted
        flash = np.abs(lit.mean(axis=(0, 1))).max()
        slack = _SLACK * np.float32(np.interp(flash, _FLASH, (1, 0)))
        wanted += taken.of_light(np.clip(held - held / _HELD, -slack, slack), _IN_NOISE)
        light.shown = wanted
        self._brighten(wanted - added, BROAD, now, half)
        return taken

    def _join(
        self, past: Past, source: Plane, now: Plane, half: Plane, flow: Plane, taken: TakenNoise
    ) -> tuple[NDArray[np.bool_], Plane, Plane, Plane]:
        """Makes the frame part of the past, which becomes the fused one. ``half`` is the frame at half its
        size. Returns, h w each: where it stands still, how far the past differed from it, how many frames the
        past was worth, and how much frames usually differ there.

        Its light, over some breadth, stays that of the frame, but for what noise does to it: a past that
        lags behind what moves would flicker against the source."""
        moved, count = self._where_it_is_now(past, now, flow)
        moved_half = planes.half(moved)
        unmoved_off, moved_off = (
            planes.squared_difference(half, past.half),
            planes.squared_difference(half, moved_half),
        )
        share = float((unmoved_off <= moved_off * _AS_STILL).mean())
        past.still_share = _smoothed(past.still_share, share)
        as_still = np.interp(past.still_share, _STILL_SHARES, (1.0, _MOST_AS_STILL))
        same = (unmoved_off <= moved_off * np.float32(as_still)).astype(np.float32)
        still = cv2.blur(same, (_NEIGHBOURS, _NEIGHBOURS)) > _MAJORITY
        unmoved = still | (same > 0)
        mask = unmoved.astype(np.uint8)
        cv2.copyTo(past.mean, planes.whole(mask, now, cv2.INTER_NEAREST), moved)
        cv2.copyTo(past.half, mask, moved_half)
        cv2.copyTo(past.count, mask, count)
        cv2.copyTo(unmoved_off, mask, moved_off)
        count = np.maximum(count, np.float32(0.05))
        changed, turned = self._follow_light(half, moved, moved_half, moved_off)
        if changed:
            past.sources = None
        off = planes.squared_difference(half, moved_half)

        spread = 1 + 1 / count
        fresh = off / spread
        usual = _usual(fresh, past.half)
        before, worth = past.usual, np.float32(1)
        if before is None:
            worth = _FIRST_WORTH
            usual *= np.float32(_FIRST)
            before = float(planes.median(planes.some(usual)))
        usual = np.minimum(usual, np.float32(_SUDDEN * before))
        level = float(planes.median(planes.some(usual)))
        past.usual = _smoothed(past.usual, level, _SMOOTH if before < _UNUSUAL * level else _FORGET)
        stands = np.float32(np.interp(past.still_share, _STANDS, (0, 1)))
        tolerance = _TOLERANCE + (_STILL_TOLERANCE - _TOLERANCE) * still
        expected = np.maximum(np.minimum(usual, taken.explains), np.float32(_LEAST_VARIANCE))
        own = expected.copy()
        cv2.copyTo(past.own, (unmoved & (past.own > 0)).astype(np.uint8), own)
        here = np.clip(own, expected, expected * (1 + stands * _MORE_HERE))
        mismatch = np.asarray(np.maximum(0, fresh / here - tolerance) * spread, np.float32)
        if stands:
            broadly = _differs_broadly(half, moved_half, taken.noise) / spread
            broadly /= max(1, planes.median(planes.some(broadly)) / _MEDIAN)
            mismatch += stands * np.maximum(0, broadly - _BROADLY)
        past.own = own + (mismatch <= 0) * (fresh - own) / (1 + np.minimum(count, _USED_TO))
        mismatch += cv2.resize(np.maximum(0, turned / _TURNED - 1), count.shape[::-1])
        most = self._depth + (self._still_depth - self._depth) * still
        trust = np.minimum(worth / (1 / count + mismatch), most)
        past.count = trust + 1
        new = self._room.take("a", now.shape)
        cv2.subtract(now, moved, dst=new)
        factor = self._judge(Seen(source, now, new, trust, usual, mismatch, still))
        trust = np.minimum(trust * factor, most)
        self._weigh(new, 1 / (1 + trust))
        cv2.add(moved, new, dst=moved)
        past.mean, self._spare = moved, past.mean
        past.half = planes.half(moved)
        off = past.light.source + past.light.shown - planes.coarse(past.mean, BROAD)
        self._brighten(taken.of_light(off, _IN_NOISE), BROAD, past.mean, past.half)
        return still, mismatch, trust, expected

    def _where_it_is_now(self, past: Past, now: Plane, flow: Plane) -> tuple[Plane, Plane]:
        """The past's mean and count, moved with the picture; ``flow`` (h w 2) is in pixels of
        half the size."""
        place = self._spare
        if place is None or place.shape != now.shape:
            place = np.empty_like(now)
        self._move(past.mean, flow, place)
        return place, motion.moved(past.count, flow, border=cv2.BORDER_CONSTANT)

    def _move(self, picture: Plane, flow: Plane, place: Plane, how: int = cv2.INTER_CUBIC) -> None:
        """Writes the picture to ``place``, moved by ``flow`` (h w 2, of half size)."""
        whole = self._room.take("places", (*picture.shape[:2], 2))
        cv2.resize(flow * 2, picture.shape[1::-1], dst=whole)
        cv2.remap(  # type: ignore[call-overload]
            picture, whole, None, how | cv2.WARP_RELATIVE_MAP, dst=place, borderMode=cv2.BORDER_REFLECT_101
        )

    def _detail(
        self,
        past: Past,
        source: Plane,
        now: Plane,
        half: Plane,
        still: NDArray[np.bool_],
        mismatch: Plane,
    ) -> Plane | None:
        """Finds what the network took from places that stand still and is no noise, H W 3.

        None while the camera moves.

        The mean of the sources has less noise the longer it is. Detail that it has beyond the mean of the
        restored frames is given back by Wiener's rule: so far as it exceeds that noise, is fine, and no more
        than the noise itself was, so that neither haze nor darkness comes back.
        """
        some = planes.some(still)
        if (past.still_share or 0.0) < _STILL_SHARES[1] or not some.any():
            past.sources = None
            return None
        coarse = planes.coarse(source, _COARSE)
        gain, offset, explained = planes.fit_light(coarse, planes.coarse(now, _COARSE))
        if explained < _ALIKE:
            past.sources = None
            return None
        planes.turn(source, gain, offset)  # as bright as it was restored to be
        if past.sources is None:
            past.sources = Sources(source.copy(), np.ones_like(past.count), np.zeros_like(past.count))
            return None
        sources = past.sources
        new = self._room.take("a", now.shape)
        cv2.subtract(source, sources.mean, dst=new)
        fresh = planes.blurred(self._energy(new), 5) / (1 + 1 / sources.count)  # h w
        fresh_there = planes.some(fresh)[some]
        level = planes.median(fresh_there)
        noise = sources.noise + level * (sources.noise <= 0)
        unlike = np.maximum(0, fresh / np.maximum(noise, level / 2 + _LITTLE) - _STRANGE)
        trust = still / (1 / sources.count + unlike + mismatch)
        trust = np.minimum(trust, self._still_depth)
        sources.noise = noise + (fresh - noise) / (1 + trust)
        self._weigh(new, 1 / (1 + trust))
        cv2.add(sources.mean, new, dst=sources.mean)
        sources.count = trust + 1

        taken, beyond = source, new  # in the same place
        cv2.subtract(source, now, dst=taken)
        cv2.subtract(taken, cv2.blur(taken, (9, 9), dst=new), dst=taken)
        in_space = planes.some(planes.blurred(self._energy(taken), 5))[some] / _FINE_SHARE
        fresh_share = planes.quantile(fresh_there, _CALM) / (planes.quantile(in_space, _CALM) + _LITTLE)
        past.whiteness = _smoothed(past.whiteness, float(np.clip(fresh_share, 0.05, 1)))
        repeated = np.float32((2 - past.whiteness) / past.whiteness**2)
        left = sources.noise * repeated / sources.count
        cv2.subtract(sources.mean, past.mean, dst=beyond)
        broad = cv2.GaussianBlur(planes.coarse(beyond, _COARSE), (0, 0), _FINE / _COARSE)
        self._brighten(np.asarray(-broad, np.float32), _COARSE, beyond)
        power = planes.blurred(self._energy(beyond), 4)
        share = np.maximum(power - _NOISE_MARGIN * left, 0) / (power + _LITTLE)
        share *= sources.count > _ENOUGH
        most = np.sqrt(level)
        self._weigh(beyond, share)
        return np.clip(beyond, -most, most, out=beyond)

    def _follow_light(self, now: Plane, past: Plane, past_half: Plane, off: Plane) -> tuple[bool, Plane]:
        """Gives the past, in place, the light of the frame; whether that has changed in most of the picture,
        and by how much in each place, h w in tiles of ``_COARSE`` pixels.

        As a gain and an offset for each colour of the whole picture first (fades, exposure), then as an
        offset that changes over some breadth (lamps). ``now`` and ``past_half`` are of half size, ``past``
        is not; ``off`` is how much the two differ, squared (h w).
        """
        same = np.float32(_LIGHT * np.sqrt(planes.quantile(planes.some(off).ravel(), _QUANTILE)))
        coarse_now, coarse = planes.coarse(now, _COARSE // 2), planes.coarse(past_half, _COARSE // 2)
        before = coarse
        gain, offset, _ = planes.fit_light(coarse, coarse_now)
        turned = coarse * gain + offset
        changed = bool(np.abs(turned - coarse).mean() > same)
        if changed:
            for picture in (past, past_half):
                planes.turn(picture, gain, offset)
            coarse = turned
        change = planes.beyond(np.asarray(cv2.blur(coarse_now - coarse, (5, 5)), np.float32), same)
        self._brighten(change, _COARSE, past, past_half)
        turned_by = np.abs(coarse + change - before).max(axis=2)
        return changed or float((change != 0).mean()) > 0.5, turned_by

    def _energy(self, picture: Plane) -> Plane:
        """The square, averaged over the colours and over 2x2; h w."""
        square, mean = self._room.take("b", picture.shape), self._room.take("one", picture.shape[:2])
        cv2.multiply(picture, picture, dst=square)
        cv2.transform(square, planes.THIRDS, dst=mean)
        return planes.half(mean)

    def _weigh(self, picture: Plane, weight: NDArray[Any]) -> None:
        """Multiplies the picture, in place, by a weight for each place, h w."""
        one, three = self._room.take("one", picture.shape[:2]), self._room.take("b", picture.shape)
        cv2.resize(weight, picture.shape[1::-1], dst=one)
        cv2.multiply(picture, cv2.merge([one] * 3, dst=three), dst=picture)

    def _brighten(self, light: Plane, side: int, *pictures: Plane) -> None:
        """Adds light, h w 3 in tiles of ``side`` pixels, in place: to a picture, and to its half."""
        if not light.any():
            return
        tiles = planes.with_means(light)
        for name, picture in zip(("b", "light"), pictures, strict=False):
            added = planes.spread(tiles, side, self._room.take(name, picture.shape))
            cv2.add(picture, added, dst=picture)
            side //= 2


def _differs_broadly(now: Plane, past: Plane, noise: Plane) -> Plane:
    """The squared difference of the means of tiles of ``_COARSE`` pixels, as a multiple of what noise does
    to them; pictures of half size, ``noise`` as ``_steady_light`` gives it; h w."""
    off = np.square(planes.coarse(now, _COARSE // 2) - planes.coarse(past, _COARSE // 2)).mean(axis=2)
    expected = planes.whole(np.square(noise).mean(axis=2), off) * np.float32((BROAD / _COARSE) ** 2)
    return np.asarray(planes.whole(off / (expected + _LITTLE), now), np.float32)


def _usual(off: NDArray[Any], mean: Plane) -> Plane:
    """Estimates how much frames differ where all is well, by how busy and how bright a place is; h w.

    ``off`` is the squared difference, h w, for past and frame of one frame's worth each; ``mean`` h w 3.
    """
    grey = np.asarray(cv2.transform(mean, planes.THIRDS), np.float32)
    slopes = cv2.Sobel(grey, -1, 1, 0) ** 2 + cv2.Sobel(grey, -1, 0, 1) ** 2
    busy = np.asarray(np.sqrt(planes.blurred(slopes, 3)), np.float32)
    usual = _by_groups(off, busy, 6)
    usual *= _by_groups(off / usual, grey, 4)
    return np.maximum(usual, np.float32(_LEAST_VARIANCE))


def _by_groups(values: NDArray[Any], key: Plane, groups: int) -> Plane:
    """The low quantile of ``values`` in places with a like ``key``, as a function of it; h w."""
    some, keys = planes.some(values).ravel(), planes.some(key).ravel()
    ranks = np.minimum(keys * _KEYS, 65535).astype(np.uint16)  # whole numbers are sorted much faster
    order = np.argsort(ranks, kind="stable")
    centres, levels = [], []
    for places in np.array_split(order, groups):
        if len(places):
            centres.append(float(keys[places[len(places) // 2]]))
            levels.append(max(1e-3, planes.quantile(some[places], _QUANTILE)))
    found = np.full_like(key, levels[0])
    for from_, to, level, then in zip(centres, centres[1:], levels, levels[1:], strict=False):
        to = max(to, from_ + 1e-3)
        found += (np.clip(key, np.float32(from_), np.float32(to)) - np.float32(from_)) * np.float32(
            (then - level) / (to - from_)
        )
    return found


def _smoothed(before: float | None, now: float, share: float = _SMOOTH) -> float:
    return now if before is None else share * before + (1 - share) * now
