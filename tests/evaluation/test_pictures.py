"""Evaluation: the authors' protocol to the letter, the same figures every time, like compared with like."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from measnet import Restorer
from measnet.errors import InputError, UsageError
from measnet.evaluation import classical
from measnet.evaluation import cli as eval_cli
from measnet.evaluation.cases import Case, cases_of
from measnet.evaluation.contact_sheet import ContactSheet
from measnet.evaluation.measure import (
    PictureFigures,
    Quality,
    SetFigures,
    gained,
    likeness,
    measure,
    quality,
)
from measnet.evaluation.panels import write_picture
from measnet.evaluation.protocol import PROTOCOLS, add_noise, to_picture
from measnet.evaluation.published import FIVE_TASKS, THREE_TASKS, published
from measnet.evaluation.structural_similarity import ssim
from measnet.evaluation.table import cell, share, signed, tables
from measnet.metrics import Choices, psnr
from measnet.runtime.restorer import RestoredFrame
from measnet.train.data.sets import ImageSet, Pair
from measnet.train.degradations import add_haze, add_published_noise

ROOT = Path(__file__).parents[2]
PAPER, FULL = PROTOCOLS["paper"], PROTOCOLS["full"]


def scene(seed: int, height: int = 72, width: int = 88) -> np.ndarray:
    """H W 3, uint8: soft light over hard-edged blocks."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(20, 236, (6, 6, 3)), np.ones((-(-height // 6), -(-width // 6), 1)))
    slope = np.linspace(-15, 15, width)[None, :, None]
    return np.clip(blocks[:height, :width] + slope, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean/: three pictures; pairs/{input,target}: two darkened ones."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("clean", "pairs/input", "pairs/target"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / "clean" / f"{number}.png"), scene(number))
    for number in range(2):
        cv2.imwrite(str(folder / "pairs" / "target" / f"{number}.png"), scene(number))
        cv2.imwrite(str(folder / "pairs" / "input" / f"{number}.png"), scene(number) // 4)
    return folder


@pytest.fixture(scope="module")
def nano() -> Restorer:
    return Restorer("nano")


def clean_set(folder: Path) -> ImageSet:
    return ImageSet("mine", "clean", tuple(Pair(None, path) for path in sorted(folder.iterdir())))


def evaluate(*words: object) -> Result:
    return CliRunner().invoke(eval_cli.main, [str(word) for word in words])


# What is computed.


def test_psnr_and_ssim_are_scikit_images_as_the_authors_call_them() -> None:
    real = cv2.imread(str(ROOT / "docs" / "before-after.jpg"))
    assert real is not None and real.dtype == np.uint8
    rng = np.random.default_rng(0)
    for clean in (rng.random((40, 56, 3), np.float32), to_picture(real[:200, :300].view(np.uint8))):
        noisy = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
        theirs = structural_similarity(clean, noisy, data_range=1, channel_axis=2)
        assert ssim(noisy, clean) == pytest.approx(float(theirs), abs=1e-5)
        assert psnr(noisy, clean) == pytest.approx(
            peak_signal_noise_ratio(clean, noisy, data_range=1), abs=1e-4
        )


@pytest.mark.parametrize("size", [(7, 7), (63, 30), (70, 41), (141, 20)])
def test_ssim_is_scikit_images_at_every_height(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x: Any = rng.random((*size, 3))
    y: Any = np.clip(x + rng.normal(0, 0.2, x.shape), 0, 1)
    assert ssim(y, x) == pytest.approx(
        float(structural_similarity(x, y, data_range=1, channel_axis=2)), abs=1e-9
    )


def test_a_picture_without_room_for_the_window_is_refused() -> None:
    with pytest.raises(InputError, match="6 x 20 pixels has no SSIM"):
        ssim(np.zeros((20, 6, 3), np.float32), np.zeros((20, 6, 3), np.float32))


# The protocol.


def test_the_crop_is_the_released_codes() -> None:
    for height, width in itertools.product((16, 17, 31, 47, 64, 321), (16, 30, 481)):
        pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
        rest_h, rest_w = height % 16, width % 16
        expected = pixels[
            rest_h // 2 : height - rest_h + rest_h // 2, rest_w // 2 : width - rest_w + rest_w // 2
        ]
        assert np.array_equal(PAPER.cut(pixels), expected)
        assert FULL.cut(pixels).shape == pixels.shape
    with pytest.raises(InputError, match="15 x 40 pixels is smaller than 16 x 16"):
        PAPER.cut(np.zeros((40, 15, 3), np.uint8))


def test_paper_clips_and_full_rounds() -> None:
    image = np.full((1, 3, 2, 2), 0.501, np.float32)
    image[0, 0, 0, 0], image[0, 1, 0, 0] = -0.2, 1.3
    frame = RestoredFrame(np.full((2, 2, 3), 128, np.uint8), image, [])
    assert PAPER.result(frame)[0, 0].tolist() == pytest.approx([0, 1, 0.501])
    assert FULL.result(frame)[0, 0].tolist() == pytest.approx([128 / 255] * 3)


def test_noise_is_the_published_one() -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    noisy = add_noise(grey, sigma=25, seed=0, name="x").astype(float)
    assert noisy.std() == pytest.approx(25, rel=0.02)
    assert noisy.mean() == pytest.approx(127.5, abs=0.3)  # truncated, not rounded
    assert noisy.max() <= 255 and noisy.min() >= 0


def test_a_pictures_noise_depends_on_seed_sigma_and_name_alone(desk: Path) -> None:
    images = clean_set(desk / "clean")
    everything = list(cases_of(images, [25], None)[0].read(PAPER, 0))
    first = list(cases_of(images, [25], 1)[0].read(PAPER, 0))
    last = list(cases_of(ImageSet("mine", "clean", images.pairs[::-1]), [25], 1)[0].read(PAPER, 0))
    assert [case.name for case in everything] == ["0.png", "1.png", "2.png"]
    assert len(first) == len(last) == 1
    assert np.array_equal(first[0].degraded, everything[0].degraded)
    assert np.array_equal(last[0].degraded, everything[2].degraded)
    seeds = [add_noise(scene(0), sigma=s, seed=n, name=x) for s, n, x in ((25, 0, "a"), (25, 1, "a"))]
    other = add_noise(scene(0), sigma=25, seed=0, name="b")
    assert not np.array_equal(seeds[0], seeds[1]) and not np.array_equal(seeds[0], other)


def test_a_set_that_noise_cannot_make_is_refused(desk: Path) -> None:
    rain = ImageSet("mine", "derain", clean_set(desk / "clean").pairs)
    with pytest.raises(UsageError, match="only noise is added"):
        cases_of(rain, [25], None)


def test_a_pair_of_two_sizes_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene(0, 64, 64))
    cv2.imwrite(str(tmp_path / "b.png"), scene(0, 64, 80))
    images = ImageSet("mine", "derain", (Pair(tmp_path / "a.png", tmp_path / "b.png"),))
    with pytest.raises(InputError, match=r"64 x 64 pixels and .*80 x 64: not a pair"):
        list(cases_of(images, [], None)[0].read(PAPER, 0))


# Measuring.


def test_the_figures_of_a_set_are_means_over_pictures(desk: Path, nano: Restorer) -> None:
    cases = cases_of(clean_set(desk / "clean"), [25], None)[0]
    found = measure(cases, [nano], PAPER, seed=0)
    expected = []
    for case in cases.read(PAPER, 0):
        assert case.clean.shape == (64, 80, 3)
        result = np.clip(nano.restore(case.degraded).image, 0, 1)[0].transpose(1, 2, 0)
        expected.append(psnr(result, to_picture(case.clean)))
    assert found.restored().psnr_db == pytest.approx(np.mean(expected))
    assert found.restored().psnr_db > found.before.psnr_db
    assert found.improved == 3
    assert found.title == "mine σ25"


def test_the_full_protocol_judges_what_a_user_gets(desk: Path, nano: Restorer) -> None:
    case = next(cases_of(clean_set(desk / "clean"), [25], None)[0].read(FULL, 0))
    assert case.clean.shape == (72, 88, 3)
    found = measure(cases_of(clean_set(desk / "clean"), [25], 1)[0], [nano], FULL, seed=0)
    assert found.pictures[0].restored[0] == quality(to_picture(nano(case.degraded)), to_picture(case.clean))


def test_figures_are_printed_for_what_they_are() -> None:
    assert gained(np.inf, np.inf) == 0
    assert signed(0.0) == "0.00" and signed(-0.001) == "0.00" and signed(-0.126) == "−0.13"
    assert share(1.0) == "100.000%" and share(0.999999) == "99.999%" and share(None) == "–"
    assert cell(Quality(np.inf, 1.0)) == "∞/1.000" and cell(Quality(31.605, 0.9814)) == "31.61/.981"


def test_networks_of_other_shapes_have_no_agreement_of_experts() -> None:
    image = np.zeros((1, 3, 8, 8), np.float32)

    def frame(experts: int) -> RestoredFrame:
        choices = Choices(np.zeros((1, experts, 2, 2), np.uint8), None)
        return RestoredFrame(np.zeros((8, 8, 3), np.uint8), image, [choices])

    assert likeness(frame(2), frame(3)).experts_agree is None
    assert likeness(frame(2), frame(2)).experts_agree == 1


# Tables.


def made_up(name: str, task: str, sigma: int | None = None, *, models: int = 1) -> SetFigures:
    picture = PictureFigures("x.png", Quality(20.0, 0.5), (Quality(30.0, 0.9),) * models, tiles=1)
    title = name if sigma is None else f"{name} σ{sigma}"
    return SetFigures(name, title, task, sigma, pictures=[picture])


def rows(text: str, begin: str) -> list[list[str]]:
    return [
        [field.strip() for field in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {begin}")
    ]


def test_published_sets_stand_beside_the_published_figures_in_the_papers_order() -> None:
    sets = [made_up("SOTS outdoor", "dehaze"), made_up("Rain100L", "derain")]
    sets += [made_up("CBSD68", "denoise", sigma) for sigma in (15, 25, 50)]
    text = tables(sets[::-1], ["nano"])
    assert rows(text, "method") == [
        ["method", "Dehaze SOTS outdoor", "Derain Rain100L"]
        + [f"Denoise CBSD68 σ{sigma}" for sigma in (15, 25, 50)]
        + ["mean"]
    ]
    three = ["31.61/.981", "39.00/.985", "34.12/.935", "31.46/.892", "28.19/.803", "32.85/.919"]
    alone = ["31.83/.981", "39.06/.985", "34.36/.938", "31.73/.898", "28.50/.814", "–"]
    assert rows(text, "MEASNet")[0][1:] == three
    assert rows(text, "MEASNet")[1][1:] == alone
    assert rows(text, "nano")[-1][1:] == ["30.00/.900"] * 6
    assert "Five tasks" not in text and "Not measured" not in text


def test_other_sets_have_no_published_figures_beside_them() -> None:
    sets = [made_up("derain", "derain"), made_up("McMaster", "denoise", 25), made_up("LOL", "lowlight")]
    text = tables(sets, ["nano"])
    assert rows(text, "MEASNet, five")[0][1:] == ["–", "–", "23.00/.845", "–"]  # and no published mean
    assert "Not measured, of the paper's sets: SOTS, Rain100L, BSD68 σ25, GoPro." in text
    assert published("dehaze", "SOTS indoor", None) == {}
    assert published("derain", "Rain100H", None) == {}
    assert published("denoise", "BSD68", 30) == {}
    assert published("lowlight", "LOL-v1", None) == {"five tasks": Quality(23.0, 0.845)}


def test_the_published_means_are_those_of_their_columns() -> None:
    for setting, slack in ((THREE_TASKS, 0.03), (FIVE_TASKS, 0.005)):  # Table I's is printed 0.026 dB too low
        columns = setting.results.values()
        assert np.mean([quality.psnr_db for quality in columns]) == pytest.approx(
            setting.mean.psnr_db, abs=slack
        )
        assert np.mean([quality.ssim for quality in columns]) == pytest.approx(setting.mean.ssim, abs=6e-4)


# The contact sheet.


def test_the_contact_sheet_holds_the_worst_cases(tmp_path: Path) -> None:
    sheet = ContactSheet()
    for number in range(5):
        case = Case(f"größe {number}.png", scene(number, 300, 450), scene(number, 300, 450))
        result = to_picture(case.degraded)
        figures = PictureFigures(case.name, Quality(20, 0.5), (Quality(30.0 + number, 0.9),), tiles=1)
        sheet.offer("mine σ25", case, [result], figures)
    for name in ("worst.png", "worst.jpg"):
        write_picture(tmp_path / name, sheet.draw())
        stored = cv2.imread(str(tmp_path / name))
        assert stored is not None
        # Three rows of two lines, a panel of 400 x 267 and a gap; three panels side by side.
        assert stored.shape == (3 * (22 + 22 + 267 + 8), 3 * 400 + 2 * 8, 3)
    panel = stored_panel(tmp_path / "worst.png")
    expected = cv2.resize(scene(0, 300, 450), (400, 267), interpolation=cv2.INTER_AREA)
    assert np.array_equal(panel, expected)  # the worst comes first


def stored_panel(path: Path) -> np.ndarray:
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert stored is not None
    return np.asarray(stored[44 : 44 + 267, :400])


# Classical tools.


def best_gain(task: str, degraded: np.ndarray, clean: np.ndarray, sigma: int | None = None) -> float:
    before = psnr(degraded, clean, peak=255)
    return max(psnr(t.apply(degraded, sigma), clean, peak=255) for t in classical.TOOLS[task]) - before


def harmed(clean: np.ndarray, harm: Callable[..., Any], *more: Any) -> np.ndarray:
    done = harm(np.random.default_rng(0), to_picture(clean), *more)
    return np.rint(done * 255).astype(np.uint8)


def test_each_classical_tool_helps_with_the_harm_it_is_for() -> None:
    clean = scene(5, 120, 160)
    noisy = harmed(clean, add_published_noise, 25)
    assert best_gain("denoise", noisy, clean, 25) > 5
    assert best_gain("denoise", noisy, clean) > 5
    rain = np.zeros((120, 160, 1))
    rain[:, ::9] = 60  # streaks, a pixel wide
    assert best_gain("derain", np.clip(clean + rain, 0, 255).astype(np.uint8), clean) > 1
    assert best_gain("dehaze", harmed(clean, add_haze), clean) > 1
    assert best_gain("lowlight", (clean // 5).astype(np.uint8), clean) > 5
    soft = cv2.GaussianBlur(clean, (0, 0), 1.5)
    assert best_gain("deblur", soft, clean) > 0.3


def test_classical_tools_take_any_picture_and_keep_its_shape() -> None:
    for task, tools in classical.TOOLS.items():
        for tool in tools:
            for value in (0, 255):
                pixels = np.full((33, 47, 3), value, np.uint8)
                done = tool.apply(pixels, 25 if task == "denoise" else None)
                assert done.shape == pixels.shape and done.dtype == np.uint8, tool.name


def test_the_estimate_of_noise_is_near() -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    assert classical.estimate_noise(add_noise(flat, sigma=20, seed=0, name="x")) == pytest.approx(
        20, rel=0.05
    )


# The command.


def test_the_command_prints_writes_and_draws(desk: Path, tmp_path: Path) -> None:
    done = evaluate(
        *("--clean", desk / "clean", "--pairs", f"lowlight={desk / 'pairs'}", "--limit", 2),
        *("--sigma", 25, "--classical"),
        *("--report", tmp_path / "x.json", "--contact-sheet", tmp_path / "x.jpg"),
    )
    assert done.exit_code == 0, done.output
    assert rows(done.output, "clean σ25")[0][1:3] == ["denoise", "2"]
    assert "non-local means" in done.output and "gamma" in done.output
    report = json.loads((tmp_path / "x.json").read_text())
    assert set(report) == {"schema", "versions", "protocol", "models", "sets", "video"}
    assert report["video"] is None
    assert report["schema"] == 2
    assert report["protocol"]["name"] == "paper" and report["protocol"]["seed"] == 0
    assert report["models"][0]["variant"] == "nano"
    assert {"python", "measnet", "numpy", "opencv-python-headless", "onnxruntime"} <= set(report["versions"])
    noise, dark = report["sets"]
    assert (noise["name"], noise["task"], noise["sigma"], noise["pictures"]) == ("clean", "denoise", 25, 2)
    assert (dark["task"], dark["sigma"], dark["comparison"], dark["published"]) == (
        "lowlight",
        None,
        None,
        {},
    )
    assert noise["gain_db"] == pytest.approx(noise["restored"][0]["psnr_db"] - noise["before"]["psnr_db"])
    assert len(noise["classical"]) == 3 and len(dark["classical"]) == 4
    picture = noise["per_picture"][0]
    assert picture["name"] == "0.png" and picture["tiles"] == 1 and picture["likeness"] is None
    assert set(picture["before"]) == {"psnr_db", "ssim"} and set(picture["classical"]) == set(
        noise["classical"]
    )
    assert cv2.imread(str(tmp_path / "x.jpg")) is not None


def test_a_model_against_itself_loses_nothing(desk: Path, tmp_path: Path) -> None:
    files = ("--report", tmp_path / "x.json")
    done = evaluate("--clean", desk / "clean", "--sigma", 50, "--model", "nano", "--model", "nano", *files)
    assert done.exit_code == 0, done.output
    assert rows(done.output, "clean σ50")[1][3:] == ["0.000", "0.000", "∞", "0", "100.000%"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert report["sets"][0]["comparison"] == {
        "difference_db": 0.0,
        "worst_picture_db": 0.0,
        "likeness": {"psnr_db": None, "largest_difference": 0.0, "experts_agree": 1.0},
    }


def test_two_backends_stand_side_by_side(desk: Path) -> None:
    done = evaluate(
        "--clean", desk / "clean", "--sigma", 25, "--limit", 1, "--against-backend", "onnxruntime"
    )
    assert done.exit_code == 0, done.output
    assert "A nano: nano, fp32, onnxruntime\nB nano: nano, fp32, onnxruntime\n" in done.output
    assert rows(done.output, "clean σ25")[1][3] == "0.000"


def test_tiles_are_told_of(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), scene(0, 64, 208))
    done = evaluate("--clean", tmp_path, "--sigma", 25, "--tile", 128)
    assert done.exit_code == 0, done.output
    assert "In tiles, each of which chose its own image-level experts: 1 of 1 pictures." in done.output


def test_a_folder_of_sets_is_searched(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "lowlight").symlink_to(desk / "pairs")
    (tmp_path / "McMaster").symlink_to(desk / "clean")
    done = evaluate("--data", tmp_path, "--sigma", 15, "--limit", 1)
    assert done.exit_code == 0, done.output
    assert rows(done.output, "McMaster σ15") and rows(done.output, "lowlight")
    only = evaluate("--data", tmp_path, "--tasks", "lowlight", "--limit", 1)
    assert rows(only.output, "lowlight") and not rows(only.output, "McMaster")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nothing to measure: give --data"),
        ("--clean gone", "folder of pictures gone does not exist"),
        ("--pairs pairs", "must be TASK=FOLDER"),
        ("--pairs snow=pairs", "there is no task 'snow'"),
        ("--clean clean --tasks haze", "there is no task 'haze'"),
        ("--clean clean --tasks derain", "no set was given for derain"),
        ("--clean clean --model gone.ckpt", "nor a file that exists"),
        ("--clean clean --model x.engine", "'x.engine' is neither one of"),
        ("--clean clean --backend abacus", "there is no backend 'abacus'"),
        ("--clean clean --model nano --model nano --against nano", "3 models are given"),
        ("--clean clean --report gone/x.json", "the folder gone does not exist"),
        ("--clean clean --contact-sheet x.gif", "must end in one of"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    words: str, message: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    done = evaluate(*words.split())
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_ctrl_c_ends_with_130(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(eval_cli, "_measure", interrupted)
    done = evaluate("--clean", desk / "clean")
    assert done.exit_code == 130
    assert done.stderr == "stopped; nothing was written\n"


@pytest.mark.parametrize("option", ["--report", "--contact-sheet"])
def test_results_never_replace_what_is_measured(desk: Path, option: str) -> None:
    place = desk / "clean" / "0.png"
    before = place.read_bytes()
    answer = evaluate("--clean", desk / "clean", option, place)
    assert answer.exit_code == 2 and "give it another name" in answer.output
    assert place.read_bytes() == before


def test_both_results_in_one_file_are_refused(desk: Path, tmp_path: Path) -> None:
    one = tmp_path / "a"
    answer = evaluate("--clean", desk / "clean", "--report", one, "--contact-sheet", one)
    assert answer.exit_code == 2 and "one and the same file" in answer.output
