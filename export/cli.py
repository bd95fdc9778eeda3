"""``measnet-export``: a checkpoint in, ONNX graphs out; and what is done with graphs afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import HELP, CommandInParts, run_command, say
from measnet.errors import need
from measnet.export.options import GraphOptions, Precision, graph_options
from measnet.printable import printable

if TYPE_CHECKING:
    from measnet.export.check import Parser
    from measnet.export.engine import Built
    from measnet.export.make import Making

WIDE: dict[str, Any] = {**HELP, "max_content_width": 100}
BUILDING = ("building engines", "rtx", "filelock", "onnx")
STOPPED = "stopped; nothing was left half-written"
FILE = click.Path(path_type=Path)
IMAGE = "nvcr.io/nvidia/tritonserver:YY.MM-py3"

debug_option = click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
cache_option = click.option(
    "--cache",
    "cache_folder",
    metavar="DIR",
    type=FILE,
    help="Where engines are kept.  [default: the platform's folder for caches]",
)


@click.command(
    context_settings=WIDE,
    epilog="""\b
Examples:
  measnet-export check any.onnx                                or the name of a bundled one
  measnet-export check graphs/nano-dynamic.fp16.onnx -o findings.json

Exit status: 0 done, 1 it has an error, 2 the file cannot be read.""",
)
@click.argument("file")
@click.option("-o", "--out", metavar="FILE", type=FILE, help="The same as JSON.")
@debug_option
@click.pass_obj
def check(parser: Parser | None, /, file: str, out: Path | None, debug: bool) -> None:
    """Say what TensorRT would refuse in any ONNX file, and what to do.

    NVIDIA's own parser is asked too, where TensorRT or TensorRT-RTX is installed. The file may be hostile:
    nothing in it is run.
    """
    run_command(lambda: _check(_graph_file(file), out, parser), debug=debug, interrupted=STOPPED)


def _check(file: Path, out: Path | None, parser: Parser | None) -> None:
    from measnet.whole_file import check_place

    if out is not None:
        check_place(out, "--out", [file])
    need("checking a graph", "export", "onnx")
    from measnet.export.check import check_file, lines, write_findings

    findings = check_file(file) if parser is None else check_file(file, parser)
    for line in lines(file, findings):
        say(line)
    if out is not None:
        write_findings(out, file, findings)
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


@click.command(
    context_settings=WIDE,
    epilog="""\b
Examples:
  measnet-export engine nano-dynamic.fp16.onnx                 for this machine's GPU, with TensorRT
  measnet-export engine nano-dynamic.fp16.onnx --gpu sm89      for RTX 40 cards, no GPU needed
  measnet-export engine nano-dynamic.fp16.onnx --gpu rtx       one engine for RTX 30 to 50
  measnet-export engine a.onnx b.onnx --gpu sm89 --profile 64x64:720x1280:1080x1920 -o engines/""",
)
@click.argument("graphs", nargs=-1, required=True, metavar="GRAPH...")
@click.option(
    "--with",
    "flavours",
    multiple=True,
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="The builder; may be repeated.  [default: tensorrt-rtx with --gpu, else tensorrt]",
)
@click.option(
    "--gpu",
    "cards",
    multiple=True,
    metavar="sm89",
    help="RTX cards to build for ahead of time; may be repeated. sm86+sm89 is one engine for both, rtx one "
    "for all from GeForce RTX 30 on.  [default: this GPU]",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="MIN:OPT:MAX",
    help="Range of [BATCHx]HxW; may be repeated.  [default: 64x64:720x1280:1080x1920, or the graph's size]",
)
@click.option("-o", "--out", default=".", type=FILE, help="Folder for the engines.  [default: this folder]")
@click.option(
    "--workspace", "workspace_mib", type=int, metavar="MIB", help="Most scratch memory of an operator."
)
@click.option(
    "--optimization-level", type=int, default=3, show_default=True, metavar="0-5", help="0 builds fastest."
)
@click.option("--tf32", is_flag=True, help="Let float32 products lose precision.")
@click.option("--version-compatible", is_flag=True, help="Later versions of TensorRT load it too.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(["none", "ampere-plus", "same-compute-capability"]),
    default="none",
    help="Other GPUs load it too; slower.",
)
@click.option("--aux-streams", type=int, metavar="N", help="Streams that a plan may use besides its own.")
@click.option("--timing-cache", metavar="FILE", type=FILE, help="TensorRT's timings, kept.")
@cache_option
@click.option("--no-cache", is_flag=True, help="Keep no engines and use none that were kept.")
@debug_option
def engine(
    graphs: tuple[str, ...],
    flavours: tuple[str, ...],
    cards: tuple[str, ...],
    profiles: tuple[str, ...],
    out: Path,
    timing_cache: Path | None,
    cache_folder: Path | None,
    no_cache: bool,
    debug: bool,
    **settings: Any,
) -> None:
    """Build TensorRT engines from graphs of ours: .onnx files, or names of bundled ones."""

    def build() -> None:
        from rich.console import Console

        need(*BUILDING)
        from measnet.export.build_settings import BuildSettings, Profile
        from measnet.export.cache import EngineCache, default_folder
        from measnet.export.engine import build_engines
        from measnet.export.target import find_targets

        wished = BuildSettings(profiles=tuple(Profile.parse(text) for text in profiles), **settings)
        targets = find_targets(flavours or ("tensorrt-rtx" if cards else "tensorrt",), cards)
        with Console(stderr=True).status("building") as status:
            build_engines(
                [_graph_file(name) for name in graphs],
                targets,
                out,
                wished,
                cache=None if no_cache else EngineCache(cache_folder or default_folder()),
                timing_cache=timing_cache,
                progress=lambda path, words: status.update(f"building {path}: {words}"),
                done=_tell,
            )

    run_command(build, debug=debug, interrupted=STOPPED)


def _tell(built: Built) -> None:
    how = "from the cache" if built.seconds is None else f"built in {built.seconds:.1f} s"
    say(f"{built.path}: {built.facts.built_for()}, {built.plan_bytes / 1e6:.1f} MB, {how}")
    for note in built.notes:
        say(f"  note: {printable(' '.join(note.split()), 300)}")


def _graph_file(name: str) -> Path:
    """The graph at a path, or the bundled one of a name."""
    from measnet.weights import NAMES, bundled

    return bundled(name, ".onnx") if name in NAMES else Path(name)


@click.command(
    context_settings=WIDE,
    epilog="""\b
