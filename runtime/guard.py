"""Guard: checks every frame that an engine gives back, and acts on a fault as ``--on-fault`` says."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from measnet.errors import BackendError
from measnet.image import Pixels
from measnet.onnx_file import read_metadata
from measnet.runtime.frame import Mark, Restoration
from measnet.runtime.health import Health
from measnet.runtime.options import OnFault
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.sinks.segment import LARGEST_STATE
from measnet.runtime.steady import Steady
from measnet.weights import at_hand, bundled

_LENGTH = struct.Struct("<I")


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """Count of frames that came back wrong, and what was done about it."""

    frames: Annotated[int, msgspec.Meta(ge=0)] = 0
    first: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Number of the first one, from 0."""

    what: str | None = None
    """Says what was wrong with the first one."""

    fallback: dict[str, Any] | None = None
    """The engine that restored from that frame on, if another one did."""

    def for_report(self) -> dict[str, Any] | None:
        """Ready for JSON; None when nothing was wrong."""
        return msgspec.structs.asdict(self) if self.frames else None


class Guard:
    """Restores the frames of one source: the first step of a stream.

        scene cut ── engine, held steady ── health ──┬── good
                            ▲                        └── fault: as ``on_fault`` says
                            └── the safer engine ◀────────┘

    Args:
        engine: restores; it stays its owner's.
        on_fault: ``fallback`` restores the frame again, and all that follow, with what ``safer`` gives, and
            stops where there is no such engine; ``stop`` raises; ``ignore`` counts.
        safer: opens the engine to fall back to; None when there is none. Called at most once.
        steady_for: says how the frames of a video are held steady by an engine; None where they are not.
        scenes: tells where scenes begin; None where every frame is one of its own.
    """

    name = "restore"

    def __init__(
        self,
        engine: Restorer,
        on_fault: OnFault,
        safer: Callable[[], Restorer | None],
        *,
        steady_for: Callable[[Restorer], Steady | None] = lambda engine: None,
        scenes: SceneCut | None = None,
    ) -> None:
        self.faults = Faults()
        self.engine = engine
        """The one that restores now."""
        self._steady_for = steady_for
        self._steady = steady_for(engine)
        self._scenes = scenes
        self._fallen_back_to: Restorer | None = None
        self._on_fault = on_fault
        self._safer = safer
        self._health = Health()
        self._frames = 0

    @property
    def description(self) -> dict[str, Any]:
        """The engine's, and how steady it is held."""
        steady = {} if self._steady is None else {"steady": self._steady.share}
        return self.engine.description | steady

    def take(self, passing: Restoration) -> None:
        """See Step.take. Raises ``BackendError`` on a fault that is not to be, or cannot be, mended."""
        pixels = passing.source.pixels
        passing.new_scene = self._scenes is None or self._scenes.begins_with(pixels)
        faults = self.faults.frames
        restored = self._restore(pixels, passing.new_scene)
        passing.faulty = self.faults.frames > faults
        passing.pixels, passing.tiles = restored.pixels, restored.tiles
        passing.engine_result, passing.damage = restored, restored.damage
        passing.choices, passing.prompt_weights = restored.choices, restored.prompt_weights

    def mark(self, mark: Mark) -> Mark:
        """See Step.mark: the scene, the faults so far, and the decisions that hold.

        Raises ``BackendError`` for more than can be kept.
        """
        scene = b"" if self._scenes is None else self._scenes.state()
        own = b"" if self._steady is None else self._steady.state()
        faults = msgspec.json.encode(self.faults)
        state = _LENGTH.pack(len(scene)) + scene + faults + b"\n" + own
        if len(state) > LARGEST_STATE:
            raise BackendError(
                f"the engine carries on {len(state)} bytes, of which {LARGEST_STATE} can be kept"
            )
        return Mark(state, mark.past)

    def go_on_at(self, frame: int, state: bytes | None) -> None:
        """Goes on at this frame, as an earlier run restored those before it and left ``state``.

        If that run had fallen back, this one has too.

        Raises ValueError where it cannot go on from ``state``.
        """
        self._frames = frame
        if state is None and self._steady is None:
            return
        state = state or b""
        if len(state) < _LENGTH.size:
            raise ValueError("what the engine knew of the frames before is not there")
        behind = _LENGTH.size + _LENGTH.unpack_from(state)[0]
        if self._scenes is not None:
            self._scenes.set_state(state[_LENGTH.size : behind])
        head, _, own = state[behind:].partition(b"\n")
        faults = _faults_from(head)
        if faults.fallback is not None:
            safe = self._safer()
            if safe is None:
                raise ValueError("the engine that was fallen back to is not at hand any more")
            self._fall_back_to(safe)
            faults.fallback = self.description
        self.faults = faults
        if (self._steady is not None) != bool(own):
            raise ValueError("what the engine knew of the frames before is not there")
        if self._steady is not None:
            self._steady.set_state(own, self.engine.decisions_size)

    def close(self) -> None:
        """Lets go of the engine that was fallen back to, if one was; the guarded one is its owner's."""
        if self._fallen_back_to is not None:
            self._fallen_back_to.close()
            self._fallen_back_to = None

    def _restore(self, pixels: Pixels, new_scene: bool) -> RestoredFrame:
        restored, fault = self._try(pixels, new_scene)
        self._frames += 1
        if fault is None:
            assert restored is not None
            return restored
        self._note(fault)
        if self._on_fault == "ignore" and restored is not None:
            return restored
        if self._on_fault == "fallback" and self.faults.fallback is None:
            safe = self._safer()
            if safe is not None:
                self._fall_back_to(safe)
                self.faults.fallback = self.description
                restored, again = self._try(pixels, new_scene)
                if again is None and restored is not None:
                    return restored
                fault = f"{fault}; with {_name(safe)} too: {again}"
        raise BackendError(
            f"frame {self._frames - 1} came back wrong from {_name(self.engine)}: {fault}; "
            "choose another --model or --backend, or --on-fault"
        )

    def _fall_back_to(self, safe: Restorer) -> None:
        self.engine = self._fallen_back_to = safe
        self._steady = self._steady_for(safe)
        self._health = Health()

    def _try(self, pixels: Pixels, new_scene: bool) -> tuple[RestoredFrame | None, str | None]:
        """Restores the frame; gives the result, and its fault if it has one."""
        try:
            if self._steady is None:
                restored = self.engine.restore(pixels)
            else:
                restored = self._steady.restore(self.engine, pixels, new_scene=new_scene)
        except BackendError as error:
            return None, str(error)
        return restored, self._health.fault_in(restored.pixels, pixels)

    def _note(self, fault: str) -> None:
        if not self.faults.frames:
            self.faults.first, self.faults.what = self._frames - 1, fault
        self.faults.frames += 1


