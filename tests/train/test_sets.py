"""Finding data sets: every layout that people have is read, and everything wrong with one is said at once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.errors import InputError, UsageError
from measnet.train.data.layouts import DataSetError, find_sets, read_pairs
from measnet.train.data.sets import ImageSet


def put(root: Path, *names: str, size: tuple[int, int] = (24, 20)) -> Path:
    """Real pictures at these paths below ``root``; ``size`` is width and height."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((size[1], size[0], 3), 90, np.uint8))
    return root


def found(root: Path, split: str, **options: object) -> dict[tuple[str, str], list[tuple[str | None, str]]]:
    """Names by task and set, as paths below ``root``."""
    sets = find_sets(root, split=split, **options)  # type: ignore[arg-type]
    return {(images.task, images.name): names(images, root) for images in sets}


def names(images: ImageSet, root: Path) -> list[tuple[str | None, str]]:
    return [
        (
            pair.degraded.relative_to(root).as_posix() if pair.degraded else None,
            pair.clean.relative_to(root).as_posix(),
        )
        for pair in images.pairs
    ]


def problems(root: Path, split: str = "train", **options: object) -> list[str]:
    with pytest.raises(DataSetError) as caught:
        find_sets(root, split=split, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value.problems


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that PromptIR, AdaIR and MEASNet are trained from."""
    return put(
        tmp_path_factory.mktemp("authors"),
        *("Train/Denoise/00001.bmp", "Train/Denoise/5096.jpg"),
        *("Train/Derain/gt/norain-1.png", "Train/Derain/rainy/rain-1.png"),
        *("Train/Dehaze/original/0025.jpg", "Train/Dehaze/original/3068.jpg"),
        *("Train/Dehaze/synthetic/part1/0025_0.8_0.1.jpg", "Train/Dehaze/synthetic/part1/0025_1_0.2.jpg"),
        "Train/Dehaze/synthetic/part2/3068_0.8_0.1.jpg",
        *("Train/Deblur/blur/GOPR0372_07_00_000047.png", "Train/Deblur/sharp/GOPR0372_07_00_000047.png"),
        *("Train/Enhance/gt/2.png", "Train/Enhance/low/2.png"),
        *(
            "test/denoise/bsd68/3096.jpg",
            "test/denoise/urban100/img_001.png",
            "test/denoise/kodak24/kodim01.png",
        ),
        *("test/derain/Rain100L/input/1.png", "test/derain/Rain100L/target/1.png"),
        *("test/dehaze/input/0001_0.8_0.2.jpg", "test/dehaze/target/0001.png"),
        *(
            "test/deblur/gopro/input/GOPR0384_11_00_000001.png",
            "test/deblur/gopro/target/GOPR0384_11_00_000001.png",
        ),
        *("test/enhance/lol/input/1.png", "test/enhance/lol/target/1.png"),
    )


def test_the_authors_training_folders_are_read(authors: Path) -> None:
    assert found(authors, "train") == {
        ("denoise", "Denoise"): [(None, "Train/Denoise/00001.bmp"), (None, "Train/Denoise/5096.jpg")],
        ("derain", "Derain"): [("Train/Derain/rainy/rain-1.png", "Train/Derain/gt/norain-1.png")],
        ("dehaze", "Dehaze"): [
            ("Train/Dehaze/synthetic/part1/0025_0.8_0.1.jpg", "Train/Dehaze/original/0025.jpg"),
            ("Train/Dehaze/synthetic/part1/0025_1_0.2.jpg", "Train/Dehaze/original/0025.jpg"),
            ("Train/Dehaze/synthetic/part2/3068_0.8_0.1.jpg", "Train/Dehaze/original/3068.jpg"),
        ],
        ("deblur", "Deblur"): [
            ("Train/Deblur/blur/GOPR0372_07_00_000047.png", "Train/Deblur/sharp/GOPR0372_07_00_000047.png")
        ],
        ("lowlight", "Enhance"): [("Train/Enhance/low/2.png", "Train/Enhance/gt/2.png")],
    }


def test_the_authors_test_folders_are_read(authors: Path) -> None:
    assert found(authors, "test") == {
        ("denoise", "BSD68"): [(None, "test/denoise/bsd68/3096.jpg")],
        ("denoise", "Kodak24"): [(None, "test/denoise/kodak24/kodim01.png")],
        ("denoise", "Urban100"): [(None, "test/denoise/urban100/img_001.png")],
        ("derain", "Rain100L"): [("test/derain/Rain100L/input/1.png", "test/derain/Rain100L/target/1.png")],
        ("dehaze", "dehaze"): [("test/dehaze/input/0001_0.8_0.2.jpg", "test/dehaze/target/0001.png")],
        ("deblur", "GoPro"): [
            (
                "test/deblur/gopro/input/GOPR0384_11_00_000001.png",
                "test/deblur/gopro/target/GOPR0384_11_00_000001.png",
            )
        ],
        ("lowlight", "LOL"): [("test/enhance/lol/input/1.png", "test/enhance/lol/target/1.png")],
    }


def test_case_and_signs_in_folder_names_do_not_matter(tmp_path: Path) -> None:
    put(tmp_path, "TRAIN/DeRain/Rainy/rain-1.png", "TRAIN/DeRain/GT/norain-1.png")
    put(tmp_path, "TRAIN/low-light/LOW/1.png", "TRAIN/low-light/High/1.png")
    assert list(found(tmp_path, "train")) == [("derain", "DeRain"), ("lowlight", "low-light")]


def test_reside_is_read_as_it_is_published(tmp_path: Path) -> None:
    put(tmp_path, "RESIDE/OTS_BETA/clear/clear_images/0005.jpg", "RESIDE/OTS_BETA/depth/0005.png")
    put(tmp_path, "RESIDE/OTS_BETA/haze/part1/0005_0.8_0.04.jpg", "RESIDE/OTS_BETA/haze/part2/0005_1_0.2.jpg")
    put(
        tmp_path,
        "RESIDE/ITS/clear/1.png",
        "RESIDE/ITS/hazy/1_1_0.90179.png",
        "RESIDE/ITS/hazy/1_10_0.98796.png",
    )
    put(tmp_path, "RESIDE/ITS/trans/1_1.png")
    put(
        tmp_path, "RESIDE/SOTS/indoor/nyuhaze500/gt/1400.png", "RESIDE/SOTS/indoor/nyuhaze500/hazy/1400_3.png"
    )
    put(tmp_path, "RESIDE/SOTS/outdoor/gt/0001.png", "RESIDE/SOTS/outdoor/hazy/0001_0.8_0.2.jpg")
    clear = "RESIDE/OTS_BETA/clear/clear_images/0005.jpg"
    assert found(tmp_path, "train") == {
        ("dehaze", "ITS"): [
            ("RESIDE/ITS/hazy/1_10_0.98796.png", "RESIDE/ITS/clear/1.png"),
            ("RESIDE/ITS/hazy/1_1_0.90179.png", "RESIDE/ITS/clear/1.png"),
        ],
        ("dehaze", "OTS"): [
            ("RESIDE/OTS_BETA/haze/part1/0005_0.8_0.04.jpg", clear),
            ("RESIDE/OTS_BETA/haze/part2/0005_1_0.2.jpg", clear),
        ],
    }
    indoor = "RESIDE/SOTS/indoor/nyuhaze500"
    assert found(tmp_path, "test") == {
        ("dehaze", "SOTS indoor"): [(f"{indoor}/hazy/1400_3.png", f"{indoor}/gt/1400.png")],
        ("dehaze", "SOTS outdoor"): [
            ("RESIDE/SOTS/outdoor/hazy/0001_0.8_0.2.jpg", "RESIDE/SOTS/outdoor/gt/0001.png")
        ],
    }


def test_rain100_is_read_in_each_of_its_releases(tmp_path: Path) -> None:
    put(tmp_path, "Rain100L/rainy/rain-001.png", "Rain100L/norain-001.png")
    put(tmp_path, "RainTrainL/rain-1.png", "RainTrainL/norain-1.png")
    later = "Rain100H/rain_data_{}_Heavy"
    for split in ("train", "test"):
        put(tmp_path / later.format(split), "rain/X2/norain-1x2.png", "norain/norain-1.png")
    assert found(tmp_path, "test") == {
        ("derain", "Rain100H"): [
            (f"{later}/rain/X2/norain-1x2.png".format("test"), f"{later}/norain/norain-1.png".format("test"))
        ],
        ("derain", "Rain100L"): [("Rain100L/rainy/rain-001.png", "Rain100L/norain-001.png")],
    }
    assert found(tmp_path, "train") == {
        ("derain", "Rain100H"): [
            (
                f"{later}/rain/X2/norain-1x2.png".format("train"),
                f"{later}/norain/norain-1.png".format("train"),
            )
        ],
        ("derain", "Rain100L"): [("RainTrainL/rain-1.png", "RainTrainL/norain-1.png")],
    }


def test_the_sequences_of_gopro_become_one_set_of_the_plain_blur(tmp_path: Path) -> None:
    for folder in ("train/GOPR0372_07_00", "train/GOPR0374_11_00", "test/GOPR0384_11_00"):
        put(tmp_path / "GOPRO_Large" / folder, "blur/000047.png", "blur_gamma/000047.png", "sharp/000047.png")
    assert found(tmp_path, "train") == {
        ("deblur", "GoPro"): [
            (
                f"GOPRO_Large/train/{sequence}/blur/000047.png",
                f"GOPRO_Large/train/{sequence}/sharp/000047.png",
            )
            for sequence in ("GOPR0372_07_00", "GOPR0374_11_00")
        ]
    }
    assert len(found(tmp_path, "test")["deblur", "GoPro"]) == 1


def test_gamma_blur_is_read_where_it_is_alone(tmp_path: Path) -> None:
    put(tmp_path, "GoPro/train/GOPR0372_07_00/blur_gamma/1.png", "GoPro/train/GOPR0372_07_00/sharp/1.png")
    assert len(found(tmp_path, "train")["deblur", "GoPro"]) == 1


def test_lol_is_read_with_the_folders_it_comes_in(tmp_path: Path) -> None:
    for folder, name in (("our485", "2.png"), ("eval15", "1.png")):
        put(tmp_path / "LOLdataset" / folder, f"low/{name}", f"high/{name}")
    lol = ("lowlight", "LOL")
    assert found(tmp_path, "train")[lol] == [("LOLdataset/our485/low/2.png", "LOLdataset/our485/high/2.png")]
    assert found(tmp_path, "test")[lol] == [("LOLdataset/eval15/low/1.png", "LOLdataset/eval15/high/1.png")]


def test_flat_folders_of_clean_pictures_are_denoising_sets(tmp_path: Path) -> None:
    put(tmp_path, "BSD400/100075.jpg", "WaterlooED/pristine_images/00001.bmp", "WaterlooED/code/figure.png")
    put(
        tmp_path,
        "Kodak24/kodim01.png",
        "McMaster/1.tif",
        "Urban100/HR/img_001.png",
        "Urban100/LR/img_001.png",
    )
    put(tmp_path, "CBSD68/original/3096.jpg", "CBSD68/original_png/3096.png", "CBSD68/noisy25/3096.png")
    assert found(tmp_path, "train") == {
        ("denoise", "BSD400"): [(None, "BSD400/100075.jpg")],
        ("denoise", "WED"): [(None, "WaterlooED/pristine_images/00001.bmp")],
    }
    assert found(tmp_path, "test") == {
        ("denoise", "CBSD68"): [(None, "CBSD68/original/3096.jpg")],
        ("denoise", "Kodak24"): [(None, "Kodak24/kodim01.png")],
        ("denoise", "McMaster"): [(None, "McMaster/1.tif")],
        ("denoise", "Urban100"): [(None, "Urban100/HR/img_001.png")],
    }
    assert all(images.synthetic for images in find_sets(tmp_path, split="test"))


@pytest.mark.parametrize("root", ["denoise/mine", "pairs"])
def test_noisy_beside_clean_are_pairs_for_denoising(tmp_path: Path, root: str) -> None:
    put(tmp_path, f"{root}/noisy/1.png", f"{root}/clean/1.png")
    for split in ("train", "test"):
        assert list(found(tmp_path, split).values()) == [[(f"{root}/noisy/1.png", f"{root}/clean/1.png")]]
    put(tmp_path, "Kodak24/noisy/1.png", "Kodak24/original/1.png")
    assert found(tmp_path, "test")["denoise", "Kodak24"] == [(None, "Kodak24/original/1.png")]


@pytest.mark.parametrize(
    ("pictures", "left_out", "taken"),
    [
        (["clean/1.png", "grainy/1.png"], "grainy", "clean"),
        (
            ["derain/a/input/1.png", "derain/a/target/1.png", "derain/a/wet/1.png"],
            "derain/a/wet",
            "derain/a/input",
        ),
        (
            ["lowlight/low/1.png", "lowlight/high/1.png", "walks/1.png", "town/1.png"],
            "town, walks",
            "lowlight/high",
        ),
        (["clean/1.png", "noisy25/1.png", "test/derain/input/1.png", "test/derain/target/1.png"], "", ""),
        (["WaterlooED/pristine_images/1.bmp", "WaterlooED/code/figure.png"], "", ""),
    ],
)
def test_pictures_in_folders_whose_names_say_nothing_are_told_of(
    tmp_path: Path, pictures: list[str], left_out: str, taken: str
) -> None:
    put(tmp_path, *pictures)
    told: list[str] = []
    find_sets(tmp_path, split="train", tell=told.append)
    assert len(told) == bool(left_out)
    for line in told:
        assert f"{tmp_path.name}: {left_out} left out" in line and f"taken: {taken}" in line
        assert "degraded: input, " in line and "clean: target, " in line


def test_noisy_pictures_alone_are_never_taken_for_clean_ones(tmp_path: Path) -> None:
    put(tmp_path, "CBSD68/noisy25/3096.png")
    assert problems(tmp_path, "test") == ["no data set for testing (docs/data.md has the layouts)"]


def test_a_folder_for_each_task_serves_training_and_testing(tmp_path: Path) -> None:
    put(
        tmp_path,
        "derain/input/a.png",
        "derain/target/a.png",
        "lowlight/mine/lq/a.png",
        "lowlight/mine/gt/a.png",
    )
    put(tmp_path, "denoise/McMaster/1.tif", "denoise/holiday/1.jpg")
    train = found(tmp_path, "train")
    assert list(train) == [("denoise", "holiday"), ("derain", "derain"), ("lowlight", "mine")]
    assert list(found(tmp_path, "test")) == [("denoise", "McMaster"), *train]


def test_a_folder_of_clean_pictures_serves_every_task(tmp_path: Path) -> None:
    put(tmp_path / "holiday", "b.jpg", "a.png")
    for options in ({}, {"tasks": ["dehaze", "deblur"]}):
        assert found(tmp_path / "holiday", "train", **options) == {
            ("clean", "holiday"): [(None, "a.png"), (None, "b.jpg")]
        }
    put(tmp_path, "clean/a.png", "pairs/deblur/blur/a.png", "pairs/deblur/sharp/a.png")
    assert list(found(tmp_path, "train")) == [("deblur", "deblur"), ("clean", "clean")]


def test_a_set_that_is_named_itself_is_read_for_whatever_is_asked(tmp_path: Path) -> None:
    put(tmp_path, "SOTS/outdoor/gt/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg", "Kodak24/kodim01.png")
    assert list(found(tmp_path / "SOTS", "train")) == [("dehaze", "SOTS outdoor")]
    assert list(found(tmp_path / "SOTS" / "outdoor", "test")) == [("dehaze", "outdoor")]
    assert list(found(tmp_path / "Kodak24", "train")) == [("denoise", "Kodak24")]


@pytest.mark.parametrize("degraded", ["input", "lq", "low", "hazy", "haze", "blur", "rainy", "rain"])
@pytest.mark.parametrize("clean", ["target", "gt", "high", "clear", "clean", "sharp", "norain"])
def test_plain_pairs_are_read_by_every_name_people_use(degraded: str, clean: str, tmp_path: Path) -> None:
    put(tmp_path, f"{degraded}/1.jpg", f"{clean}/1.png")
    images = read_pairs(tmp_path, "deblur")
    assert (images.name, images.task, images.synthetic) == (tmp_path.name, "deblur", False)
    assert names(images, tmp_path) == [(f"{degraded}/1.jpg", f"{clean}/1.png")]


def test_pairs_of_no_known_task_have_to_be_told_theirs(tmp_path: Path) -> None:
    put(tmp_path / "mine", "input/1.png", "target/1.png")
    assert "no folder is called after their task" in problems(tmp_path)[0]
    assert len(read_pairs(tmp_path / "mine", "dehaze").pairs) == 1
    with pytest.raises(InputError, match=r"needs a folder of degraded pictures \(input\)"):
        read_pairs(tmp_path, "dehaze")
    with pytest.raises(UsageError, match="no task 'fog'; there are denoise, derain"):
        read_pairs(tmp_path / "mine", "fog")


def test_junk_beside_the_pictures_is_ignored(tmp_path: Path) -> None:
    put(
        tmp_path,
        "derain/input/1.png",
        "derain/target/1.png",
        "derain/preview.png",
        "__MACOSX/derain/input/9.png",
    )
    for name in ("Thumbs.db", ".DS_Store", "._1.png", "readme.txt", "truth.mat"):
        (tmp_path / "derain" / "input" / name).write_bytes(b"junk")
    assert found(tmp_path, "train") == {("derain", "derain"): [("derain/input/1.png", "derain/target/1.png")]}


def test_folders_that_mean_nothing_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "derain/input/1.png", "derain/target/1.png", "real/haze/1.png", "results/1.png")
    put(tmp_path, "val/derain/input/1.png")
    assert list(found(tmp_path, "test")) == [("derain", "derain")]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put(tmp_path, "derain/input/1.png", "derain/target/1.png")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "derain" / "input" / "up").symlink_to(tmp_path / "derain" / "input")
    assert len(found(tmp_path, "train")["derain", "derain"]) == 1


def test_every_problem_of_every_set_is_reported_at_once(tmp_path: Path) -> None:
    put(tmp_path, "derain/rainy/rain-1.png", "derain/rainy/rain-2.png", "derain/rainy/odd.png")
    put(tmp_path, "derain/gt/norain-1.png", "derain/gt/norain-3.png")
    put(tmp_path, "dehaze/hazy/0001_0.8_0.2.jpg", "dehaze/clear/0001.png", "dehaze/clear/0001.jpg")
    put(tmp_path, "deblur/blur/1.png", size=(30, 20))
    put(tmp_path, "deblur/sharp/1.png", size=(20, 30))
    put(tmp_path, "deblur/blur/2.png", "deblur/sharp/2.png", size=(40, 15))
    put(tmp_path, "lowlight/low/1.png", "lowlight/low/2.png", "lowlight/high/1.png", "lowlight/high/2.png")
    (tmp_path / "lowlight/low/1.png").write_bytes(b"")
    whole = (tmp_path / "lowlight/high/2.png").read_bytes()
    (tmp_path / "lowlight/high/2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "denoise" / "folder.png").mkdir(parents=True)
    assert problems(tmp_path, tasks=["denoise", "derain", "dehaze", "deblur", "lowlight"]) == [
        "no denoise set for training (docs/data.md has the layouts)",
        "deblur/blur/2.png is 40 x 15 pixels, smaller than 16 x 16",
        "deblur/sharp/2.png is 40 x 15 pixels, smaller than 16 x 16",
        "deblur/blur/1.png is 30 x 20 pixels, deblur/sharp/1.png 20 x 30",
        "dehaze/clear/0001.png has the name of another clean picture, dehaze/clear/0001.jpg",
        "derain/rainy/odd.png is misnamed: it has neither the name of a clean picture nor one like "
        "rain-001 (for norain-001)",
        "derain/rainy/rain-2.png has no clean picture, rain-2.* or norain-2.*",
        "derain/gt/norain-3.png has no degraded picture",
        "lowlight/low/1.png is empty (0 bytes); record or copy it again",
        "lowlight/high/2.png is cut off or damaged; copy it again",
    ]


def test_a_long_list_of_problems_is_cut_in_the_message_alone(tmp_path: Path) -> None:
    put(tmp_path, *(f"{task}/input/{number}.png" for task in ("derain", "deblur") for number in range(6)))
    put(tmp_path, "derain/target/0.png", "deblur/target/0.png")
    put(
        tmp_path,
        "lowlight/input/0.png",
        "lowlight/target/0.png",
        "lowlight/target/1.png",
        "lowlight/target/2.png",
    )
    with pytest.raises(DataSetError) as caught:
        find_sets(tmp_path, split="test")
    assert str(caught.value).startswith(
        f"12 problems in 3 sets of {tmp_path}: deblur/input/1.png has no clean"
    )
    assert str(caught.value).endswith("; and 2 more")
    assert len(caught.value.problems) == 12


def test_a_file_name_cannot_forge_lines_or_steer_the_terminal(tmp_path: Path) -> None:
    put(tmp_path, "derain/input/a.png", "derain/target/b.png")
    (tmp_path / "derain/input/a.png").rename(tmp_path / "derain/input/a\nerror: \x1b[31mb.png")
    assert "derain/input/a\\nerror: \\x1b[31mb.png is misnamed" in problems(tmp_path)[0]


def test_damage_in_the_middle_of_a_file_is_found_on_request(tmp_path: Path) -> None:
    put(tmp_path, "denoise/a.png", "denoise/b.png", size=(64, 64))
    path = tmp_path / "denoise/b.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert len(found(tmp_path, "train")["denoise", "denoise"]) == 2
    assert problems(tmp_path, decode=True) == [
        "denoise/b.png is not a picture that can be read: it cannot be decoded"
    ]


def test_half_a_set_and_an_empty_one_are_reported(tmp_path: Path) -> None:
    put(tmp_path, "dehaze/hazy/1_1.png")
    for name in ("input", "target"):
        (tmp_path / "derain" / name).mkdir(parents=True)
    assert problems(tmp_path) == [
        "dehaze needs a folder of degraded pictures (input) and one of clean ones (target), side by side",
        "derain holds no pictures",
    ]


def test_problems_of_sets_that_were_not_asked_for_do_not_matter(tmp_path: Path) -> None:
    put(tmp_path, "train/derain/input/1.png", "train/derain/target/1.png", "train/dehaze/hazy/1.png")
    put(tmp_path, "test/derain/input/1.png", "val/derain/input/2.png")
    assert list(found(tmp_path, "train", tasks=["derain"])) == [("derain", "derain")]


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    put(tmp_path, "Kodak24/kodim01.png")
    assert problems(tmp_path, tasks=["derain", "denoise"]) == [
        "no denoise set for training (not for training: Kodak24)",
        "no derain set for training (docs/data.md has the layouts)",
    ]
    with pytest.raises(DataSetError, match=rf"^1 problem in {tmp_path}: no data set for training"):
        find_sets(tmp_path, split="train")
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_sets(tmp_path / "nowhere", split="train")
    with pytest.raises(InputError, match=r"kodim01\.png is no folder"):
        find_sets(tmp_path / "Kodak24/kodim01.png", split="train")
    with pytest.raises(UsageError, match="no task 'fog'"):
        find_sets(tmp_path, split="test", tasks=["fog"])