Examples:
  measnet-export cache
  measnet-export cache --clear --cache kept/""",
)
@click.option("--clear", is_flag=True, help="Remove the engines that are kept.")
@cache_option
@debug_option
def cache(clear: bool, cache_folder: Path | None, debug: bool) -> None:
    """Show the engines that are kept, or remove them."""

    def manage() -> None:
        need(*BUILDING)
        from measnet.export.cache import EngineCache, default_folder

        kept = EngineCache(cache_folder or default_folder())
        if clear:
            say(f"{kept.folder}: {kept.clear() / 1e6:.1f} MB removed")
            return
        entries = kept.entries()
        for entry in entries:
            say(f"{entry.path.name[:12]}  {entry.bytes / 1e6:8.1f} MB  {entry.what()}")
        say(f"{kept.folder}: {len(entries)} files, {sum(e.bytes for e in entries) / 1e6:.1f} MB")

    run_command(manage, debug=debug, interrupted=STOPPED)


@click.command(
    context_settings=WIDE,
    epilog="""\b
Examples:
  measnet-export triton graphs/nano-dynamic.bytes.onnx -o models/
  measnet-export triton nano.onnx --engine nano.trt-sm89.engine -o models/ --batch 4 --instances 2""",
)
@click.argument("graphs", nargs=-1, required=True, metavar="GRAPH...")
@click.option(
    "--engine", "engine_file", metavar="FILE", type=FILE, help="Serve the plan in this engine of GRAPH."
)
@click.option("-o", "--out", required=True, metavar="DIR", type=FILE, help="The model repository.")
@click.option(
    "--batch",
    type=int,
    metavar="N",
    help="Most frames at once.  [default: 8; of an engine, its profile's]",
)
@click.option("--instances", type=int, default=1, show_default=True, metavar="N", help="Copies per GPU.")
@debug_option
def triton(
    graphs: tuple[str, ...],
    engine_file: Path | None,
    out: Path,
    batch: int | None,
    instances: int,
    debug: bool,
) -> None:
    """Write models for NVIDIA's Triton Inference Server from graphs of ours."""

    def serve() -> None:
        import shlex

        from measnet.errors import MissingPackageError, UsageError

        if engine_file is not None and len(graphs) > 1:
            raise UsageError("--engine goes with the one graph that it was built from")
        try:
            from measnet.export.triton import write_repository
        except ModuleNotFoundError as error:
            raise MissingPackageError("serving graphs", error.name or "onnx", "export") from None
        for name in graphs:
            path = _graph_file(name)
            home = write_repository(path, out, engine=engine_file, max_batch=batch, instances=instances)
            say(f"{home}: a model for Triton")
        mount = shlex.quote(f"{out.resolve()}:/models")
        say(
            f"  serve it (untried here): docker run --rm --gpus all -p 8000:8000 -p 8001:8001 -v {mount} "
            f"{IMAGE} tritonserver --model-repository=/models"
        )
        if engine_file is not None:
            from measnet.engine_file import read_engine_facts

            version = read_engine_facts(engine_file).flavour_version
            say(f"  YY.MM: a release with TensorRT {version}, no other loads the plan")

    run_command(serve, debug=debug, interrupted=STOPPED)


