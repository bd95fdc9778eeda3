"""``measnet-export``: checkpoint in, ONNX graph out; or an ONNX graph in, what is wrong with it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from measnet.command_line import HELP, RenamedOption, run_command
from measnet.export.engine_options import EngineWish, engine_options, hint, manage_cache
from measnet.export.triton_options import TritonWish, triton_options

if TYPE_CHECKING:
    import onnx

    from measnet.export.form import Form
    from measnet.export.precision import Precision
    from measnet.network import MEASNet

PRECISIONS: tuple[Precision | Literal["int8"], ...] = ("fp16", "bf16", "int8")


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  measnet-export --dynamic                               the bundled nano, float32, for any size
  measnet-export --fp16                                  the same with FP16 tensors, and a report
  measnet-export --checkpoint best.ckpt --shape 1080x1920
  measnet-export --checkpoint best.ckpt --shape 520x640 --shape 360x640 -o graphs/
  measnet-export --check any.onnx                        will TensorRT take it?
  measnet-export --int8 --frames clip.mp4                INT8 calibrated on a video, and what it loses
  measnet-export --fp16 --io uint8-nhwc                  camera bytes in and out, for C++ programs
  measnet-export --fp16 --engine tensorrt-rtx --gpu sm89 an engine for RTX 40 cards, no GPU needed
  measnet-export --graph nano.onnx --engine tensorrt     an engine for this machine's GPU
  measnet-export --steerable --fp16 --engine tensorrt    the same, for --steady and for tiles that agree
  measnet-export --io uint8-nhwc --triton models/        a model for Triton Inference Server

Sizes are HEIGHTxWIDTH of the frames. A graph takes any batch, and says in its metadata what it is.

\b
Exit status: 0 done, 1 failed on the way or --check found an error, 2 an option or a file is wrong.""",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A .ckpt, state dict or .safetensors.")
@click.option("--model", default="nano", show_default=True, help="Bundled weights, without --checkpoint.")
@click.option("--shape", "shapes", multiple=True, metavar="HxW", help="Frame size; may be repeated.")
@click.option(
    "--dynamic",
    is_flag=False,
    flag_value="any",
    metavar="[MIN:OPT:MAX]",
    help="One graph for every size, engines for these; what is done without --shape.",
)
@click.option(
    "--steerable",
    is_flag=True,
    help="Takes and returns image-level decisions too: for measnet-run's --steady, and tiles that agree.",
)
@click.option("--fp16", is_flag=True, help="FP16 tensors, float32 where it matters; writes a report.")
@click.option("--bf16", is_flag=True, help="The same with BF16, for GPUs from compute capability 8.0 on.")
@click.option(
    "--int8", is_flag=True, help="INT8 convolutions, calibrated on --frames, the rest as in --fp16."
)
@click.option(
    "--io",
    default="nchw",
    show_default=True,
    type=click.Choice(["nchw", "uint8-nhwc"]),
    help="uint8-nhwc takes and returns camera bytes: scaling, padding and rounding are in the graph.",
)
@click.option(
    "--channel-order",
    type=click.Choice(["rgb", "bgr"]),
    help="Of camera bytes; OpenCV has bgr.  [default: rgb]",
)
@click.option(
    "-o",
    "--out",
    cls=RenamedOption,
    former="--output",
    default=".",
    type=click.Path(path_type=Path),
    help="Folder for the graphs, or the name of a single .onnx file.  [default: this folder]",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Run the graph and hold it against the network.",
)
@click.option(
    "--frames",
    metavar="PATH",
    help="Video, picture or folder to verify on, and to calibrate on.  [default: the sample clip; without "
    "one, made-up pictures to verify on]",
)
@click.option(
    "--calibration-frames", type=int, metavar="N", help="With --int8: how many, at most.  [default: 16]"
)
@click.option(
    "--check", "checked", metavar="FILE", type=click.Path(path_type=Path), help="Look for faults in any ONNX."
)
@click.option(
    "--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="With --check: as JSON."
)
@engine_options
@triton_options
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet")
def main(debug: bool, **options: Any) -> None:
    """Write the ONNX graph of a MEASNet, for one size or for any, or check an ONNX graph."""
    run_command(
        lambda: _run(options),
        debug=debug,
        interrupted="stopped; no graph and no engine was left half-written",
    )


