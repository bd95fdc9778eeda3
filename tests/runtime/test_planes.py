"""Light in tiles: what is measured of a tile is what a correction changes, to the edge of every size."""

import numpy as np
import pytest

from measnet.runtime import planes

SIZES = [(96, 128), (97, 131), (120, 854 // 4), (33, 47), (9, 40)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_are_whole_from_the_top_left(height: int, width: int) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    tiles = planes.coarse(picture, 16)
    for row in range(len(tiles)):
        for column in range(tiles.shape[1]):
            tile = picture[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert tiles[row, column] == pytest.approx(tile.mean(axis=(0, 1)), abs=1e-2)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_light_that_is_spread_changes_each_tile_by_its_own(height: int, width: int) -> None:
    rows, columns = max(1, height // 16), max(1, width // 16)
    wanted = np.random.default_rng(1).normal(0, 1, (rows, columns, 3)).astype(np.float32)
    place = np.full((height, width, 3), np.nan, np.float32)
    planes.spread(planes.with_means(wanted), 16, place)
    off = planes.coarse(place, 16) - wanted
    assert np.isfinite(place).all()
    assert np.square(off).mean() < 0.1 * np.square(wanted).mean()


def test_more_tiles_than_there_is_room_for_are_left_out() -> None:
    tiles = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    place = planes.spread(tiles, 16, np.empty((31, 31, 3), np.float32))  # a half that was rounded up has two
    assert np.array_equal(place[0, 0], tiles[0, 0])
    assert np.array_equal(place[-1, -1], tiles[0, 0])