@click.command(
    cls=CommandInParts,
    parts={"check": check, "engine": engine, "cache": cache, "triton": triton},
    context_settings=WIDE,
    epilog="""\b
Examples:
  measnet-export --fp16                             the bundled nano, for any size, and a report
  measnet-export best.ckpt --shape 1080x1920        float32, for one size
  measnet-export best.ckpt --fp16 --io uint8-nhwc   camera bytes in and out, for C++ programs

Exit status: 0 done, 1 failed on the way, 2 an option or a file is wrong.""",
)
@click.argument("checkpoint", default="nano")
@graph_options
@click.option("--fp16", is_flag=True, help="16-bit tensors, float32 where it matters; writes a report.")
@click.option("--bf16", is_flag=True, help="The same, for GPUs from compute capability 8.0 on.")
@click.option(
    "--pictures",
    metavar="PATH",
    help="Video, picture or folder to verify on.  [default: the sample clip, or made-up ones]",
)
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Hold the graph against the network."
)
@debug_option
@click.version_option(package_name="measnet")
@click.pass_obj
def main(
    making: Making | None,
    /,
    checkpoint: str,
    shapes: tuple[str, ...],
    fp16: bool,
    bf16: bool,
    pictures: str | None,
    verify: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Write the ONNX graph of CHECKPOINT: a .ckpt, state dict or .safetensors, or nano or small, which are
    bundled [default: nano]. A graph takes any batch and describes itself."""
    asked: tuple[tuple[Precision, bool], ...] = (("fp16", fp16), ("bf16", bf16))
    precisions: list[Precision] = [precision for precision, given in asked if given] or ["fp32"]

    def export() -> None:
        wanted = GraphOptions.of(checkpoint, shapes, **options)
        wanted.check_places(precisions, [pictures])
        _export(wanted, precisions, pictures, verify, making)

    run_command(export, debug=debug, interrupted=STOPPED)


def _export(
    options: GraphOptions,
    precisions: list[Precision],
    source: str | None,
    verify: bool,
    making: Making | None,
) -> None:
    from functools import partial

    from rich.console import Console

    from measnet.checkpoint import load_checkpoint
    from measnet.errors import ParityError
    from measnet.export.export_report import lines, write_report
    from measnet.export.make import USUAL, Wanted, make
    from measnet.export.pictures import real_pictures

    network = load_checkpoint(options.source)
    pictures = partial(real_pictures, source) if verify else None
    paths = []
    for size in options.sizes:
        for precision in precisions:
            path = options.path(size, precision)
            with Console(stderr=True).status(f"writing {path}"):
                wanted = Wanted(size, precision, options.form, options.steerable)
                made = make(network, wanted, pictures, making or USUAL)
            if made.measured is not None and made.measured.breaches:
                what = "it does not compute what the network does"
                if precision != "fp32":
                    what = f"{precision.upper()} loses too much of this network"
                raise ParityError(
                    f"{path} was not written, {what}: {'; '.join(made.measured.breaches)}; "
                    "--no-verify writes it all the same"
                )
            made.graph.write(path)
            written = path.stat().st_size
            kind = f"{written / 1e6:.1f} MB" if precision == "fp32" else precision.upper()
            say(f"{path}: {made.graph.description.variant}, {made.graph.takes(size)}, {kind}")
            for line in lines(made, written):
                say(line)
            if precision != "fp32":
                write_report(path.with_suffix(".json"), made, written)
                say(f"  report: {path.with_suffix('.json')}")
            paths.append(path)
    for line in _hint(paths):
        say(line)


def _hint(graphs: list[Path]) -> list[str]:
    """Says how ``graphs`` become engines."""
    import shlex
    from importlib.util import find_spec

    files = " ".join(shlex.quote(str(graph)) for graph in graphs)
    names = " ".join(shlex.quote(graph.name) for graph in graphs)
    there = all(find_spec(name) for name in ("tensorrt_rtx", "polygraphy", "filelock"))
    needed = "" if there else ", after pip install 'measnet[rtx]'"
    return [
        f"  engines for RTX cards elsewhere, built here without a GPU{needed}:",
        f"    measnet-export engine {files} --gpu sm89",
        "  engines for the GPU of the machine that will run them, built there:",
        f"    measnet-export engine {names}",
    ]
