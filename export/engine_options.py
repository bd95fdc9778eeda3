"""The options of ``measnet-export`` about engines, and what is done for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from measnet.export.build_settings import BuildSettings
    from measnet.export.cache import EngineCache
    from measnet.export.engine import Built
    from measnet.export.target import Target

OPTIONS = (
    click.option(
        "--graph",
        "graphs",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Build engines from this ONNX of ours instead of writing one; may be repeated.",
    ),
    click.option(
        "--engine",
        "flavours",
        multiple=True,
        type=click.Choice(["tensorrt", "tensorrt-rtx"]),
        help="Build engines of the graphs; may be repeated.",
    ),
    click.option(
        "--gpu",
        "cards",
        multiple=True,
        metavar="sm89",
        help="RTX cards to build for ahead of time, no GPU needed; may be repeated. sm86+sm89 is one engine "
        "for both, rtx one for all from GeForce RTX 30 on.  [default: this GPU]",
    ),
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="MIN:OPT:MAX",
        help="Range of [BATCHx]HxW for an engine; may be repeated.  [default: 64x64:720x1280:1080x1920]",
    ),
    click.option("--workspace", type=int, metavar="MIB", help="Most scratch memory of an operator."),
    click.option("--optimization-level", type=int, metavar="0-5", help="0 builds fastest.  [default: 3]"),
    click.option("--tf32", is_flag=True, help="Let float32 products lose precision."),
    click.option("--version-compatible", is_flag=True, help="Later versions of TensorRT load it too."),
    click.option(
        "--hardware-compatible",
        type=click.Choice(["ampere-plus", "same-compute-capability"]),
        help="Other GPUs load it too; slower.",
    ),
    click.option("--refit", is_flag=True, help="Weights can be replaced later."),
    click.option("--strip-weights", is_flag=True, help="A small plan that is refitted where it is loaded."),
    click.option("--aux-streams", type=int, metavar="N", help="Streams that a plan may use beside its own."),
    click.option(
        "--timing-cache", metavar="FILE", type=click.Path(path_type=Path), help="TensorRT's timings, kept."
    ),
    click.option(
        "--cache",
        "cache_folder",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Where engines are kept.  [default: the platform's folder for caches]",
    ),
    click.option("--no-cache", is_flag=True, help="Keep no engines and use none that were kept."),
    click.option("--cache-list", is_flag=True, help="Show the engines that are kept."),
    click.option("--cache-clear", is_flag=True, help="Remove the engines that are kept."),
)

NEED_AN_ENGINE = (
    ("graphs", "--graph"),
    ("cards", "--gpu"),
    ("profiles", "--profile"),
    ("workspace", "--workspace"),
    ("optimization_level", "--optimization-level"),
    ("tf32", "--tf32"),
    ("version_compatible", "--version-compatible"),
    ("hardware_compatible", "--hardware-compatible"),
    ("refit", "--refit"),
    ("strip_weights", "--strip-weights"),
    ("aux_streams", "--aux-streams"),
    ("timing_cache", "--timing-cache"),
    ("no_cache", "--no-cache"),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options about engines to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


class EngineWish:
    """The engines that the options ask for, checked before any work is done.

    Raises ``UsageError`` for what cannot be, ``MissingPackageError`` for what is not installed.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        from measnet.errors import UsageError

        self.timing_cache: Path | None = options["timing_cache"]
        self.targets: list[Target] = []
        if not options["flavours"]:
            served = {"graphs"} if options["triton"] else set()
            idle = [n for key, n in NEED_AN_ENGINE if key not in served and _was_given(options[key])]
            if idle:
                raise UsageError(f"{', '.join(idle)} goes with --engine tensorrt or --engine tensorrt-rtx")
            return
        _packages()
        from measnet.export.target import find_targets

        self.settings = settings_of(options)
        self.targets = find_targets(options["flavours"], options["cards"])
        problems = [
            problem
            for flavour in dict.fromkeys(target.flavour for target in self.targets)
            for problem in self.settings.problems_with(flavour)
        ]
        if problems:
            raise UsageError("; ".join(problems))
        self.cache = None if options["no_cache"] else cache_of(options)

    def build(self, graphs: list[Path], folder: Path) -> list[Built]:
        """Builds the engines of ``graphs`` into ``folder``, if any are wished for, and says so."""
        if not self.targets:
            return []
        from rich.console import Console

        from measnet.export.engine import build_engines

        with Console(stderr=True).status("building") as status:
            return build_engines(
                graphs,
                self.targets,
                folder,
                self.settings,
                cache=self.cache,
                timing_cache=self.timing_cache,
                progress=lambda path, words: status.update(f"building {path}: {words}"),
                done=_tell,
            )


