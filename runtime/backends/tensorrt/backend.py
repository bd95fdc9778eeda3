"""The backend: an engine file checked against this machine, loaded, and run by any number of threads."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measnet.decision_layout import OUTPUTS
from measnet.description import GraphDescription
from measnet.engine_file import EngineFacts, Range, Shape, read_engine
from measnet.errors import BackendError, EngineError, MissingPackageError, UsageError, first_line
from measnet.gpu import GPU, first_gpu
from measnet.image import Image, batch_to_images, images_to_batch, pad
from measnet.metrics import Choices
from measnet.runtime.backends import Inference, Steering, steering_inputs, unsteered
from measnet.runtime.backends.tensorrt.cuda import Cuda
from measnet.runtime.backends.tensorrt.device_array import DeviceArray, read_device_array, stream_handle
from measnet.runtime.backends.tensorrt.fit import BRAND, exact_profile, fit, misfit
from measnet.runtime.backends.tensorrt.lane import Lane
from measnet.runtime.backends.tensorrt.plan import IMAGE, RESTORED, LoadedPlan
from measnet.sealed_file import MAGIC

_MODULES = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}
"""Flavour -> the module to import, and the extra that installs it."""


class TensorRTBackend:
    """Runs an engine file of ``measnet-export engine``, on the first GPU that CUDA shows.

    Every thread gets a context, a stream and buffers of its own when it comes first: frames of several
    threads overlap. A steerable engine takes decisions from outside, others none.
    """

    def __init__(self, engine: Path, threads: int | None = None) -> None:
        del threads  # of the CPU, which has next to nothing to do here
        self.engine = engine
        self._facts: EngineFacts | None = None
        self._gpu: GPU | None = None
        self._version = ""
        self._cuda: Cuda | None = None
        self._plan: LoadedPlan | None = None
        self._neutral: Steering | None = None
        self._lanes: dict[int, Lane] = {}
        self._lock = threading.Lock()

    @property
    def description(self) -> GraphDescription:
        if self._facts is None:
            raise BackendError("the TensorRT backend is not active")
        return self._facts.description

    @property
    def facts(self) -> dict[str, str]:
        """``cuda_graphs`` says whether the network is launched as one, and if not, why."""
        plan, gpu, engine = self._active(), self._gpu, self._facts
        assert gpu is not None and engine is not None and plan is not None
        return {
            "backend": "tensorrt",
            "version": f"{BRAND[engine.flavour]} {self._version}",
            "provider": gpu.name,
            "driver": gpu.driver,
            "engine": str(self.engine),
            "built_for": engine.built_for(),
            "cuda_graphs": self._graphs(),
        }

    def activate(self) -> None:
        """Raises ``EngineError`` for a file that is not ours, not whole, or for something else than this
        machine; ``MissingPackageError`` without TensorRT or cuda-python; ``BackendError`` when they fail."""
        facts, plan = self._read()
        trt = _tensorrt(facts.flavour)
        gpu = first_gpu()
        fault = misfit(facts, gpu, trt.__version__)
        if fault is not None:
            raise EngineError(f"{self.engine} does not run here: {fault}")
        self.deactivate()
        try:
            self._cuda = Cuda()
            self._cuda.use_primary_context()
            self._facts, self._gpu, self._version = facts, gpu, trt.__version__
            host_code = bool(facts.settings.get("version_compatible"))
            description = facts.description
            self._plan = LoadedPlan(trt, plan, host_code=host_code, steerable=description.steerable)
            self._neutral = unsteered(description)
            self._probe()
        except BaseException:
            self.deactivate()
            raise

    def infer(self, images: Image, steering: Steering | None = None) -> Inference:
        """See Backend.infer. Raises ``UsageError`` for a size that the engine does not take."""
        steering = steering or self._neutral
        plan, description = self._active(), self.description
        profiles = (
            [_profile_in_planes(profile) for profile in plan.profiles]
            if description.takes_bytes
            else plan.profiles
        )
        found = fit(images.shape, profiles)
        padded = pad(images, (found.shape[2], found.shape[3]))
        given = images_to_batch(padded, description.channel_order) if description.takes_bytes else padded
        steered = {} if steering is None else steering_inputs(steering, padded)
        size = (images.shape[2], images.shape[3])
        outputs = self._lane().infer({IMAGE: given, **steered}, found.profile)
        restored = outputs[RESTORED]
        if description.takes_bytes:
            restored = batch_to_images(restored, description.channel_order)
        made = restored.shape[2:]
        experts = outputs.get("pixel_experts")
        if experts is not None:  # they are of what the network was given, padded inside or before
            rule = description.size_rule
            experts = _cropped(experts, rule.fit(*made), *rule.fit(*size))
        numbers = {
            name: outputs[name].astype(np.float32, copy=False)
            for name in ("prompt_weights", *OUTPUTS)
            if name in outputs
        }
        return Inference(
            restored=_cropped(restored, made, *size).astype(np.float32, copy=False),
            choices=Choices(experts, outputs.get("image_experts")),
            prompt_weights=numbers.get("prompt_weights"),
            decisions=numbers.get("decisions"),
            norms=numbers.get("norms"),
        )

    def infer_device(self, image: Any, out: Any, stream: Any) -> None:
        """Restores a batch that is on the GPU already, into memory on the GPU, without a copy.

        ``image`` and ``out`` are anything with ``__cuda_array_interface__`` or ``__dlpack__``, contiguous,
        256-byte aligned, of exactly the shapes and types that the engine takes and returns (B 3 H W float32
        in RGB, 0 to 1; bytes for ``--io uint8-nhwc``). ``stream`` is a CUDA stream of the caller, as an
        integer or with ``__cuda_stream__``: the work comes after what is in it now, and what is put into it
        later comes after the work. Returns before it is done. The calling thread must have the GPU's
        primary context current, or none (docs/embedding.md).

        Raises ``UsageError`` for arrays that do not fit and for a steerable engine, whose decisions go
        through the host; ``BackendError`` when it fails.
        """
        plan, cuda = self._active(), self._cuda
        if self._neutral is not None:
            raise UsageError(
                f"{self.engine} is steerable: its decisions go through the host, frames on the GPU do not; "
                "build an engine without --steerable for them"
            )
        assert cuda is not None
        cuda.use_primary_context()
        handle = stream_handle(stream)
        frame, result = (
            self._device_array(cuda, array, name, handle)
            for array, name in ((image, "the image"), (out, "the array for the result"))
        )
        if frame.dtype != plan.dtypes[IMAGE]:
            raise UsageError(f"the image is {frame.dtype}, this engine takes {plan.dtypes[IMAGE]}")
        profile = exact_profile(frame.shape, plan.profiles)
        self._lane().infer_device(frame, result, profile, handle)

    def deactivate(self) -> None:
        """Waits for what is under way in every thread and frees everything; never fails."""
        cuda, self._cuda = self._cuda, None
        if cuda is None:
            return
        with cuda.primary_context(), self._lock:
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()
            if self._plan is not None:
                self._plan.close()
                self._plan = None
        cuda.release_primary_context()

    def _read(self) -> tuple[EngineFacts, bytes]:
        build = "build one with: measnet-export engine GRAPH"
        try:
            with self.engine.open("rb") as file:
                ours = file.read(len(MAGIC)) == MAGIC
        except OSError as error:
            raise EngineError(f"cannot read {self.engine}: {error.strerror or error}") from None
        if not ours:
            raise EngineError(
                f"{self.engine} is no engine file of ours; a plan from trtexec or TensorRT does not say what "
                f"it was built from and for, so {build}"
            )
        return read_engine(self.engine)

    def _active(self) -> LoadedPlan:
        if self._plan is None:
            raise BackendError("the TensorRT backend is not active")
        return self._plan

    def _lane(self) -> Lane:
        """This thread's, or that of one that has ended and had its number."""
        with self._lock:
            plan, cuda = self._active(), self._cuda
            assert cuda is not None
            cuda.use_primary_context()
            number = threading.get_ident()
            if number not in self._lanes:
                self._lanes[number] = Lane(plan, cuda)
            return self._lanes[number]

    def _device_array(self, cuda: Cuda, array: Any, name: str, stream: int) -> DeviceArray:
        found = read_device_array(array, name, stream)
        if cuda.is_foreign(found.pointer):
            raise BackendError(
                f"{name} belongs to another CUDA context than the GPU's primary one, as after "
                "'import pycuda.autoinit'; docs/embedding.md says how to share the primary one"
            )
        return found

    def _graphs(self) -> str:
        lanes = list(self._lanes.values())
        refusals = [lane.graph_refusal for lane in lanes if lane.graph_refusal]
        if refusals:
            return f"not used: {refusals[0]}"
        captured = sum(lane.graphs for lane in lanes)
        return f"{captured} captured" if captured else "none captured yet"

    def _probe(self) -> None:
        """One small grey batch: what the engine returns is checked before any frame is."""
        plan = self._active()
        shape, dtype = plan.profiles[0][0], plan.dtypes[IMAGE]
        if self.description.takes_bytes != (dtype == np.uint8 and shape[-1] == 3):
            raise EngineError(
                f"{self.engine} says that it takes {self.description.io}, and takes {dtype} {shape}; "
                "build it again"
            )
        grey: NDArray[Any] = np.full(shape, 0.5 if dtype.kind == "f" else 128, dtype)
        batch, _, height, width = _in_planes(shape) if self.description.takes_bytes else shape
        planes = np.empty((batch, 3, height, width), np.float32)
        steered = {} if self._neutral is None else steering_inputs(self._neutral, planes)
        restored = self._lane().infer({IMAGE: grey, **steered}, 0)[RESTORED]
        if restored.shape != shape or not np.isfinite(restored).all():
            raise EngineError(
                f"{self.engine} does not restore a plain grey picture (its weights may hold NaN, or it was "
                "built for something else); build it again"
            )


def _tensorrt(flavour: str) -> Any:
    """The module of a flavour of TensorRT."""
    if flavour not in _MODULES:
        raise EngineError(f"the engine is for {flavour!r}, which this version does not know")
    module, extra = _MODULES[flavour]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise MissingPackageError(f"running {BRAND[flavour]} engines", flavour, extra) from None
        raise BackendError(f"{BRAND[flavour]} is installed and cannot be loaded: {error}") from None
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise BackendError(
            f"{BRAND[flavour]} is installed and cannot be loaded: {first_line(error)}"
        ) from None


def _profile_in_planes(profile: Range) -> Range:
    smallest, usual, largest = profile
    return _in_planes(smallest), _in_planes(usual), _in_planes(largest)


def _in_planes(shape: Shape) -> Shape:
    """The shape of B H W 3 as that of B 3 H W."""
    batch, height, width, channels = shape
    return batch, channels, height, width


def _cropped(maps: NDArray[Any], padded: tuple[int, ...], height: int, width: int) -> NDArray[Any]:
    """Maps of a padded frame, at whatever scale, without its padding."""
    rows, columns = maps.shape[2:]
    return np.ascontiguousarray(maps[:, :, : height * rows // padded[0], : width * columns // padded[1]])
