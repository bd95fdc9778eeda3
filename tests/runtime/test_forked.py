"""A process that has restored is forked: the child ends, and is refused what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from measnet.weights import bundled

# With one thread an engine would have none that a child could wait for.
PROGRAM = """
import os, sys, warnings
import numpy as np
from measnet import Restorer
from measnet.errors import UsageError
from measnet.export.graph_session import GraphSession

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of threads and fork
grey = np.full((32, 32, 3), 90, np.uint8)
restorer = Restorer(sys.argv[1], threads=2)
restorer(grey)
if sys.argv[1].endswith(".onnx"):
    checked = GraphSession(sys.argv[1])
child = os.fork()
if child == 0:
    with restorer:
        try:
            restorer(grey)
        except UsageError as error:
            print(error, flush=True)
    sys.exit(7)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
assert (restorer(grey) == restorer(grey)).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
def test_a_forked_child_ends_and_is_told_to_spawn(tmp_path: Path, ending: str) -> None:
    said = tmp_path / "said"  # a child that hangs would hold a pipe open
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, bundled("nano", ending)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            # PyTorch's threads otherwise spin while they wait for each other, for seconds on a busy machine:
            # what looked like a hanging child was the parent restoring again.
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        try:
            status = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            pytest.fail(f"it hangs, the child unless that has ended: {said.read_text()}")
    lines = said.read_text().splitlines()
    assert status == 0 and "'spawn'" in lines[0] and lines[1:] == ["child: 7"], lines