def safer_than(restorer: Restorer, checkpoint: str | None) -> Restorer | None:
    """Opens the same weights in float32: ``checkpoint``, or the bundled graph on the CPU. None where one of
    these restores already, or where they are not at hand."""
    now = restorer.description
    if now["precision"] == "fp32" and now["provider"] in ("CPUExecutionProvider", "cpu"):
        return None
    model = checkpoint or bundled_name(now["weights_sha256"])
    if model is None:
        return None
    backend = "auto" if checkpoint else "onnxruntime-cpu"
    safe = restorer.like(model, backend)
    facts = safe.description
    if facts["weights_sha256"] == now["weights_sha256"] and facts["precision"] == "fp32":
        return safe
    safe.close()
    return None


def bundled_name(weights_sha256: str) -> str | None:
    """Finds the name of the bundled weights with this hash, if they are such."""
    for name in at_hand(".onnx"):
        if read_metadata(bundled(name, ".onnx")).get("measnet.weights_sha256") == weights_sha256:
            return name
    return None


def _faults_from(data: bytes) -> Faults:
    """Reads what ``Guard.mark`` wrote of them; it may have been tampered with. Raises ValueError."""
    try:
        return msgspec.json.decode(data, type=Faults)
    except (ValueError, RecursionError):
        raise ValueError("what was noted of its faults cannot be read") from None


def _name(engine: Restorer) -> str:
    return "{backend} {precision}".format_map(engine.description)
