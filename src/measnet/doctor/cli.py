"""``measnet-doctor``: what works here, what is missing, and the command that installs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import HELP, run_command, say

if TYPE_CHECKING:
    from measnet.doctor.abilities import Ability
    from measnet.doctor.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """The parts of the doctor; None is ours."""

    examine: Callable[[], Machine] | None = None
    self_test: Callable[..., dict[str, Any]] | None = None


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  measnet-doctor                                   what works here
  measnet-doctor --self-test                       run it, compare, time it: measnet-doctor.json
  measnet-doctor --self-test -o h200.json --model small

\b
Exit status: 0 all well, 1 a self-test failed, 2 an option is wrong, 130 interrupted.
""",
)
@click.option("--self-test", "test", is_flag=True, help="Build, run, compare and time whatever is there.")
@click.option("--model", default="nano", show_default=True, help="What the self-test runs: a name or a file.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Where the figures go.  [default: measnet-doctor.json with --self-test]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet", prog_name="measnet-doctor")
@click.pass_obj  # None where the command is called by its name
def main(doctor: Doctor | None, /, test: bool, model: str, out: Path | None, debug: bool) -> None:
    """Say what this machine can do with MEASNet, what is missing, and what installs it.

    The self-test builds engines where TensorRT or TensorRT-RTX is installed, restores made-up pictures with
    every backend there is, holds the results against each other, times them, and writes one JSON: versions,
    hardware, parity, times and memory, no names and no paths. Send it to us with a bug report, or as figures
    of a machine we do not have. Nothing is sent by itself.
    """
    run_command(
        lambda: _run(test, model, out, doctor or Doctor()),
        debug=debug,
        interrupted="stopped; nothing was written",
    )


def _run(test: bool, model: str, out: Path | None, doctor: Doctor) -> None:
    from measnet.doctor.abilities import abilities
    from measnet.doctor.machine import discreet, examine
    from measnet.doctor.self_test import self_test
    from measnet.errors import ParityError
    from measnet.whole_file import check_place, write_whole

    if test:
        out = out or Path("measnet-doctor.json")
    if out:
        check_place(out, "--out", [model])
    machine = (doctor.examine or examine)()
    found = abilities(machine)
    _show(machine, found)
    report: dict[str, Any] = {"machine": discreet(machine.facts())}
    if test:
        say("")
        say("Self-test:")
        report = (doctor.self_test or self_test)(machine, model, lambda line: say(f"  {line}"))
        for run in report["runs"]:
            _show_parity(run)
    if out:
        report["abilities"] = {ability.name: ability.ready for ability in found}
        write_whole(out, json.dumps(report, indent=2) + "\n")
        say(f"figures: {out}")
    if test and not report["passed"]:
        raise ParityError("the self-test failed; the lines above and the JSON say where")


def _show(machine: Machine, found: list[Ability]) -> None:
    say(f"{machine.system}, Python {machine.python}")
    say(f"{machine.processor}, {machine.cores} cores, {machine.memory_gib:g} GiB")
    for gpu in machine.gpus:
        say(
            f"{gpu.name}, {gpu.memory_mib} MiB, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}"
        )
    if machine.gpu_note:
        say(f"GPU: {machine.gpu_note}")
    say("")
    width = max(len(ability.name) for ability in found)
    for ability in found:
        say(f"  {'yes' if ability.ready else 'no ':3}  {ability.name:{width}}  {ability.detail}")
        if not ability.ready and ability.remedy:
            say(f"       {'':{width}}  {ability.remedy}")


def _show_parity(run: dict[str, Any]) -> None:
    parity = run.get("parity")
    if not parity:
        return
    psnr = "∞" if parity["psnr_db"] is None else f"{parity['psnr_db']:.1f}"
    verdict = "agrees with" if parity["passed"] else "DIFFERS from"
    say(
        f"  {run['name']} {verdict} the first run: PSNR {psnr} dB, largest difference "
        f"{parity['largest_difference']:.2g}, experts agree on {parity['experts_agree']:.3%}"
    )


if __name__ == "__main__":
    main()
