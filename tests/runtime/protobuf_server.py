"""A gRPC server of Triton's protocol, built on its client's own protobufs. It is not Triton.

It reads a model repository as ``measnet-export triton`` writes it; ONNX Runtime computes the real graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype


class ProtobufServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves every model of ``repository`` on a port of the loopback, until ``stop``.

    ``hold`` keeps requests waiting while it is set; ``together`` is how many were in it at the same time, at
    most; ``pictures_sent`` counts those that came through gRPC. With ``shares`` it opens shared memory.
    """

    def __init__(self, repository: Path, *, port: int = 0, shares: bool = True) -> None:
        self.hold = threading.Event()
        self.together = 0
        self.pictures_sent = 0
        self._inside = 0
        self._go_on = threading.Condition()
        self._shares = shares
        self._memory: dict[str, np.memmap[Any, np.dtype[np.uint8]]] = {}
        self._configs = {
            home.name: text_format.Parse((home / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
            for home in sorted(repository.iterdir())
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            name: onnxruntime.InferenceSession(
                str(repository / name / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in self._configs
        }
        size = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[*size, ("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"triton://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Goes away; requests under way fail."""
        self._server.stop(0).wait()

    def wait_for_requests(self, count: int) -> None:
        with self._go_on:
            assert self._go_on.wait_for(lambda: self._inside >= count, 30), f"{self._inside} came"

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return service_pb2.ServerMetadataResponse(name="not triton", version="0.0-protobufs")

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        models = [{"name": name, "version": "1", "state": "READY"} for name in self._configs]
        return service_pb2.RepositoryIndexResponse(models=models)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name not in self._configs:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found"
            )
        return service_pb2.ModelConfigResponse(config=self._configs[request.name])

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self._shares:
            context.abort(grpc.StatusCode.INTERNAL, f"Unable to open shared memory region: '{request.key}'")
        path = Path("/dev/shm") / request.key.lstrip("/")
        self._memory[request.name] = np.memmap(path, np.uint8, "r+", request.offset, (request.byte_size,))
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._memory.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._go_on:
            self._inside += 1
            self.together = max(self.together, self._inside)
            self._go_on.notify_all()
        try:
            while self.hold.is_set() and context.is_active():
                threading.Event().wait(0.01)
            return self._infer(request, context)
        finally:
            with self._go_on:
                self._inside -= 1

    def _infer(self, request: Any, context: Any) -> Any:
        contents = iter(request.raw_input_contents)
        given = {}
        for tensor in request.inputs:
            data = self._place(tensor, context)
            found = np.frombuffer(
                next(contents) if data is None else data, triton_to_np_dtype(tensor.datatype)
            )
            given[tensor.name] = found.reshape(tensor.shape)
            self.pictures_sent += tensor.name == "image" and data is None
        batch = self._configs[request.model_name].max_batch_size
        if len(given["image"]) > batch:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"[request id: x] batch-size must be <= {batch}")
        session, names = self._sessions[request.model_name], [tensor.name for tensor in request.outputs]
        try:
            values = session.run(names, given)
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, f"onnx runtime error: {error}")
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for tensor, value in zip(request.outputs, values, strict=True):
            datatype = np_to_triton_dtype(value.dtype)
            response.outputs.add(name=tensor.name, datatype=datatype, shape=value.shape)
            place = self._place(tensor, context)
            # Triton, too, has a content for every output, and leaves it empty where the memory is shared.
            response.raw_output_contents.append(value.tobytes() if place is None else b"")
            if place is not None:
                place[: value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        return response

    def _place(self, tensor: Any, context: Any) -> Any:
        """The shared memory that a tensor lies in; None where it is sent."""
        parameters = tensor.parameters
        if "shared_memory_region" not in parameters:
            return None
        start = parameters["shared_memory_offset"].int64_param
        size = parameters["shared_memory_byte_size"].int64_param
        name = parameters["shared_memory_region"].string_param
        if name not in self._memory:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unable to find shared memory region: '{name}'")
        return self._memory[name][start : start + size]


@contextlib.contextmanager
def serving(repository: Path, **options: Any) -> Iterator[ProtobufServer]:
    server = ProtobufServer(repository, **options)
    try:
        yield server
    finally:
        server.stop()
