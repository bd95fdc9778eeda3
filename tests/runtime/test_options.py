"""One value holds every option: the command line fills all of it, under the same names and defaults."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from measnet.errors import UsageError
from measnet.runtime.cli import main
from measnet.runtime.options import Encoding, RunOptions

OF_THE_CONSOLE = {"inputs", "ray", "quiet", "debug", "version"}


def test_the_command_line_has_every_option_and_no_other_default() -> None:
    values = main.make_context("measnet-run", ["x"]).params
    values = {name: value for name, value in values.items() if name not in OF_THE_CONSOLE}
    assert values.keys() == RunOptions.names().keys()
    assert RunOptions.named(values) == RunOptions()


def test_options_are_filled_by_name_and_text_is_read() -> None:
    options = RunOptions.named({"crf": 14, "start": "1:30.5", "verify": "1/30", "tile": "256", "bits": "10"})
    assert options.encoding == Encoding(crf=14, bits=10)
    assert options.reading.start == Fraction(181, 2)
    assert (options.checks.verify, options.engine.tile) == (30, 256)
    assert RunOptions.named({}) == RunOptions()


@pytest.mark.parametrize("wrong", [{"crff": 14}, {"duration": "0"}, {"raw": "640x360"}, {"verify": "2/3"}])
def test_a_mistake_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}|such as 1/200"):
        RunOptions.named(wrong)


def test_nobody_changes_them_on_the_way() -> None:
    with pytest.raises(FrozenInstanceError):
        RunOptions().encoding.crf = 3  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(
    "name", [name for name, value in RunOptions.names().items() if isinstance(value, float)] + ["memory"]
)
def test_nan_is_no_value_of_any_option(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} nan is not a number"):
        RunOptions.named({name: float("nan")})


@pytest.mark.parametrize("name", ["start", "duration", "tile", "verify", "parts", "raw"])
def test_a_number_of_more_digits_than_python_reads_is_a_mistake(name: str) -> None:
    with pytest.raises(UsageError):
        RunOptions.named({name: "9" * 5000})
