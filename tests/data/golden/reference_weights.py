"""Deterministic parameters for the MEASNet reference architecture.

Every tensor of the state dict is filled from its own name, so the same
weights can be rebuilt anywhere without shipping them.

    state = fill(shapes, seed=0)      # shapes: {name: tuple}, as in state_dict_*.json
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
"""

from __future__ import annotations

import zlib

import numpy as np


def fill(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Return {name: float32 array} (int64 for ``num_batches_tracked``) for ``shapes``."""
    return {name: _tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = rng.standard_normal(shape)
    if name.endswith("model.mean"):  # noise distribution of the noisy gate
        value = np.zeros(shape)
    elif name.endswith("model.std"):
        value = np.ones(shape)
    elif leaf in ("temperature", "param_beta"):
        value = 1 + 0.2 * noise
    elif leaf == "param_alpha":
        value = 0.5 * noise
    elif leaf == "running_var":
        value = 1 + 0.3 * np.abs(noise)
    elif leaf in ("running_mean", "lamb_l", "lamb_h", "bias"):
        value = 0.1 * noise
    elif leaf == "dictionary":
        value = noise
    elif leaf == "w_g":  # (2C, experts): decisive routing
        value = 3 * noise / np.sqrt(shape[0])
    elif leaf == "w_n":
        value = 0.1 * noise
    elif leaf == "weight" and len(shape) == 1:  # normalisation gains
        value = 1 + 0.1 * noise
    else:  # convolution and linear kernels
        value = noise / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)