def _run(options: dict[str, Any]) -> None:
    if options["checked"]:
        _check(options)
    elif options["cache_list"] or options["cache_clear"]:
        manage_cache(options)
    elif options["graphs"]:
        triton, engines, graphs = TritonWish(options), EngineWish(options), list(options["graphs"])
        triton.serve(graphs, engines.build(graphs, _folder(options["out"])))
    else:
        _export_all(options)


def _export_all(options: dict[str, Any]) -> None:
    from measnet.errors import MissingPackageError, UsageError

    sizes = [_parse_size(shape) for shape in options["shapes"]]
    any_size = options["dynamic"] is not None or not sizes
    if options["dynamic"] not in (None, "any"):
        options["profiles"] = (options["dynamic"], *options["profiles"])
    wanted: list[tuple[int, int] | None] = [*sizes, *([None] if any_size else [])]
    asked = [name for name in PRECISIONS if options[name]]
    precisions: list[Precision | Literal["int8"] | None] = [*asked] or [None]
    output: Path = options["out"]
    if options["json_file"]:
        raise UsageError("--json goes with --check; a report is written beside every 16-bit and INT8 graph")
    if options["calibration_frames"] is not None and not options["int8"]:
        raise UsageError("--calibration-frames goes with --int8")
    if output.suffix == ".onnx" and len(wanted) * len(precisions) > 1:
        raise UsageError(
            f"{len(wanted) * len(precisions)} graphs cannot share the name {output}; give -o a folder"
        )
    try:
        # Imported to find out whether they are there, before any work.
        import onnx  # noqa: F401 - only that
        import onnxscript  # noqa: F401 - only that
        import torch  # noqa: F401 - only that
    except ModuleNotFoundError as error:
        raise MissingPackageError("exporting", error.name or "torch", "export") from None

    from measnet.checkpoint import load_checkpoint
    from measnet.config import variant_name
    from measnet.export.form import Form
    from measnet.weights import bundled

    form = Form(options["io"], options["channel_order"])
    triton = TritonWish(options)
    engines = EngineWish(options)
    graphs = []
    checkpoint: Path | None = options["checkpoint"]
    source = checkpoint or bundled(options["model"], ".safetensors")
    network = load_checkpoint(source)
    name = variant_name(network.config) if checkpoint is None else source.stem
    for size in wanted:
        suffix = "dynamic" if size is None else f"{size[0]}x{size[1]}"
        for precision in precisions:
            kind = ".steerable" if options["steerable"] else ""
            ending = f"{f'.{precision}' if precision else ''}{form.ending}{kind}.onnx"
            path = output if output.suffix == ".onnx" else output / f"{name}-{suffix}{ending}"
            if precision is None:
                _export_exact(network, source, path, size, form, options)
            elif precision == "int8":
                from measnet.calibration.cli import export_int8

                export_int8(network, path, size, form, options)
            else:
                _export_typed(network, source, path, size, form, precision, options)
            graphs.append(path)
    triton.serve(graphs, engines.build(graphs, _folder(output)))
    if not engines.targets:
        click.echo(hint(graphs))


def _folder(output: Path) -> Path:
    """The folder for engines: that of the graph, where it was given a name."""
    return output.parent if output.suffix == ".onnx" else output


def _export_exact(
    network: MEASNet,
    source: Path,
    path: Path,
    size: tuple[int, int] | None,
    form: Form,
    options: dict[str, Any],
) -> None:
    import contextlib

    from rich.console import Console

    from measnet.errors import ParityError
    from measnet.export.form import takes
    from measnet.export.graph import exact_graph, write_graph
    from measnet.export.parity import camera_parity, graph_parity
    from measnet.export.pictures import real_pictures
    from measnet.export.trial import Apart, is_too_large, try_exact
    from measnet.metrics import FP32_TOLERANCE

    with contextlib.ExitStack() as stack:
        trial = None
        if options["verify"] and size is not None and is_too_large(network, size):
            trial = stack.enter_context(Apart(try_exact, source, form, options["frames"]))
        with Console(stderr=True).status(f"writing {path}"):
            model, description = form.given_to(
                *exact_graph(network, size, steerable=options["steerable"]), size
            )
            write_graph(path, model)
        click.echo(
            f"{path}: {description.variant}, {takes(description, size)}, {path.stat().st_size / 1e6:.1f} MB"
        )
        if not options["verify"]:
            return
        with Console(stderr=True).status("holding it against the network"):
            if trial is not None:
                parity, (height, width), which = trial.result()
            else:
                height, width = form.tried_size(description)
                pictures, which = real_pictures(options["frames"], 2, height, width)
                if form.takes_bytes:
                    parity = camera_parity(path, network, description, pictures)
                else:
                    parity = graph_parity(path, network, pictures)
    click.echo(
        f"  parity with PyTorch on {height}x{width} ({which}): PSNR {parity.psnr_db:.1f} dB, largest "
        f"difference {parity.largest_difference:.2g}, experts agree on {parity.experts_agree:.4%} of pixels"
    )
    breaches = parity.breaches(FP32_TOLERANCE)
    if breaches:
        path.unlink()
        raise ParityError(
            f"{path} was removed, it does not compute what the network does: {'; '.join(breaches)}"
        )


