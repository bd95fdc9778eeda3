"""Restorer: pictures in, restored pictures out, whatever their size and whatever computes it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from measnet.damage import shares_by_name
from measnet.decision_layout import DecisionLayout, Vector
from measnet.errors import BackendError, UsageError
from measnet.forked import never_end_in_children
from measnet.image import ChannelOrder, Image, Pixels, pad, to_image, to_pixels
from measnet.metrics import Choices
from measnet.runtime.backends import Backend, SteerableBackend, Steering
from measnet.runtime.backends.choice import choose_backend, steerable_twin
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.triton import TritonBackend
from measnet.runtime.frame_kinds import AnyFrame, in_kind_of, to_host
from measnet.runtime.memory import largest_area
from measnet.runtime.tiles import Tile, TileRound, cut, fewest_tiles, restore_tiles, square_tiles
from measnet.runtime.turns import Turns

SMALLEST_TILE = 128  # pixels

MOST_SWEEPS = 6
"""Times that all tiles are asked for their decisions, at most. A decision depends on those before it, so each
sweep starts from the decisions of the last one; bench/tiles.py measures the gain of each."""

SETTLED = 0.02
"""Largest change of a decision by a sweep after which no other one follows."""

ASYNC_THREADS = 2
"""One frame is made ready, or rounded, while another one is computed."""


@dataclass(frozen=True, slots=True)
class RestorerFigures:
    """Figures of a restorer since it was made, as plain values."""

    frames: int = 0
    """Restored."""

    failed: int = 0
    """Refused, or broken off by an error."""

    seconds: float = 0.0
    """Spent on the restored frames together, from being asked to the result, turns of others included."""

    longest: float = 0.0
    """Seconds of the slowest of them."""


@dataclass(frozen=True)
class RestoredFrame:
    """A restored frame and how it came about."""

    pixels: Pixels
    """H W 3, in the restorer's channel order, of the depth that was given."""

    image: Image
    """The same before rounding: 1 3 H W, RGB, about 0 to 1, not clipped. A graph that returns bytes has
    rounded its tiles already."""

    choices: list[Choices]
    """The experts that restored it, per tile."""

    prompt_weights: list[NDArray[np.float32]] = field(default_factory=list)
    """Shares of the basic prompts that were called for, per tile; empty without a prompt."""

    steering: Steering | None = None
    """Image-level decisions that were given to every tile; None where each had its own."""

    decisions: Vector | None = None
    """D: the picture's own image-level decisions, whatever held; None without ``steering``."""

    damage: dict[str, float] | None = None
    """Shares of noise, rain and so on (``measnet/damage.py``) in the damage of the picture itself, whatever
    the prompt was held to; they sum to 1. None where the weights were not taught them."""

    @property
    def tiles(self) -> int:
        """Pieces it was restored in; 1 is whole."""
        return len(self.choices)


_LEAST_MEMORY = 1000
"""Bytes; less is a number of gigabytes, as ``--memory`` takes it."""


