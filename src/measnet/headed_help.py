"""``--help`` of a command with many options: under headings, in the order people look for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from measnet.printable import printable

_ALL = "measnet.help_all"

WIDTH = 100
"""Most columns that help takes, where the terminal has them."""


class HeadedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        headings: the parameters' names under each heading. The last heading also gets those that are named
            nowhere.
        usual: names of the parameters that ``--help`` is to show; ``--help-all`` shows all of them, under
            their headings. Without it ``--help`` does.
        usual_epilog: what stands below the usual ones, in place of the epilog.
    """

    def __init__(
        self,
        *arguments: Any,
        headings: Mapping[str, Sequence[str]],
        usual: Sequence[str] = (),
        usual_epilog: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.context_settings.setdefault("max_content_width", WIDTH)
        self._headings = headings
        self._usual, self._usual_epilog = usual, usual_epilog
        if usual:
            self.params.append(
                click.Option(
                    ["--help-all"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=self._show_all,
                    help=f"Show all {sum(isinstance(known, click.Option) for known in self.params)} options.",
                )
            )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:  # a pattern may have made a file's name an option
            raise click.UsageError(printable(error.format_message()), error.ctx) from None

    def _show_all(self, ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            ctx.meta[_ALL] = True
            click.echo(self.get_help(ctx), color=ctx.color)
            ctx.exit()

    def _is_short(self, ctx: click.Context) -> bool:
        return bool(self._usual) and not ctx.meta.get(_ALL, False)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        whole = self.epilog
        if self._is_short(ctx) and self._usual_epilog is not None:
            self.epilog = self._usual_epilog
        try:
            super().format_epilog(ctx, formatter)
        finally:
            self.epilog = whole

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        }
        asks = self.get_help_option(ctx)  # click has named it in more than one way
        usual = [*self._usual, str(asks.name if asks else None), "help_all"]
        headings = {"Options": usual} if self._is_short(ctx) else self._headings
        sections = {
            heading: [records.pop(name) for name in names if name in records]
            for heading, names in headings.items()
        }
        if not self._is_short(ctx):
            sections[next(reversed(sections))] += records.values()
        # One column for all sections, so that the eye can run down it.
        column = min(24, max(len(first) for rows in sections.values() for first, _ in rows))
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl([(first.ljust(column), text) for first, text in rows], column)
