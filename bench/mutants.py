"""Makes damaged and hostile versions of sound files: what bench/mutations.py feeds the commands.

Blind ones flip, cut, insert, double, swap and overwrite bytes, most of them near the beginning, where headers
lie. The others know the format and change one claim in it: a shape, an offset, a setting.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

HEADER = 512  # bytes: where most blind changes go
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80")
ABSURD = (-1, 0, 1, 3, 1 << 16, 100_000, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1)

Mutation = Callable[[bytes, random.Random], bytes]


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One to eight bits the other way round."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 8))):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """Without its end."""
    return data[: _place(data, chance)]


def beheaded(data: bytes, chance: random.Random) -> bytes:
    """Without its beginning, or without a piece."""
    start, length = _place(data, chance), chance.randrange(1, 64)
    return data[:start] + data[start + length :]


def inserted(data: bytes, chance: random.Random) -> bytes:
    """With a block of something in between."""
    at = _place(data, chance)
    block = chance.choice((chance.randbytes(chance.randrange(1, 64)), bytes(4096), b"\xff" * 64))
    return data[:at] + block + data[at:]


def doubled(data: bytes, chance: random.Random) -> bytes:
    """With a block of itself twice."""
    at = _place(data, chance)
    length = chance.randrange(1, max(2, min(4096, len(data) - at)))
    return data[: at + length] + data[at:]


def swapped(data: bytes, chance: random.Random) -> bytes:
    """With two of its blocks in each other's place."""
    length = chance.randrange(1, max(2, min(256, len(data) // 2)))
    first, second = sorted(chance.randrange(0, max(1, len(data) - length)) for _ in range(2))
    if second < first + length:
        return flipped(data, chance)
    return b"".join(
        (
            data[:first],
            data[second : second + length],
            data[first + length : second],
            data[first : first + length],
            data[second + length :],
        )
    )


def extreme(data: bytes, chance: random.Random) -> bytes:
    """With a field of 1, 2, 4 or 8 bytes set to its least or most."""
    at, width = _place(data, chance), chance.choice((1, 2, 4, 4, 8))
    sign = chance.choice(EXTREMES)
    value = chance.choice((sign * width, sign + b"\xff" * (width - 1), b"\xff" * (width - 1) + sign))
    return data[:at] + value + data[at + width :]


def overwritten(data: bytes, chance: random.Random) -> bytes:
    """With a stretch of noise, or of nothing."""
    at = _place(data, chance)
    length = min(len(data) - at, chance.choice((16, 256, 4096)))
    return data[:at] + chance.choice((bytes(length), chance.randbytes(length))) + data[at + length :]


BLIND: tuple[Mutation, ...] = (
    flipped,
    flipped,
    cut,
    beheaded,
    inserted,
    doubled,
    swapped,
    extreme,
    extreme,
    overwritten,
)


def _place(data: bytes, chance: random.Random) -> int:
    end = min(HEADER, len(data)) if chance.random() < 0.6 else len(data)
    return chance.randrange(max(1, end))


def onnx_claim(data: bytes, chance: random.Random) -> bytes:
    """One thing in a graph that is not as it says, or absurd."""
    import onnx

    model = onnx.load_model_from_string(data)
    del model.metadata_props[-1]  # the seal, which tells damage and not intent
    graph = model.graph
    tensor, node = chance.choice(graph.initializer), chance.choice(graph.node)
    entry = chance.choice(model.metadata_props)
    kind = chance.randrange(14)
    if kind == 0 and len(tensor.dims):
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(ABSURD)
    elif kind == 1:
        tensor.dims.append(chance.choice(ABSURD))
    elif kind == 2:
        tensor.data_type = chance.randrange(0, 30)
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif kind == 4:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        place = chance.choice(("/etc/hostname", "../model.bin", "model.bin", "", "/dev/zero", "x\0y"))
        tensor.external_data.add(key="location", value=place)
        tensor.external_data.add(key="length", value=str(chance.choice(ABSURD)))
    elif kind == 5 and len(node.input):
        node.input[chance.randrange(len(node.input))] = chance.choice(("", "absent", node.output[0]))
    elif kind == 6:
        node.op_type = chance.choice(("NonZero", "Loop", "Nothing", "Conv", "Relu", ""))
    elif kind == 7:
        for attribute in node.attribute:
            attribute.i = chance.choice(ABSURD)
            if attribute.ints:
                attribute.ints[0] = chance.choice(ABSURD)
    elif kind == 8:
        value = chance.choice((*graph.input, *graph.output))
        if value.type.tensor_type.shape.dim:
            chance.choice(value.type.tensor_type.shape.dim).dim_value = chance.choice(ABSURD)
    elif kind == 9:
        model.opset_import[0].version = chance.choice(ABSURD)
    elif kind == 10:
        entry.value = chance.choice(
            ("", "null", "[]", "9" * 5000, "{" * 5000, "1e999x1", "99999999x99999999")
        )
    elif kind == 11:
        config = next(e for e in model.metadata_props if e.key == "measnet.config")
        config.value = _absurd_config(config.value, chance)
    elif kind == 12:
        fill = graph.node.add(op_type="ConstantOfShape", input=["shape"], output=["filled"])
        graph.initializer.append(onnx.helper.make_tensor("shape", 7, [2], [chance.choice(ABSURD)] * 2))
        graph.node.insert(0, fill)
        del graph.node[-1]
    else:
        del graph.node[chance.randrange(len(graph.node))]
    return model.SerializeToString()


def safetensors_claim(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header says something else."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = chance.choice([key for key in header if key != "__metadata__"])
    kind = chance.randrange(7)
    if kind == 0:
        return chance.choice(ABSURD).to_bytes(8, "little", signed=True) + data[8:]
    if kind == 1:
        header[name]["shape"] = [chance.choice(ABSURD)] * chance.randrange(1, 5)
    elif kind == 2:
        header[name]["data_offsets"] = [chance.choice(ABSURD), chance.choice(ABSURD)]
    elif kind == 3:
        header[name]["dtype"] = chance.choice(("F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "X"))
    elif kind == 4:
        header[chance.choice(("stem.weight", "blocks.99999999.weight", "é" * 999))] = header.pop(name)
    else:
        facts = header["__metadata__"]
        facts["measnet.config"] = _absurd_config(facts["measnet.config"], chance)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def _absurd_config(text: str, chance: random.Random) -> str:
    config: dict[str, Any] = json.loads(text)
    key = chance.choice(list(config))
    value: Any = chance.choice((*ABSURD, 10**30, -0.5, float("nan"), float("inf"), "x", None, [], True))
    if isinstance(config[key], list) and chance.random() < 0.7:
        config[key][chance.randrange(len(config[key]))] = value
    else:
        config[key] = value
    return json.dumps(config)


def checkpoint_claim(data: bytes, chance: random.Random) -> bytes:
    """A PyTorch file that holds something else, or the same tensors in absurd shapes."""
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True)
    state = content["state_dict"]
    name = chance.choice(list(state))
    kind = chance.randrange(6)
    if kind == 0:
        # A tensor of any size that takes four bytes on disk.
        state[name] = torch.zeros(()).expand([chance.choice((1, 7, 100_000)) for _ in state[name].shape])
    elif kind == 1:
        wide = chance.choice((100_000, 1 << 20))
        for key, tensor in state.items():
            # Two sides alone, or PyTorch itself could not count the elements.
            sides = [side * wide if place < 2 else side for place, side in enumerate(tensor.shape)]
            state[key] = torch.zeros(()).expand(sides)
    elif kind == 2:
        state[name] = chance.choice((None, "text", 1, [1], {"a": torch.zeros(1)}, torch.zeros(0)))
    elif kind == 3:
        state[name] = state[name].to(chance.choice((torch.float64, torch.int8, torch.bool, torch.complex64)))
    elif kind == 4:
        content["state_dict"] = chance.choice(({}, [], None, {"x": 1}, {3: state[name]}))
    else:
        stem = next(key for key in state if key.endswith("stem.weight"))
        state[stem] = torch.zeros(1).expand(chance.choice((1 << 20, 1 << 40)), 3, 3, 3)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def sealed_claim(data: bytes, chance: random.Random) -> bytes:
    """An engine file whose seal is right and whose facts are not."""
    magic, version, length, _ = struct.unpack_from("<16sII32s", data)
    sealed, payload = json.loads(data[56 : 56 + length]), data[56 + length :]
    facts = sealed["facts"]
    target = chance.choice((facts, facts["graph"], facts["settings"], sealed))
    if target and chance.random() < 0.8:
        target[chance.choice(list(target))] = chance.choice((*ABSURD, "", "x", None, [], {}, [[1]]))
    else:
        facts["profiles"] = chance.choice(([], [{}], [{"image": [[1], [2], []]}], 5, [[1, 2]]))
    text = json.dumps(sealed).encode()
    digest = hashlib.sha256(text).digest()
    return struct.pack("<16sII32s", magic, version, len(text), digest) + text + payload


def manifest_claim(data: bytes, chance: random.Random) -> bytes:
    """A manifest whose seals are right and whose lines are not."""
    lines = [json.loads(line) for line in data.splitlines()]
    line = chance.choice(lines)
    line.pop("seal")
    target = chance.choice((line, *(value for value in line.values() if isinstance(value, dict) and value)))
    target[chance.choice(list(target))] = chance.choice(
        (*ABSURD, "", "x", None, [], {}, [[1, 2, 3, 4]], True)
    )
    line["seal"] = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
    if chance.random() < 0.2:
        lines.append(lines[-1])
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def y4m_claim(data: bytes, chance: random.Random) -> bytes:
    """A y4m stream whose first line says something else."""
    end = data.index(b"\n")
    words = data[:end].split(b" ")
    number = str(chance.choice((*ABSURD, 10**30))).encode()
    extra = (
        b"W" + number,
        b"H" + number,
        b"F" + number + b":1",
        b"F1:0",
        b"A0:0",
        b"C420p16",
        b"Cmono",
        b"C444alpha",
        b"Xyz" * 999,
        b"Im",
    )
    words[chance.randrange(1, len(words))] = chance.choice(extra)
    return b" ".join(words) + data[end:]