def settings_of(options: dict[str, Any]) -> BuildSettings:
    """The builder's settings. Raises ``UsageError`` with every contradiction at once."""
    from measnet.export.build_settings import BuildSettings, Profile

    level = options["optimization_level"]
    return BuildSettings(
        profiles=tuple(Profile.parse(text) for text in options["profiles"]),
        workspace_mib=options["workspace"],
        optimization_level=BuildSettings.optimization_level if level is None else level,
        tf32=options["tf32"],
        version_compatible=options["version_compatible"],
        hardware_compatible=options["hardware_compatible"] or "none",
        refit=options["refit"],
        strip_weights=options["strip_weights"],
        aux_streams=options["aux_streams"],
    )


def cache_of(options: dict[str, Any]) -> EngineCache:
    _packages()
    from measnet.export.cache import EngineCache, default_folder

    return EngineCache(options["cache_folder"] or default_folder())


def manage_cache(options: dict[str, Any]) -> None:
    """``--cache-list`` and ``--cache-clear``. Raises ``OutputError``."""
    cache = cache_of(options)
    if options["cache_list"]:
        entries = cache.entries()
        for entry in entries:
            what = "timings, or nothing that is used any more"
            if entry.facts is not None:
                description = entry.facts.description
                size = description.static_size
                takes = "any size" if size is None else f"{size[0]}x{size[1]}"
                kinds = [description.variant, takes, description.precision]
                kinds += ["steerable"] if description.steerable else []
                what = ", ".join([*kinds, entry.facts.built_for()])
            click.echo(f"{entry.path.name[:12]}  {entry.bytes / 1e6:8.1f} MB  {what}")
        total = sum(entry.bytes for entry in entries)
        click.echo(f"{cache.folder}: {len(entries)} files, {total / 1e6:.1f} MB")
    if options["cache_clear"]:
        click.echo(f"{cache.folder}: {cache.clear() / 1e6:.1f} MB removed")


def hint(graphs: list[Path]) -> str:
    """Says how ``graphs`` become engines: what can be built here, and the commands for the rest elsewhere."""
    import shlex
    from importlib.util import find_spec

    def command(flavour: str, names: list[str]) -> str:
        given = " ".join(f"--graph {shlex.quote(name)}" for name in names)
        return f"measnet-export {given} --engine {flavour}"

    here, names = [str(graph) for graph in graphs], [graph.name for graph in graphs]
    lines = []
    if all(find_spec(name) for name in ("tensorrt_rtx", "polygraphy", "filelock")):
        lines.append("  engines that can be built here, for RTX cards elsewhere:")
        lines.append(f"    {command('tensorrt-rtx', here)} --gpu sm89")
        lines.append("    sm89 is GeForce RTX 40; also sm80, sm86, sm120, rtx (one engine for these four),")
        lines.append("    and sm75 for FP16 graphs")
    else:
        lines.append("  engines for RTX cards can be built here, without a GPU, after:")
        lines.append("    pip install 'measnet[rtx]'")
        lines.append(f"    {command('tensorrt-rtx', here)} --gpu sm89")
    if find_spec("tensorrt") and find_spec("polygraphy") and _sees_gpu():
        lines.append("  TensorRT engines for the GPU of this machine:")
        lines.append(f"    {command('tensorrt', here)}")
    else:
        lines.append("  TensorRT engines are built on the machine that will run them, from the graph alone:")
        lines.append("    pip install 'measnet[tensorrt]'")
        lines.append(f"    {command('tensorrt', names)}")
    return "\n".join(lines)


def _sees_gpu() -> bool:
    from measnet.errors import MissingPackageError
    from measnet.gpu import first_gpu

    try:
        return first_gpu() is not None
    except MissingPackageError:
        return False


def _was_given(value: Any) -> bool:
    return value is not None and value is not False and value != ()


def _tell(built: Built) -> None:
    how = "from the cache" if built.seconds is None else f"built in {built.seconds:.1f} s"
    click.echo(f"{built.path}: {built.facts.built_for()}, {built.plan_bytes / 1e6:.1f} MB, {how}")
    for note in built.notes:
        click.echo(f"  note: {' '.join(note.split())[:300]}")


def _packages() -> None:
    """Raises ``MissingPackageError`` for what building and keeping engines stand on."""
    from measnet.errors import MissingPackageError

    try:
        import filelock  # noqa: F401 - only to find out whether it is there
        import onnx  # noqa: F401 - only that
    except ModuleNotFoundError as error:
        raise MissingPackageError("building engines", error.name or "onnx", "rtx") from None
