"""An engine file: what a TensorRT plan was built from and for, and the plan.

    facts, plan = read_engine(Path("nano-dynamic.rtx-sm89.engine"))

``measnet-export engine`` writes them; nobody is handed a plan before all of the file was checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec

from measnet.description import GraphDescription
from measnet.errors import EngineError, GraphError
from measnet.sealed_file import read_facts, read_sealed, write_sealed

KIND = "engine"

Shape = tuple[Annotated[int, msgspec.Meta(ge=1)], ...]
Range = tuple[Shape, Shape, Shape]
"""The smallest, the usual and the largest shape of an input."""


@dataclass(frozen=True)
class EngineFacts:
    """All that decides what a plan is: two plans with equal facts may stand for each other."""

    graph_sha256: str
    """SHA-256 of the ONNX file, hexadecimal."""

    graph: Mapping[str, str]
    """The graph's own description, as its metadata has it."""

    calibration_sha256: str
    """SHA-256 of the calibration that gave the graph its Q/DQ; "" for a graph without."""

    profiles: tuple[Mapping[str, Range], ...]
    """Per optimisation profile, the range of shapes of every input."""

    settings: Mapping[str, Any]
    """The builder's settings by name."""

    measnet_version: str

    flavour: str
    """``tensorrt`` or ``tensorrt-rtx``."""

    flavour_version: str

    compute_capability: str
    """The compute capability it was built for, such as ``8.9``; of a portable engine several, ``8.6 8.9``."""

    gpu: str
    """The GPU's name; "" for a plan built ahead of time, for any GPU of that compute capability."""

    driver: str
    """The driver's version; "" ahead of time."""

    cuda: str
    """The CUDA version that the driver supports, such as ``13.0``; "" ahead of time."""

    @property
    def description(self) -> GraphDescription:
        """The graph's description of itself. Raises ``GraphError`` on a damaged one."""
        return GraphDescription.from_metadata(self.graph, "the engine")

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """All that it was built for, one but for a portable engine."""
        return tuple(self.compute_capability.split())

    @property
    def key(self) -> str:
        """SHA-256 of all facts, hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def built_for(self) -> str:
        """Says in words: ``TensorRT-RTX 1.7.1.116 on any GPU of compute capability 8.9``."""
        brand = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}.get(self.flavour, self.flavour)
        gpu = f"{self.gpu}, compute capability" if self.gpu else "any GPU of compute capability"
        driver = f", driver {self.driver}" if self.driver else ""
        cuda = f", CUDA {self.cuda}" if self.cuda else ""
        *others, last = self.compute_capabilities or ("",)
        capability = f"{', '.join(others)} or {last}" if others else last
        return f"{brand} {self.flavour_version} on {gpu} {capability}{driver}{cuda}"


def write_engine(path: Path, facts: EngineFacts, plan: bytes) -> None:
    """Writes an engine file as a whole. Raises ``OutputError``."""
    write_sealed(path, KIND, asdict(facts), plan)


def read_engine(path: Path) -> tuple[EngineFacts, bytes]:
    """The facts and the plan of an engine file, all of it checked.

    Raises ``EngineError`` when ``path`` is anything but a whole engine file of this version.
    """
    sealed = read_sealed(path, KIND)
    return _facts(sealed.facts, path), sealed.payload


def read_engine_facts(path: Path) -> EngineFacts:
    """The facts alone, without reading the plan. Raises as ``read_engine``."""
    return _facts(read_facts(path, KIND), path)


def _facts(stored: dict[str, Any], path: Path) -> EngineFacts:
    unknown = stored.keys() - {field.name for field in fields(EngineFacts)}
    try:
        if unknown:
            raise msgspec.ValidationError(f"it says {', '.join(sorted(unknown))}")
        facts = msgspec.convert(stored, EngineFacts)
        _ = facts.description
    except (msgspec.ValidationError, GraphError) as error:
        raise EngineError(f"{path} is not an engine of this version ({error}); build it again") from None
    return facts
