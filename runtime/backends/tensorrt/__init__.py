"""TensorRT and TensorRT-RTX: runs the engine files that ``measnet-export engine`` writes."""

from measnet.runtime.backends.tensorrt.backend import TensorRTBackend
from measnet.runtime.backends.tensorrt.lane import Ticket

__all__ = ["TensorRTBackend", "Ticket"]
