"""Graph -> engine: one file per graph and target, from the cache where that is possible.

targets = find_targets(("tensorrt-rtx",), ("sm86", "sm89"))
build_engines([Path("nano-dynamic.onnx")], targets, Path("."), BuildSettings(), cache=None)
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

from measnet.engine_file import EngineFacts, Range, write_engine
from measnet.errors import OutputError, UsageError
from measnet.export.build_settings import (
    DYNAMIC_PROFILE,
    BatchShape,
    BuildSettings,
    Profile,
)
from measnet.export.builder_process import Plan, build_plan
from measnet.export.cache import EngineCache, read_timing_cache, write_timing_cache
from measnet.export.graph import Graph, read_graph
from measnet.export.target import EngineTarget
from measnet.export.turing import turing_graph


@dataclass(frozen=True)
class Built:
    """An engine that is there now."""

    path: Path
    facts: EngineFacts
    plan_bytes: int
    seconds: float | None
    """Seconds that the build took; None for an engine from the cache."""

    notes: tuple[str, ...]
    """TensorRT's warnings, and what could not be kept."""


@dataclass(frozen=True)
class _Job:
    graph: Graph
    facts: EngineFacts
    target: EngineTarget
    output: Path


def build_engines(
    graphs: Sequence[Path],
    targets: Sequence[EngineTarget],
    output: Path,
    settings: BuildSettings,
    *,
    cache: EngineCache | None,
    timing_cache: Path | None = None,
    progress: Callable[[Path, str], None] = lambda _path, _words: None,
    done: Callable[[Built], None] = lambda _built: None,
) -> list[Built]:
    """Builds every graph for every target into the folder ``output``, as ``NAME.rtx-sm89.engine``.

    With a ``cache``, what was built before is taken from there. ``timing_cache`` is a file with TensorRT's
    timings to start from and to add to; with None they are kept in the cache. ``progress`` is told where a
    build is, ``done`` each engine as it is there.

    Everything wrong with graphs, targets and settings is raised at once, before the first build, as
    ``GraphError`` or ``UsageError``. Raises ``OutputError`` when an engine cannot be written, and what
    ``build_plan`` raises; engines that are done stay, of the one that failed nothing is left.
    """
    problems = [
        problem
        for flavour in dict.fromkeys(target.flavour for target in targets)
        for problem in settings.problems_with(flavour)
    ]
    jobs = []
    for path in graphs:
        graph = read_graph(path)
        for target in targets:
            profiles, misfits = graph_profiles(graph, settings, target)
            problems += [f"{path}: {misfit}" for misfit in misfits]
            facts = engine_facts(graph, profiles, settings, target)
            jobs.append(_Job(graph, facts, target, output / f"{path.stem}.{target.label}.engine"))
    names = Counter(job.output for job in jobs)
    problems += [f"{count} engines would be called {path}" for path, count in names.items() if count > 1]
    if problems:
        raise UsageError("; ".join(dict.fromkeys(problems)))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from None
    built = []
    for job in jobs:
        built.append(_build(job, settings, cache, timing_cache, progress))
        done(built[-1])
    return built


def graph_profiles(
    graph: Graph, settings: BuildSettings, target: EngineTarget
) -> tuple[tuple[dict[str, Range], ...], list[str]]:
    """The shapes of every input for every profile of ``settings``, and what does not fit the graph."""
    static = graph.description.static_size
    wanted = settings.profiles or (DYNAMIC_PROFILE if static is None else _static_profile(static, target),)
    profiles, problems = [], []
    for given in wanted:
        profile = given.fitted(graph.description.frame_rule)
        if static is not None and any((f.height, f.width) != static for f in profile.all()):
            problems.append(
                f"profile {given} asks for other sizes than the graph's {static[0]}x{static[1]}; "
                f"only the batch may vary, or export one with --dynamic"
            )
        profiles.append(
            {
                value.name: (
                    _shape(value, profile.smallest),
                    _shape(value, profile.usual),
                    _shape(value, profile.largest),
                )
                for value in graph.model.graph.input
            }
        )
    return tuple(profiles), problems


def _static_profile(size: tuple[int, int], target: EngineTarget) -> Profile:
    """One frame at a time; where nothing at all may vary, TensorRT-RTX folds so much into constants for
    Turing that a plan grows twentyfold, so there it is one or two."""
    one = BatchShape(1, *size)
    return Profile(one, one, BatchShape(2, *size) if target.turing_rtx else one)


def engine_facts(
    graph: Graph, profiles: tuple[dict[str, Range], ...], settings: BuildSettings, target: EngineTarget
) -> EngineFacts:
    """The facts about the engine of ``graph``, whose hash is its name in the cache."""
    calibration = graph.description.calibration
    return EngineFacts(
        graph_sha256=graph.sha256,
        graph=graph.description.to_metadata(),
        calibration_sha256="" if calibration is None else calibration.sha256,
        profiles=profiles,
        settings=settings.as_facts(),
        measnet_version=version("measnet"),
        **vars(target),
    )


def _shape(value: onnx.ValueInfoProto, frames: BatchShape) -> tuple[int, ...]:
    """The shape of an input, its free dimensions taken from ``frames`` by their names."""
    named = vars(frames)
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") else named[dimension.dim_param]
        for dimension in value.type.tensor_type.shape.dim
    )


def _build(
    job: _Job,
    settings: BuildSettings,
    cache: EngineCache | None,
    timing_cache: Path | None,
    progress: Callable[[Path, str], None],
) -> Built:
    made: list[Plan] = []
    content = job.graph.content
    if job.target.turing_rtx:
        content = turing_graph(job.graph.model).SerializeToString()
    notes: list[str] = []
    kept_here = False
    if timing_cache is None and cache is not None:
        kept_here = True
        timing_cache = cache.folder / f"{timings_name(job.target)}.timing"
    timings, note = None, ""
    if timing_cache is not None:
        timings, note = read_timing_cache(timing_cache, job.target, replace_any=kept_here)
    notes += [note] if note else []

    def build() -> bytes:
        made.append(
            build_plan(
                content,
                job.target.flavour,
                job.target.compute_capabilities,
                ahead_of_time=job.target.ahead_of_time,
                profiles=job.facts.profiles,
                settings=settings,
                timing_cache=timings,
                progress=lambda words: progress(job.output, words),
            )
        )
        return made[-1].plan

    if cache is None:
        plan = build()
    else:
        found = cache.plan_for(job.facts, build)
        plan = found.plan
        notes += found.notes
    if made:
        notes += made[-1].warnings
        if timing_cache is not None and made[-1].timing_cache:
            try:
                # Another process may be keeping its own.
                with cache.lock("timings") if cache is not None and kept_here else contextlib.nullcontext():
                    write_timing_cache(timing_cache, job.target, made[-1].timing_cache)
            except (OutputError, OSError) as error:
                notes.append(f"the timings were not kept: {error}")
    write_engine(job.output, job.facts, plan)
    return Built(job.output, job.facts, len(plan), made[-1].seconds if made else None, tuple(notes))


def timings_name(target: EngineTarget) -> str:
    """The name under which the cache keeps a target's timings."""
    return hashlib.sha256(repr(target).encode()).hexdigest()[:32]
