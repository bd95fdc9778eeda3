"""Numbers within limits, for options: limits are told in words, not as ``1<=x<=51``."""

from __future__ import annotations

from typing import Any

import click


class WholeNumber(click.IntRange):
    """A whole number, within limits as ``click.IntRange`` takes them."""

    name = "whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value} is not a whole number {self._describe_range()}", param, ctx)

    def _describe_range(self) -> str:
        return _in_words(self)


class Number(click.FloatRange):
    """A number, within limits as ``click.FloatRange`` takes them."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value} is not a number {self._describe_range()}", param, ctx)

    def _describe_range(self) -> str:
        return _in_words(self)


def _in_words(limits: click.IntRange | click.FloatRange) -> str:
    least, most = limits.min, limits.max
    lower = "" if least is None else f"above {least:g}" if limits.min_open else f"from {least:g}"
    if most is None:
        return lower if limits.min_open or least is None else f"{lower} on"
    upper = f"below {most:g}" if limits.max_open else f"up to {most:g}"
    if least is not None and not limits.min_open and not limits.max_open:
        upper = f"to {most:g}"
    return f"{lower} {upper}".strip()
