"""Settings of a build and its profiles: contradictions are said at once, sizes are fitted."""

from __future__ import annotations

import pytest

from measnet.config import SizeRule
from measnet.errors import UsageError
from measnet.export.build_settings import BuildSettings, Profile


def test_all_contradictions_of_settings_are_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        BuildSettings(
            profiles=(Profile.parse("256x256:128x128:512x512"), Profile.parse("0x64")),
            workspace_mib=0,
            optimization_level=7,
            hardware_compatible="all",  # type: ignore[arg-type]
            aux_streams=-1,
        )
    for part in ("height of profile", "1x0x64", "workspace", "0 to 5, not 7", "'all'", "-1 auxiliary"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["", "64", "64x64:128x128", "axb", "1x2x3x4", "64x64:", "-1x64", "1x²x3"])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a profile is MIN:OPT:MAX"):
        Profile.parse(text)


def test_a_profile_is_fitted_to_the_sizes_that_the_network_takes() -> None:
    rule = SizeRule(multiple=8, minimum=64)
    assert str(Profile.parse("2x100x101:1080x1920:4x1081x1921").fitted(rule)) == (
        "2x104x104:1x1080x1920:4x1088x1928"
    )
