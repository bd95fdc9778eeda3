"""Reads MEASNet checkpoints in three formats and writes ours.

    released     a Lightning ``.ckpt``: tensors under ``state_dict``, each name behind ``net.``
    state dict   a PyTorch file of tensors, in the authors' names or in ours, as they are or behind a prefix
                 that all share; by itself, or as BasicSR and others keep it
    ours         ``.safetensors`` with the configuration in its metadata

Files come from strangers: pickles are read with ``weights_only=True`` alone, and every name, shape and
value is checked before a network is handed out.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from measnet import damage, task_prompts
from measnet.config import TONE_TASKS, VARIANTS, MEASNetConfig, variant_name
from measnet.config_from_tensors import config_from_shapes
from measnet.errors import CheckpointError, MissingPackageError, UsageError, first_line
from measnet.file_name import in_utf8
from measnet.network import MEASNet
from measnet.network.gated import NOBODY
from measnet.reference_names import is_reference_name, is_stored_but_unused, to_our_name
from measnet.whole_file import write_whole

_CONFIG_KEY = "measnet.config"
_WEIGHTS_KEY = "measnet.weights_sha256"
_KEPT_UNDER = ("state_dict", "params_ema", "params", "model")
"""Keys of trainers' files that hold the weights: Lightning's, BasicSR's (its average first), others'."""
_FIRST = ("stem.weight", "patch_embed.proj.weight")
"""A tensor that every MEASNet has, in our names and the authors'."""
_LISTED = 6  # names per kind of problem in one message
_LONGEST = 120  # characters of each


def load_checkpoint(path: str | os.PathLike[str], config: MEASNetConfig | None = None) -> MEASNet:
    """The network in a checkpoint, in evaluation mode, float32, on the CPU.

    ``config`` overrides what the file stores, or what its tensors' shapes tell (K and the ensemble are
    not in the shapes: a file without a stored configuration gets the published ones).

    Raises ``CheckpointError`` when the file is absent, not a checkpoint, another network, or not finite;
    the message lists what is missing, unexpected or misshapen.
    """
    path = Path(path)
    tensors, facts = _read(path)
    _check_claims(path, tensors)
    tensors = _in_our_names(tensors)
    hashed = sha256_of(tensors) if _WEIGHTS_KEY in facts else None
    tensors = _with_every_judge(tensors)
    stored = facts.get(_CONFIG_KEY)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        prompts, taught = task_prompts.from_metadata(facts), damage.from_metadata(facts)
        config = config or (MEASNetConfig.from_json(stored) if stored else config_from_shapes(shapes))
        with torch.device("meta"), _Undrawn():
            network = MEASNet(config)
    except (UsageError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}{_of_names(shapes)}") from None
    _check_fit(path, shapes, network)
    _check_values(path, tensors, network)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    network.load_state_dict(tensors, assign=True)
    network.task_prompts, network.taught = prompts, taught
    if hashed is not None and facts[_WEIGHTS_KEY] != hashed:
        raise CheckpointError(f"{path} is damaged: its weights are not those that were saved; copy it again")
    return network.requires_grad_(True).eval()


class _Undrawn(TorchFunctionMode):
    """Draws no random weights. For tensors without memory PyTorch would load its compiler to draw them, which
    takes as long as to load PyTorch."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.Tensor.normal_, torch.nn.init.normal_):
            return given["tensor"] if "tensor" in given else args[0]
        if func is torch.randn:
            func = torch.empty
        return func(*args, **given)


def save_checkpoint(
    network: MEASNet,
    path: str | os.PathLike[str],
    facts: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> None:
    """Writes our format: safetensors; configuration, task prompts, whether it was taught damage, and
    ``facts`` in the metadata. ``half`` stores float16, of weights that are no finer.

    The file appears under its name only when it is whole. Raises ``OutputError`` when it cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    metadata = {
        **(facts or {}),
        _WEIGHTS_KEY: weights_sha256(network),
        _CONFIG_KEY: network.config.to_json(),
        "measnet.variant": variant_name(network.config),
        **task_prompts.to_metadata(network.task_prompts),
        **damage.to_metadata(network.taught),
    }
    write_whole(Path(path), _with_sorted_metadata(save(tensors, metadata=metadata)))


