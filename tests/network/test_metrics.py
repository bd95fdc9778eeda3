"""Parity: what counts as the same computation."""

from __future__ import annotations

import numpy as np

from measnet.metrics import FP32_TOLERANCE, Choices, Parity, experts_agree, psnr


def test_a_pixel_that_ties_between_experts_is_no_breach() -> None:
    # Seen on an untrained network: one tie that float rounding decided the other way.
    assert Parity(psnr_db=69.4, largest_difference=0.02, experts_agree=0.9997).breaches(FP32_TOLERANCE) == []


def test_each_figure_alone_can_breach() -> None:
    for parity, word in (
        (Parity(psnr_db=55, largest_difference=0, experts_agree=1), "PSNR"),
        (Parity(psnr_db=99, largest_difference=0.1, experts_agree=1), "largest difference"),
        (Parity(psnr_db=99, largest_difference=0, experts_agree=0.99), "experts agree"),
        (Parity(psnr_db=float("nan"), largest_difference=0, experts_agree=1), "PSNR"),
    ):
        assert [line.startswith(word) for line in parity.breaches(FP32_TOLERANCE)] == [True]


def test_agreement_is_of_sets_and_counts_the_images_experts() -> None:
    pixels = np.array([[[[0, 1]], [[2, 3]]]], np.uint8)  # B K h w: experts {0, 2} and {1, 3}
    swapped = pixels[:, ::-1]
    one_moved = np.array([[[[0, 1]], [[2, 4]]]], np.uint8)
    image, other = np.array([[[0, 1]]], np.uint8), np.array([[[0, 2]]], np.uint8)
    assert experts_agree(Choices(pixels, image), Choices(swapped, image)) == 1
    assert experts_agree(Choices(pixels, image), Choices(one_moved, image)) == 0.5
    assert experts_agree(Choices(pixels, image), Choices(pixels, other)) == 0


def test_psnr_of_a_known_error() -> None:
    a = np.zeros((4, 4))
    assert psnr(a, a + 0.1) == 20
    assert psnr(a, a) == float("inf")
