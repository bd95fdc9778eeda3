"""An engine under guard: what it does on a fault is decided before the run, and nothing passes unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from measnet.errors import BackendError
from measnet.onnx_file import read_metadata
from measnet.runtime.frame import Pixels
from measnet.runtime.health import Health
from measnet.runtime.job import Engine, Restored, Stateful
from measnet.runtime.options import OnFault
from measnet.runtime.restorer import Restorer
from measnet.runtime.sinks.manifest import is_count
from measnet.runtime.tiles import Tile
from measnet.weights import at_hand, bundled


class SafeEngine(Engine, Protocol):
    """An engine to fall back to, which the guard closes."""

    def close(self) -> None: ...


@dataclass
class Faults:
    """What was wrong with how many frames, and what was done about it."""

    frames: int = 0
    first: int | None = None
    """Number of the first one, from 0."""

    what: str | None = None
    """What was wrong with the first one."""

    fallback: dict[str, Any] | None = None
    """The engine that restored from that frame on, if another one did."""

    def for_report(self) -> dict[str, Any] | None:
        """Ready for JSON; None when nothing was wrong."""
        return asdict(self) if self.frames else None


class Guard:
    """Has the face of the engine it guards, and looks at every frame that comes back.

    Args:
        engine: what restores.
        on_fault: ``fallback`` restores the frame again, and all that follow, with what ``safer`` gives, and
            stops where there is no such engine; ``stop`` raises; ``ignore`` counts.
        safer: opens the engine to fall back to; None when there is none. Called at most once.
    """

    def __init__(self, engine: Engine, on_fault: OnFault, safer: Callable[[], SafeEngine | None]) -> None:
        self.faults = Faults()
        self._engine = engine
        self._fallen_back_to: SafeEngine | None = None
        self._on_fault = on_fault
        self._safer = safer
        self._health = Health()
        self._frames = 0
        self._held: dict[tuple[int, int], list[Tile]] = {}

    @property
    def description(self) -> dict[str, Any]:
        return self._engine.description

    def plan(self, height: int, width: int) -> list[Tile]:
        """As the engine's."""
        return self._engine.plan(height, width)

    def hold(self, height: int, width: int, tiles: list[Tile]) -> None:
        """As the engine's; one that is fallen back to restores in the same tiles."""
        self._engine.hold(height, width, tiles)
        self._held[height, width] = tiles

    def state(self) -> bytes | None:
        """The faults so far, and what the engine carries on if it is Stateful; None if there is neither."""
        own = self._engine.state() if isinstance(self._engine, Stateful) else b""
        if not own and not self.faults.frames:
            return None
        return json.dumps(asdict(self.faults)).encode() + b"\n" + own

    def go_on_at(self, frame: int, state: bytes | None) -> None:
        """The next frame has this number, as an earlier run restored those before it and left ``state``. If
        that run had fallen back, this one has too.

        Raises ValueError where the engine cannot go on from ``state``.
        """
        self._frames = frame
        head, _, own = (state or b"{}").partition(b"\n")
        faults = _faults_from(head)
        if faults.fallback is not None:
            safe = self._safer()
            if safe is None:
                raise ValueError("the engine that was fallen back to is not at hand any more")
            self._fall_back_to(safe)
            faults.fallback = dict(safe.description)
        self.faults = faults
        if isinstance(self._engine, Stateful) != bool(own):
            raise ValueError("what the engine knew of the frames before is not there")
        if isinstance(self._engine, Stateful):
            self._engine.set_state(own)

    def restore(self, pixels: Pixels) -> Restored:
        """As the engine's. Raises ``BackendError`` on a fault that is not to be, or cannot be, mended."""
        restored, fault = self._try(pixels)
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
                self.faults.fallback = dict(safe.description)
                restored, again = self._try(pixels)
                if again is None and restored is not None:
                    return restored
                fault = f"{fault}; with {_name(safe)} too: {again}"
        raise BackendError(
            f"frame {self._frames - 1} came back wrong from {_name(self._engine)}: {fault}; "
            "choose another --model or --backend, or --on-fault"
        )

    def close(self) -> None:
        """Lets go of the engine that was fallen back to, if one was; the guarded one is its owner's."""
        if self._fallen_back_to is not None:
            self._fallen_back_to.close()
            self._fallen_back_to = None

    def _fall_back_to(self, safe: SafeEngine) -> None:
        self._engine = self._fallen_back_to = safe
        for size, tiles in self._held.items():
            safe.hold(*size, tiles)
        self._health = Health()

    def _try(self, pixels: Pixels) -> tuple[Restored | None, str | None]:
        """The engine's result, and what is wrong with it."""
        try:
            restored = self._engine.restore(pixels)
        except BackendError as error:
            return None, str(error)
        return restored, self._health.look(pixels, restored.pixels)

    def _note(self, fault: str) -> None:
        if not self.faults.frames:
            self.faults.first, self.faults.what = self._frames - 1, fault
        self.faults.frames += 1


def safer_than(restorer: Restorer, checkpoint: str | None) -> Restorer | None:
    """The same weights in float32: ``checkpoint``, or the bundled graph on the CPU. None where one of these
    restores already, where they are not at hand, or where an engine does not say which weights it has."""
    now = restorer.description
    if "weights_sha256" not in now:
        return None
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
    """The name of the bundled weights with this hash, if they are such."""
    for name in at_hand(".onnx"):
        if read_metadata(bundled(name, ".onnx")).get("measnet.weights_sha256") == weights_sha256:
            return name
    return None


def _faults_from(data: bytes) -> Faults:
    """What ``Guard.state`` made of them, which may have been tampered with. Raises ValueError."""
    try:
        known = json.loads(data)
        faults = Faults(**known)
    except (ValueError, RecursionError, TypeError):
        raise ValueError("what was noted of its faults cannot be read") from None
    sound = (
        is_count(faults.frames)
        and (faults.first is None or is_count(faults.first))
        and isinstance(faults.what, str | None)
        and isinstance(faults.fallback, dict | None)
    )
    if not sound:
        raise ValueError("what was noted of its faults cannot be read")
    return faults


def _name(engine: Engine) -> str:
    facts = engine.description
    return " ".join(str(facts[key]) for key in ("backend", "precision") if key in facts) or "the engine"