def stored_facts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the metadata of a checkpoint by key; none in other formats than ours. Raises as
    ``load_checkpoint``."""
    return _read(Path(path))[1]


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library's order is random, file for file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def weights_sha256(network: MEASNet) -> str:
    """SHA-256 over every tensor's name, shape and float32 bytes: the identity of the weights."""
    return sha256_of(network.state_dict())


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """As ``weights_sha256``, of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        whole = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(whole.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the facts stored with them, by key."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"the checkpoint {path} {kind}")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise CheckpointError(f"the checkpoint {path} is empty (0 bytes)")
    if start[8:9] == b"{":
        return _read_safetensors(path)
    return _read_pickle(path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise MissingPackageError("reading a .safetensors file", "safetensors", "train") from None
    name = in_utf8(path)
    try:
        with safe_open(name, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a sound safetensors file: {first_line(error)}") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A hostile pickle can fail in any way while it is read; none of them is our failure.
    except Exception as error:
        # PyTorch's own advice is to read it unsafely; that is not ours.
        why = "it is something else" if "weights_only" in str(error) else first_line(error)
        raise CheckpointError(
            f"{path} is not a checkpoint that can be read safely (tensors and plain values only): {why}"
        ) from None
    if isinstance(content, dict) and {"recipe", "average"} <= content.keys():
        raise CheckpointError(
            f"{path} is what training goes on from; the network is in {path.with_name('weights.safetensors')}"
        )
    if isinstance(content, dict):
        content = next((content[key] for key in _KEPT_UNDER if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not tensors by name")
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"{path} is not a state dict: {_some(strangers)} are not tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _check_archive(path: Path) -> None:
    """PyTorch stores tensors as they are, so an archive that grows when read is no checkpoint. It writes
    checksums beside them, and does not look at them when it reads."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            grows = sum(entry.file_size for entry in entries) > path.stat().st_size or any(
                entry.compress_type != zipfile.ZIP_STORED for entry in entries
            )
            broken = None if grows else archive.testzip()
    except (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is a damaged archive: {first_line(error)}") from None
    if broken is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {broken[:80]} is wrong; copy it again")
    if grows:
        raise CheckpointError(f"{path} is a compressed archive, which PyTorch never writes; not read")


def _check_claims(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A tensor may repeat one number a million times over, and would be written out in full later on."""
    empty = sorted(name for name, tensor in tensors.items() if not tensor.numel())
    if empty:
        raise CheckpointError(f"{path} is not a MEASNet checkpoint: {_some(empty)} hold nothing")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    stored = path.stat().st_size
    if claimed > stored:
        raise CheckpointError(f"{path} claims {claimed} bytes of tensors and has {stored}; not read")


def _in_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefixes = [
        name.removesuffix(first) for first in _FIRST for name in tensors if name.endswith(f".{first}")
    ]
    for prefix in prefixes[:1]:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if any(is_reference_name(name) for name in tensors):
        tensors = {
            to_our_name(name): tensor for name, tensor in tensors.items() if not is_stored_but_unused(name)
        }
    return tensors


def _with_every_judge(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Completes files from when a tone had one judge: nobody else is followed."""
    weight, bias = (tensors.get(f"tone.decide.{kind}") for kind in ("weight", "bias"))
    if weight is None or bias is None:
        return tensors
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("tone.decide.")}
    judges = 1 + len(TONE_TASKS)
    for name in ("tone.see.weight", "tone.see.bias"):
        if name in rest:
            rest[name] = torch.cat([rest[name]] * judges)
    rest["tone.followed"] = torch.tensor(NOBODY)[:, None].repeat(1, judges - 1)
    return {**rest, "tone.decide": torch.stack([weight] * judges), "tone.lean": torch.stack([bias] * judges)}


def _check_fit(path: Path, shapes: Mapping[str, tuple[int, ...]], network: MEASNet) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = sorted(expected.keys() - shapes.keys())
    unexpected = sorted(shapes.keys() - expected.keys())
    misshapen = [
        f"{name} is {list(shapes[name])}, must be {list(expected[name])}"
        for name in sorted(expected.keys() & shapes.keys())
        if shapes[name] != expected[name]
    ]
    problems = [
        f"{len(names)} {kind}: {_some(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} is not this MEASNet: {'; '.join(problems)}{_of_names(shapes)}")


def _of_names(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Tells of tensors in modules that no MEASNet has, for the end of a message; "" where there are none."""
    gated = any(name.startswith("tone.") for name in shapes)
    likely = [config for config in VARIANTS.values() if (config.block == "gated") == gated]
    with torch.device("meta"), _Undrawn():
        named = [[_FIRST[0], *MEASNet(config).state_dict()] for config in likely]
    # By module, the first tensor in it.
    ours = [{_module(name): name for name in reversed(names)} for names in named]
    modules = {module for one in ours for module in one}
    strange = sorted(name for name in shapes if _module(name) not in modules)
    if not strange:
        return ""
    there = {_module(name) for name in shapes}
    needed = [module for module in map(_module, named[0]) if all(module in one for one in ours)]
    missing = next((ours[0][module] for module in needed if module not in there), "")
    return (
        f"; {len(strange)} of its {len(shapes)} tensors have names of no MEASNet, like {_some(strange[:1])}"
        f"{f', and none is {missing}' if missing else ''}: understood are our names ({_FIRST[0]}) and the "
        f"authors' ({_FIRST[1]}), all behind one prefix or none, by themselves or under "
        f"{', '.join(_KEPT_UNDER)}"
    )


def _module(name: str) -> str:
    """The outermost module that a tensor lies in."""
    return name.partition(".")[0]


def _check_values(path: Path, tensors: Mapping[str, Tensor], network: MEASNet) -> None:
    other = [
        f"{name} ({str(tensors[name].dtype).removeprefix('torch.')})"
        for name, expected in sorted(network.state_dict().items())
        if expected.is_floating_point() and not tensors[name].is_floating_point()
    ]
    if other:
        raise CheckpointError(f"{path} is not this MEASNet: {_some(other)} must be floating-point numbers")
    broken = [name for name, tensor in sorted(tensors.items()) if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {len(broken)} tensors: {_some(broken)}; "
            "take an earlier checkpoint of that training"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:_LONGEST] for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