class Restorer:
    """Restores uint8 and uint16 pictures of any size, each for itself.

    >>> restorer = Restorer("nano")
    >>> restored = restorer(pixels)              # uint8 or uint16, H W 3 -> the same
    >>> for restored in restorer.stream(frames): # in order, the next one computed meanwhile
    ...     show(restored)
    >>> restored = await restorer.restore_async(pixels)

    ``model`` is a bundled variant (``nano``), an .onnx or .engine file that ``measnet-export`` wrote, or a
    checkpoint. ``backend`` is ``auto``, ``onnxruntime``, ``tensorrt``, ``torch``, the address of a server
    (``triton://HOST:PORT/MODEL``), or an object that computes (``measnet.testing.FakeBackend``). ``tile`` is
    ``auto`` (tiles when a picture is too large for ``memory``, in bytes, by default what is free), ``off``,
    or the side of square tiles in pixels. Tiles are given the image-level decisions of the whole picture,
    where the model can be steered. ``task`` (``dehaze``) holds the prompt to what that degradation calls for,
    where the weights know it. ``steered`` says that frames will be held steady: the graph that takes
    decisions is loaded at once, and no other; a picture restored as a whole takes it some percent longer.

    Any number of threads may share it. They take turns at computing, because one inference keeps all cores
    busy already; TensorRT has a context for each thread, so there they do not wait. Restorers that are given
    the same ``turns`` take turns with each other, TensorRT's as well. It belongs to the process that made it:
    a forked child may close it, and is refused everything else.

    Frames are NumPy arrays, PyTorch tensors or anything else with ``__dlpack__``, in the host's memory. A
    tensor comes back as a tensor, everything else as a NumPy array. Frames on a GPU are refused.

    Raises ``UsageError`` for what cannot be used, ``BackendError`` when the backend fails.
    """

    def __init__(
        self,
        model: str = "nano",
        backend: str | Backend = "auto",
        channel_order: ChannelOrder = "rgb",
        *,
        tile: int | Literal["auto", "off"] = "auto",
        threads: int | None = None,
        memory: int | None = None,
        task: str | None = None,
        turns: Turns | None = None,
        steered: bool = False,
    ) -> None:
        if channel_order not in ("rgb", "bgr"):
            raise UsageError(f"channel_order is {channel_order!r}, must be 'rgb' or 'bgr'")
        if tile not in ("auto", "off") and not isinstance(tile, int):
            raise UsageError(f"tile is {tile!r}, must be 'auto', 'off' or a number of pixels")
        if isinstance(tile, int) and tile < SMALLEST_TILE:
            raise UsageError(f"tiles of {tile} pixels are too small, take at least {SMALLEST_TILE}")
        if threads is not None and not (isinstance(threads, int) and threads >= 1):
            raise UsageError(f"threads is {threads!r}, must be a number from 1 on")
        if memory is not None and memory < _LEAST_MEMORY:
            raise UsageError(f"memory is {memory}, must be a number of bytes: 4 GB are 4_000_000_000")
        self.model = model
        self.channel_order = channel_order
        self.tile = tile
        self._threads = threads
        self._memory = memory
        self._task = task
        self._for_steering = steered
        if isinstance(backend, str):
            steered = steered or task is not None or isinstance(tile, int)
            backend = choose_backend(model, backend, threads, steered=steered)
        self._backend = backend
        self._backend.activate()
        self._process = os.getpid()
        never_end_in_children(self._backend)
        self._steered: SteerableBackend | None = None
        self._turns = turns
        self._turn: AbstractContextManager[Any] = turns or Turns()
        if isinstance(self._backend, TritonBackend) or (
            turns is None and isinstance(self._backend, TensorRTBackend)
        ):
            self._turn = nullcontext()
        self._lock = threading.RLock()  # of all that follows
        self._figures = RestorerFigures()
        self._executor: ThreadPoolExecutor | None = None
        self._tiles: dict[tuple[int, int], list[Tile]] = {}
        self._rounds = self._closed = False
        self._task_prompt = None if task is None else self._prompt_of(task)

    def __call__(self, frame: AnyFrame) -> AnyFrame:
        """Restores a picture: uint8 (0 to 255) or uint16 (0 to 65535), H W 3 -> the same; or N H W 3, a batch
        of them, one after another.

        A graph that takes bytes restores a uint16 picture rounded to 8 bits.
        """
        pixels = to_host(frame)
        if getattr(pixels, "ndim", 3) == 4 and len(pixels):
            return in_kind_of(frame, np.stack([self.restore(one).pixels for one in pixels]))
        return in_kind_of(frame, self.restore(pixels).pixels)

    def stream(self, frames: Iterable[AnyFrame], in_flight: int = 2) -> Generator[AnyFrame, None, None]:
        """Restores frames as they are asked for, in order: the next ones are computed while the caller deals
        with one.

        ``frames`` is read in the caller's thread, at most ``in_flight`` frames ahead; none of these may be
        written to before its result is out. With 1, nothing is read ahead: no frame waits for the one after
        it. An error of ``frames`` or of the engine is raised in the place of the frame that it hit, and ends
        the stream. Closing the generator waits for the frames being computed, and ends its threads.
        """
        if not isinstance(in_flight, int) or in_flight < 1:
            raise UsageError(f"in_flight is {in_flight!r}, must be at least 1")
        return _in_order(self, frames, in_flight, self._refuse_in_children)

    async def restore_async(self, frame: AnyFrame) -> AnyFrame:
        """Restores one picture, as calling does, while the event loop goes on.

        Frames are begun in the order of the calls, in threads of the restorer's own. A call that is cancelled
        before its turn computes nothing; after, its result is thrown away.
        """
        import asyncio  # a twentieth of the time that measnet-run takes to start

        self._refuse_in_children()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(ASYNC_THREADS, "measnet-async")
            future = self._executor.submit(self, frame)
        return await asyncio.wrap_future(future)

    @property
    def figures(self) -> RestorerFigures:
        """Counts and times so far."""
        return self._figures

    def restore(
        self, pixels: Pixels, steering: Steering | None = None, *, apart: bool = False
    ) -> RestoredFrame:
        """Restores one picture, as calling does, and tells everything there is to know about the result.

        ``steering`` gives image-level decisions in place of those that the picture would have settled;
        ``apart`` lets each tile decide for itself, as models do that cannot be steered.
        """
        self._refuse_in_children()
        started, seconds = time.perf_counter(), None
        try:
            with self._said_if_closed():
                restored = self._restore(pixels, steering, apart)
            seconds = time.perf_counter() - started
        finally:
            self._count(seconds)
        return restored

    @contextmanager
    def _said_if_closed(self) -> Generator[None, None, None]:
        """Turns any failure after ``close`` into one that says so."""
        try:
            yield
        except BackendError:
            if not self._closed:
                raise
            raise BackendError(
                "this Restorer was closed, by close() or at the end of its with block; make another one"
            ) from None

    def _count(self, seconds: float | None) -> None:
        with self._lock:
            past = self._figures
            if seconds is None:
                self._figures = replace(past, failed=past.failed + 1)
            else:
                longest = max(past.longest, seconds)
                self._figures = RestorerFigures(past.frames + 1, past.failed, past.seconds + seconds, longest)

    def _restore(self, pixels: Pixels, steering: Steering | None, apart: bool) -> RestoredFrame:
        image = to_image(pixels, self.channel_order)
        if self._rounds:
            image = to_image(to_pixels(image))
        height, width = image.shape[2:]
        tiles = self.tiles_for(height, width)
        if steering is None and not apart:
            steering = self._settle(image, tiles)
        if steering is None and self._task_prompt is not None:
            steering = self.unsteered()
        choices: list[Choices] = []
        prompts: list[NDArray[np.float32]] = []
        around = None if steering is None else self._round(image, tiles)

        def restore_tile(tile: Tile) -> Image:
            if around is None or steering is None:
                piece = cut(image, tile)
                padded = pad(piece, self._backend.description.fit(*piece.shape[2:]))
                with self._turn:
                    done = self._backend.infer(padded)
            else:
                with self._turn:
                    done = around.ask(tile, steering)
            choices.append(done.choices)
            if done.prompt_weights is not None:
                prompts.append(done.prompt_weights)
            restored = done.restored[:, :, : tile.height, : tile.width]
            return to_image(to_pixels(restored)) if self._rounds else restored

        restored = restore_tiles(image.shape, tiles, restore_tile)
        if not np.isfinite(restored).all():
            raise BackendError(
                "the restored picture holds NaN or infinity; run with --verify 1 to find out why"
            )
        whole = to_pixels(restored, self.channel_order, pixels.dtype)
        decisions = None if around is None else around.settled()
        damage = self._damage(prompts, decisions)
        return RestoredFrame(whole, restored, choices, prompts, steering, decisions, damage)

    def settle(self, pixels: Pixels) -> Steering | None:
        """The image-level decisions for every tile of a picture, as ``restore`` settles them for itself;
        None where each tile has its own."""
        self._refuse_in_children()
        with self._said_if_closed():
            return self._settle(to_image(pixels, self.channel_order), self.tiles_for(*pixels.shape[:2]))

    def steer(self, held: Vector, share: float) -> Steering:
        """Takes ``share`` (0 to 1) of every decision from ``held`` (D); the whole prompt from the task."""
        return self._of_task(Steering(held, self._layout.hold(share)))

    def unsteered(self) -> Steering:
        """Takes nothing from outside but the task's prompt: every tile decides for itself."""
        nothing = self._layout.hold(0)
        return self._of_task(Steering(held=nothing, hold=nothing))

    def _of_task(self, steering: Steering) -> Steering:
        if self._task_prompt is None:
            return steering
        held, hold = steering.held.copy(), steering.hold.copy()
        held[self._layout.prompt], hold[self._layout.prompt] = self._task_prompt, 1
        return Steering(held, hold, steering.window)

    def _prompt_of(self, task: str) -> Vector:
        """T scores. Raises ``UsageError`` for a task that the weights do not know."""
        known = self._backend.description.task_prompts
        if task not in known:
            names = f"they know {', '.join(self.tasks)}" if known else "they know no tasks"
            raise UsageError(f"the weights of {self.model} do not know the task {task!r}: {names}")
        if not self.steerable:
            raise UsageError(
                f"{self.model} cannot be held to a task: it takes no decisions from outside; take a bundled "
                "model, a checkpoint, or a graph or an engine made with --steerable"
            )
        return np.array(known[task], np.float32)

    @property
    def _layout(self) -> DecisionLayout:
        """Reads the layout of the decisions from what is steered."""
        steered = self._steerable()
        return DecisionLayout() if steered is None else steered.description.decisions

    @property
    def decisions_size(self) -> int:
        """D, how many numbers all image-level decisions are."""
        return self._layout.size

    @property
    def steerable(self) -> bool:
        """Says whether its model takes image-level decisions from outside."""
        return self._steerable() is not None

    @property
    def tasks(self) -> list[str]:
        """The tasks that its weights know, for ``task``."""
        return sorted(self._backend.description.task_prompts)

    def _damage(
        self, prompts: list[NDArray[np.float32]], decisions: Vector | None
    ) -> dict[str, float] | None:
        if not (self._backend.description.taught and prompts):
            return None
        if decisions is None:
            return shares_by_name(np.asarray(np.concatenate(prompts).mean(axis=0, dtype=np.float64)))
        scores = decisions[self._layout.prompt].astype(np.float64)
        powers = np.exp(scores - scores.max())
        return shares_by_name(powers / powers.sum())

    def _settle(self, image: Image, tiles: list[Tile]) -> Steering | None:
        if len(tiles) == 1 or self._steerable() is None:
            return None
        steering = self.unsteered()
        for sweep in range(MOST_SWEEPS):
            around = self._round(image, tiles)
            for tile in tiles:
                with self._turn:
                    around.ask(tile, steering)
            before, steering = steering.held, self.steer(around.settled(), 1)
            if sweep and np.abs(steering.held - before).max() < SETTLED:
                break
        return steering

    def _round(self, image: Image, tiles: list[Tile]) -> TileRound:
        backend = self._steerable()
        assert backend is not None
        return TileRound(backend, self._layout, image, tiles)

    def _steerable(self) -> SteerableBackend | None:
        """Finds what computes the same with decisions from outside; None where nothing does."""
        with self._lock:
            if self._steered is None:
                if self._backend.description.steerable:
                    self._steered = cast(SteerableBackend, self._backend)
                elif (other := steerable_twin(self._backend, self.model, self._threads)) is not None:
                    other.activate()
                    never_end_in_children(other)
                    self._steered = other
            return self._steered

    def tiles_for(self, height: int, width: int) -> list[Tile]:
        """Says in which tiles a picture of this size is restored, decided once per size."""
        with self._lock:
            if (height, width) not in self._tiles:
                self._tiles[height, width] = self._new_tiles(height, width)
            return self._tiles[height, width]

    def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
        """Has pictures of this size restored in ``tiles``, however much memory is free."""
        self._tiles[height, width] = tiles

    def follow(self, other: Restorer, height: int, width: int) -> None:
        """Takes over the tiles that ``other`` uses for pictures of this size, and rounds them to bytes if it
        does."""
        self._rounds = other._backend.description.takes_bytes
        self._tiles[height, width] = other.tiles_for(height, width)

    def like(self, model: str, backend: str) -> Restorer:
        """Another restorer with the same options and the same tiles, of another model and backend."""
        other = Restorer(
            model,
            backend,
            self.channel_order,
            tile=self.tile,
            threads=self._threads,
            memory=self._memory,
            task=self._task,
            turns=self._turns,
            steered=self._for_steering,
        )
        other._tiles = dict(self._tiles)
        return other

    @property
    def description(self) -> dict[str, Any]:
        """The model and what runs it, ready for JSON."""
        with self._said_if_closed():
            graph, facts = self._backend.description, self._backend.facts
        return {
            "model": self.model,
            "variant": graph.variant,
            "weights_sha256": graph.weights_sha256,
            "precision": graph.precision,
            "io": graph.io,
            **({} if self._task is None else {"task": self._task}),
            **facts,
        }

    def close(self) -> None:
        """Lets go of everything, once the picture or tile that is being computed is done. Calls that come
        later, or still wait in other threads, raise ``BackendError``."""
        if os.getpid() != self._process:
            return
        with self._turn:
            self._closed = True
            self._backend.deactivate()
            if self._steered is not None:
                self._steered.deactivate()
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()

    def __enter__(self) -> Restorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_in_children(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "this process was forked from the one that made the restorer, whose threads are not in it; "
                "start processes by multiprocessing's 'spawn', and make a restorer in each"
            )

    def _new_tiles(self, height: int, width: int) -> list[Tile]:
        graph = self._backend.description
        if isinstance(self.tile, int):
            return square_tiles(height, width, self.tile, graph.size_rule)
        if graph.static_size is not None and self.tile == "auto":
            rows, columns = graph.static_size
            if height > rows or width > columns:
                raise UsageError(
                    f"this graph takes {rows}x{columns} pixels (height x width), "
                    f"the frame has {height}x{width}; export one with --shape {height}x{width} or "
                    f"--dynamic, or add --tile {min(rows, columns)}"
                )
        if self.tile == "off" or graph.static_size is not None:
            return [Tile(0, 0, height, width)]
        return fewest_tiles(height, width, largest_area(graph.config, self._memory), graph.size_rule)


def _in_order(
    restore: Callable[[AnyFrame], AnyFrame],
    frames: Iterable[AnyFrame],
    in_flight: int,
    check: Callable[[], None],
) -> Generator[AnyFrame, None, None]:
    """Calls ``restore`` on ``frames``, up to ``in_flight`` at once, and gives the results in order.

    ``check`` is called in the caller's thread before each wait, and may raise.
    """
    check()
    source, waiting = iter(frames), deque[Future[AnyFrame]]()
    ended, failure = False, None
    with ThreadPoolExecutor(in_flight, "measnet-stream") as pool:
        try:
            while not ended or waiting:
                while not ended and len(waiting) < in_flight:
                    try:
                        waiting.append(pool.submit(restore, next(source)))
                    except StopIteration:
                        ended = True
                    except Exception as error:
                        ended, failure = True, error  # its turn comes after the frames before it
                check()
                if waiting:
                    yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in waiting:
                future.cancel()
