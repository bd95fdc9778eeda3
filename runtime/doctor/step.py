"""A step of the self-test in a process of its own: what crashes or hangs there takes nothing else with it.

``python -m measnet.runtime.doctor.step FOLDER`` is that process: ``job.json`` in, ``result.json`` out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measnet.errors import MEASNetError, MissingPackageError, first_line

Result = dict[str, Any]
"""Of a step: its facts, or ``error``, or ``skipped`` with the package that is missing. Ready for JSON."""


def perform(step: str, arguments: dict[str, Any]) -> Result:
    """Does a step in this process. Never raises: what failed is said in the result."""
    from measnet.runtime.doctor import engine_steps, trial

    steps: dict[str, Callable[..., Result]] = {
        "fp16": engine_steps.write_fp16,
        "build": engine_steps.build,
        "run": trial.try_backend,
    }
    try:
        return steps[step](**arguments)
    except MissingPackageError as error:
        return {"skipped": str(error)}
    except MEASNetError as error:
        return {"error": str(error)}
    except Exception as error:  # a broken driver or package may raise anything
        return {"error": f"{type(error).__name__}: {first_line(error)}"}


def perform_apart(step: str, arguments: dict[str, Any], seconds: float) -> Result:
    """Does a step in a process of its own that has ``seconds``. Never raises, but for Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="measnet-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"step": step, "arguments": arguments}))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        with (folder / "stderr").open("wb") as stderr:
            try:
                ended = subprocess.run(
                    # -P: no module is taken from the folder that somebody happens to stand in.
                    [sys.executable, "-P", "-m", "measnet.runtime.doctor.step", name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=environment,
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return {"error": f"it did not end within {seconds:g} s and was stopped"}
        try:
            result: Result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError):
            return {"error": _death(ended, (folder / "stderr").read_text(errors="replace"))}
        return result


def _death(code: int, said: str) -> str:
    how = f"with exit status {code}"
    if code < 0:
        how = f"by signal {-code} ({signal.Signals(-code).name})"
    lines = said.strip().splitlines()
    return f"the process was ended {how}" + (f": {lines[-1][:300]}" if lines else "")


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    result = perform(job["step"], job["arguments"])
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
