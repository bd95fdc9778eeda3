"""``--help`` of a command with many options: under headings, in the order people look for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

WIDTH = 100
"""Most columns that help takes, where the terminal has them."""


class HeadedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        headings: the parameters' names under each heading. The last heading also gets those that are named
            nowhere.
    """

    def __init__(self, *arguments: Any, headings: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.context_settings.setdefault("max_content_width", WIDTH)
        self._headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        }
        sections = {
            heading: [records.pop(name) for name in names if name in records]
            for heading, names in self._headings.items()
        }
        sections[next(reversed(sections))] += records.values()
        # One column for all sections, so that the eye can run down it.
        column = min(30, max(len(first) for rows in sections.values() for first, _ in rows))
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl([(first.ljust(column), text) for first, text in rows], column)