def _export_typed(
    network: MEASNet,
    source: Path,
    path: Path,
    size: tuple[int, int] | None,
    form: Form,
    precision: Precision,
    options: dict[str, Any],
) -> None:
    import contextlib

    from rich.console import Console

    from measnet.errors import ParityError
    from measnet.export import report
    from measnet.export.form import takes
    from measnet.export.graph import write_graph
    from measnet.export.pictures import real_pictures
    from measnet.export.ranges import largest_magnitudes, magnitudes_from_operators
    from measnet.export.trial import Apart, is_too_large, size_for_any, try_typed
    from measnet.export.typed import measure, measure_bytes, typed_network

    measured = trial = pictures = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(Console(stderr=True).status(f"writing {path}"))
        if options["verify"] and size is not None and is_too_large(network, size):
            trial = stack.enter_context(Apart(try_typed, source, precision, form, options["frames"]))
        elif options["verify"]:
            height, width = network.config.size_rule.fit(*(size or size_for_any(network)))
            pictures, which = real_pictures(options["frames"], 2, height, width)

        def ranges(model: onnx.ModelProto) -> dict[str, float]:
            if trial is not None:
                return magnitudes_from_operators(model, trial.result().magnitudes)
            return {} if pictures is None else largest_magnitudes(model, pictures[:1])

        typed, description, bytes_before = typed_network(
            network, size, precision, steerable=options["steerable"], ranges=ranges
        )
        model, described = form.given_to(typed.model, description, size)
        if trial is not None:
            measured = trial.result().measured
        elif pictures is not None:
            measured = measure(typed, network, pictures, which)
            if form.takes_bytes:
                odd, _ = real_pictures(options["frames"], 2, *form.tried_size(described))
                measured.parity["bytes"] = measure_bytes(model, network, described, odd)
        description = described
    if measured is not None and measured.breaches:
        raise ParityError(
            f"{path} was not written, {precision.upper()} loses too much of this network: "
            f"{'; '.join(measured.breaches)}; --no-verify writes it all the same"
        )
    write_graph(path, model)
    sizes = {"graph": path.stat().st_size, "float32": bytes_before}
    json_file = path.with_suffix(".json")
    report.write_report(json_file, typed, description, sizes, measured)
    click.echo(f"{path}: {description.variant}, {takes(description, size)}, {precision.upper()}")
    for line in report.lines(typed, bytes_before, sizes["graph"], measured):
        click.echo(line)
    click.echo(f"  report: {json_file}")


def _check(options: dict[str, Any]) -> None:
    import sys

    from measnet.errors import MissingPackageError, UsageError

    checked, target = options["checked"], options["json_file"]
    if target is not None and target.exists() and checked.exists() and target.samefile(checked):
        raise UsageError(f"--json {target} is the graph itself; give it another name")
    try:
        import onnx  # noqa: F401 - only to find out whether it is there
    except ModuleNotFoundError:
        raise MissingPackageError("checking a graph", "onnx", "export") from None
    from measnet.export.check import check_file, lines, write_findings

    findings = check_file(options["checked"])
    for line in lines(options["checked"], findings):
        click.echo(line)
    if options["json_file"]:
        write_findings(options["json_file"], options["checked"], findings)
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


def _parse_size(text: str) -> tuple[int, int]:
    from measnet.errors import UsageError

    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"a size is HEIGHTxWIDTH in pixels, such as 360x640, not {text!r}")
    return int(height), int(width)
