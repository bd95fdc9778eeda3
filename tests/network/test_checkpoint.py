"""Checkpoints: three formats in, one out, and a clear word about everything else."""

from __future__ import annotations

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORMER_NANO, golden_shapes, golden_state

import measnet
from measnet.checkpoint import load_checkpoint, save_checkpoint, sha256_of, weights_sha256
from measnet.config import VARIANTS, MEASNetConfig
from measnet.config_from_tensors import config_from_shapes
from measnet.errors import CheckpointError, OutputError
from measnet.network import MEASNet
from measnet.reference_names import is_stored_but_unused, to_our_name
from measnet.weights import bundled


def test_all_three_formats_give_the_same_network(
    golden_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    lightning = load_checkpoint(golden_checkpoint("tiny"))
    torch.save(golden_state("tiny"), tmp_path / "plain.pth")
    save_checkpoint(lightning, tmp_path / "ours.safetensors")
    torch.save(lightning.state_dict(), tmp_path / "ours.pt")
    identity = weights_sha256(lightning)
    for name in ("plain.pth", "ours.safetensors", "ours.pt"):
        again = load_checkpoint(tmp_path / name)
        assert weights_sha256(again) == identity, name
        assert again.config == lightning.config, name


@pytest.mark.parametrize("kind", ["golden", "nano", "small", "former nano"])
def test_a_checkpoint_is_read_without_pytorchs_compiler(
    kind: str, golden_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes as long to load as PyTorch, which does so to fill what has no memory in some ways."""
    if kind == "golden":
        path = golden_checkpoint("tiny")
    elif kind == "former nano":
        save_checkpoint(MEASNet(FORMER_NANO), path := tmp_path / "former.safetensors")
    else:
        path = bundled(kind, ".safetensors")
    for name in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy"):
        monkeypatch.setitem(sys.modules, name, None)
    load_checkpoint(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], str]:
    """The golden weights, and the hash of the network that a file of nothing else holds."""
    state, path = golden_state("tiny"), tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(state, path)
    return state, weights_sha256(load_checkpoint(path))


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("state_dict", "net."),
        ("params", "module."),
        ("params_ema", ""),
        ("model", "_orig_mod."),
        (None, "module._orig_mod."),
        ("state_dict", "net.module."),
        ("state_dict", "model.generator."),
        (None, "any_thing."),
        (None, "net."),
    ],
)
def test_weights_are_found_wherever_trainers_keep_them(
    key: str | None, prefix: str, plain: tuple[dict[str, torch.Tensor], str], tmp_path: Path
) -> None:
    state = {prefix + name: tensor for name, tensor in plain[0].items()}
    torch.save(state if key is None else {"epoch": 3, key: state}, tmp_path / "theirs.pth")
    assert weights_sha256(load_checkpoint(tmp_path / "theirs.pth")) == plain[1]


def test_the_average_is_taken_before_the_weights_it_is_of(
    plain: tuple[dict[str, torch.Tensor], str], tmp_path: Path
) -> None:
    average = plain[0]
    weights = {name: tensor + 1 for name, tensor in average.items()}
    torch.save({"params": weights, "params_ema": average}, tmp_path / "theirs.pth")
    assert weights_sha256(load_checkpoint(tmp_path / "theirs.pth")) == plain[1]


def test_what_a_run_goes_on_from_leads_to_its_weights(tmp_path: Path) -> None:
    """It lacks what belongs to a network beside its tensors."""
    torch.save({"recipe": "", "step": 3, "network": {}, "average": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"training goes on from; .*weights\.safetensors"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_file_of_no_tensors_at_all_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "empty.safetensors")


def test_the_same_network_is_always_the_same_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MEASNet(VARIANTS["nano"])
    facts = {f"measnet.fact{index}": str(index) for index in range(8)}
    for name in ("a", "b"):
        save_checkpoint(network, tmp_path / f"{name}.safetensors", facts)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert weights_sha256(load_checkpoint(tmp_path / "a.safetensors")) == weights_sha256(network)


@torch.no_grad()
@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_a_network_from_when_tones_had_one_judge_restores_as_it_did(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MEASNet(VARIANTS["nano"]).eval()
    tone = network.tone
    assert tone is not None
    torch.nn.init.normal_(tone.decide[0], std=0.3)
    image = torch.rand(1, 3, 128, 128)
    wanted = network(image)
    tone.decide[1:] = 1e3  # nobody follows these, nor will
    former = network.state_dict()
    former["tone.decide.weight"], former["tone.decide.bias"] = (
        former.pop("tone.decide")[0],
        former.pop("tone.lean")[0],
    )
    width = len(former["tone.see.bias"]) // len(tone.lean)
    for name in ("tone.see.weight", "tone.see.bias"):
        former[name] = former[name][:width].clone()
    del former["tone.followed"]
    path = tmp_path / f"x.{form}"
    if form == "pt":
        torch.save(former, path)
    else:
        from safetensors.torch import save_file

        facts = {"measnet.config": network.config.to_json(), "measnet.weights_sha256": sha256_of(former)}
        save_file(former, path, facts)
    again = load_checkpoint(path)
    assert torch.equal(again(image), wanted)
    assert again.tone is not None and (again.tone.followed > 1).all()


@pytest.mark.parametrize("kind", ["tiny", "base"])
def test_names_map_one_to_one_onto_the_network(kind: str) -> None:
    used = [name for name in golden_shapes(kind) if not is_stored_but_unused(name)]
    ours = {to_our_name(name) for name in used}
    assert len(ours) == len(used)
    if kind == "base":
        with torch.device("meta"):
            assert ours == set(MEASNet().state_dict())


@pytest.mark.parametrize(
    "config",
    [
        *(pytest.param(config, id=name) for name, config in VARIANTS.items()),
        pytest.param(FORMER_NANO, id="former nano"),
        pytest.param(replace(VARIANTS["nano"], stem_scale=1), id="nano at full resolution"),
        pytest.param(replace(VARIANTS["nano"], mee=False), id="nano without MEE"),
        pytest.param(replace(VARIANTS["nano"], fd=False, tspg=False), id="nano without FD and TSPG"),
        pytest.param(replace(VARIANTS["nano"], pixel_experts=(4, 3, 3)), id="nano, experts everywhere"),
    ],
)
def test_shapes_alone_tell_the_configuration(config: MEASNetConfig) -> None:
    with torch.device("meta"):
        state = MEASNet(config).state_dict()
    assert config_from_shapes({name: tuple(tensor.shape) for name, tensor in state.items()}) == config


def test_a_plain_state_dict_of_a_gated_network_is_that_network(tmp_path: Path) -> None:
    network = MEASNet(VARIANTS["nano"])
    torch.save(network.state_dict(), tmp_path / "x.pt")
    again = load_checkpoint(tmp_path / "x.pt")
    assert again.config == network.config and weights_sha256(again) == weights_sha256(network)


@pytest.mark.parametrize(
    ("stem", "says"),
    [
        ((32, 12, 3, 3), "takes 12 channels by 3x3, must be 3, by 3x3 or 4x4"),
        ((32, 3, 6, 6), "takes 3 channels by 6x6, must be 3, by 3x3 or 4x4"),
    ],
)
def test_a_gated_network_with_a_strange_stem_is_refused(
    stem: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    state = MEASNet(VARIANTS["nano"]).state_dict()
    torch.save({**state, "stem.weight": torch.zeros(stem)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(tmp_path / "x.pt")


def test_the_public_face_loads_checkpoints(golden_checkpoint: Callable[[str], Path]) -> None:
    assert measnet.load_checkpoint(golden_checkpoint("tiny")).config.width == 16


def test_missing_unexpected_and_misshapen_tensors_are_all_listed(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["wings.weight"] = torch.zeros(3)
    del state["output.weight"]
    state["down1_2.body.0.weight"] = torch.zeros(8, 16, 1, 1)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.pt")
    message = str(caught.value)
    assert "1 missing: output.weight" in message
    assert "1 unexpected: wings.weight" in message
    assert "down1.narrow.weight is [8, 16, 1, 1], must be [8, 16, 3, 3]" in message


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a MEASNet checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("rename", "found", "missing"),
    [
        (lambda name: f"{'a' if name < 'm' else 'b'}.{name}", "a.decoder2.0.", "stem."),
        (lambda name: name.replace("stem", "first"), "first.bias", "stem."),
        (lambda name: name.replace("encoder3.", "enc.three."), "enc.three.0.", "encoder3.0."),
        (lambda name: name.replace(".", "/"), "decoder2/0/", "stem."),
    ],
)
def test_names_that_are_not_understood_are_told_from_another_network(
    rename: Callable[[str], str], found: str, missing: str, tmp_path: Path
) -> None:
    state = MEASNet(VARIANTS["nano"]).state_dict()
    torch.save({rename(name): tensor for name, tensor in state.items()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.pt")
    message = str(caught.value)
    assert f"names of no MEASNet, like {found}" in message and f"none is {missing}" in message
    assert "behind one prefix or none" in message and "state_dict" in message and "\n" not in message


def test_nan_in_the_weights_is_refused_by_name(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["output.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 1 tensors: output\.weight"):
        load_checkpoint(tmp_path / "x.pt")


class Harmful:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    victim = tmp_path / "made-by-the-pickle"
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"state_dict": Harmful(victim)}))
    torch.save({"state_dict": Harmful(victim)}, tmp_path / "y.ckpt")
    for name in ("x.ckpt", "y.ckpt"):
        with pytest.raises(CheckpointError, match="can be read safely"):
            load_checkpoint(tmp_path / name)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"\x00" * 300, "read safely"), (b"PK\x03\x04 not really", "read safely")],
)
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_truncated_safetensors_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(MEASNet(VARIANTS["nano"]), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a sound safetensors file"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_an_archive_that_grows_when_read_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="compressed archive"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_that_claims_a_million_blocks_is_refused_at_once(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["latent.999999.norm1.body.weight"] = torch.zeros(128)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="count of blocks"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nope.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_a_stored_configuration_wins_over_shapes(tmp_path: Path) -> None:
    config = MEASNetConfig(
        width=16,
        blocks=(1, 1, 1, 1),
        refinement_blocks=0,
        pixel_top_k=(3, 3, 3),
        ensemble="weighted_sum",
    )
    save_checkpoint(MEASNet(config), tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors").config == config


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(MEASNet(VARIANTS["nano"]), tmp_path / "no-such-folder" / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_repeats_one_number_a_million_times_is_not_written_out(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["patch_embed.proj.weight"] = torch.zeros(1).expand(100_000, 3, 3, 100_000)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"claims 3\d{11} bytes of tensors"):
        load_checkpoint(tmp_path / "x.pt")


def test_flipped_bits_in_weights_are_noticed(tmp_path: Path) -> None:
    network = MEASNet(VARIANTS["nano"])
    save_checkpoint(network, tmp_path / "x.safetensors")
    torch.save(network.state_dict(), tmp_path / "x.ckpt")
    for name, words in (("x.safetensors", "weights are not those"), ("x.ckpt", "checksum of .* is wrong")):
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(tmp_path / name)


def header_changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["stem.weight"].update(shape=[1 << 20, 12, 3, 3]), "not a sound safetensors file"),
        (lambda h: h["stem.weight"].update(data_offsets=[0, 1 << 60]), "not a sound safetensors file"),
        (lambda h: h["__metadata__"].update({"measnet.config": '{"width": 1099511627776}'}), "width is 1099"),
        (lambda h: h["__metadata__"].update({"measnet.config": "[" * 100_000}), "is not JSON"),
        (lambda h: h.update({f"encoder1.{'9' * 5000}.x": h.pop("stem.weight")}), "1 missing: stem.weight"),
    ],
)
def test_a_header_that_claims_the_absurd_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(MEASNet(VARIANTS["nano"]), path)
    header_changed(path, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 2000


def test_tensors_without_an_element_are_refused(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["encoder_level1.0.ffn.project_in.weight"] = torch.zeros(0, 3, 1, 1)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="hold nothing"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["output.weight"] = state["output.weight"].to(kind)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"output\.weight \(\w+\) must be floating-point numbers"):
        load_checkpoint(tmp_path / "x.pt")
