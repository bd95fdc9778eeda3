"""PyTorch: runs any checkpoint as it is, and is what every other backend is verified against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from measnet.description import GraphDescription
from measnet.errors import BackendError, MissingPackageError, first_line
from measnet.image import Image
from measnet.runtime.backends import Inference, Steering, steering_inputs

if TYPE_CHECKING:
    from measnet.network import MEASNet
    from measnet.network.decisions import SteeredNetwork


class TorchBackend:
    """Runs a checkpoint in float32, on a GPU if PyTorch sees one."""

    def __init__(self, checkpoint: Path, threads: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.threads = threads
        self._network: MEASNet | None = None
        self._steered: SteeredNetwork | None = None
        self._description: GraphDescription | None = None
        self._device = "cpu"

    @property
    def description(self) -> GraphDescription:
        if self._description is None:
            raise BackendError("the PyTorch backend is not active")
        return self._description

    @property
    def facts(self) -> dict[str, str]:
        import torch

        return {
            "backend": "torch",
            "version": torch.__version__,
            "provider": self._device,
            "checkpoint": str(self.checkpoint),
        }

    def activate(self) -> None:
        try:
            import torch
        except ModuleNotFoundError:
            raise MissingPackageError("running or verifying with PyTorch", "torch", "train") from None
        from measnet.checkpoint import load_checkpoint, weights_sha256
        from measnet.network.decisions import SteeredNetwork, layout_of

        if self.threads:
            torch.set_num_threads(self.threads)
        network = load_checkpoint(self.checkpoint)
        self._description = GraphDescription(
            network.config,
            weights_sha256(network),
            static_size=None,
            steerable=True,
            decisions=layout_of(network),
            task_prompts=network.task_prompts,
            taught=network.taught,
        )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = network.to(self._device)
        self._steered = SteeredNetwork.of(self._network)

    def infer(self, images: Image, steering: Steering | None = None) -> Inference:
        import torch

        if self._network is None or self._steered is None:
            raise BackendError("the PyTorch backend is not active")
        try:
            with torch.inference_mode():
                given = torch.from_numpy(images).to(self._device)
                own = norms = None
                if steering is None:
                    done = self._network.restore(given)
                else:
                    inputs = steering_inputs(steering, images).values()
                    done, own, norms = self._steered.restore(
                        given, *(torch.from_numpy(x).to(self._device) for x in inputs)
                    )
        except RuntimeError as error:
            raise BackendError(
                f"PyTorch failed on {images.shape[2]}x{images.shape[3]} pixels: {first_line(error)}"
            ) from None
        return Inference(
            restored=done.restored.float().cpu().numpy(),
            choices=done.choices(),
            prompt_weights=None if done.prompt_weights is None else done.prompt_weights.cpu().numpy(),
            decisions=None if own is None else own.cpu().numpy(),
            norms=None if norms is None else norms.cpu().numpy(),
        )

    def deactivate(self) -> None:
        self._network = self._steered = None
