"""TensorRT and TensorRT-RTX: runs the engine files that ``measnet-export engine`` writes."""

from measnet.runtime.backends.tensorrt.backend import TensorRTBackend

__all__ = ["TensorRTBackend"]
