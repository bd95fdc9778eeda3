"""Words of others are shown without harm: by one function, which all that commands print goes through."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from measnet.printable import LONGEST_LINE, printable

SOURCES = Path(__file__).parents[1]
SPOKEN = ("click.echo(", "_err.print(", "_out.print(", "console.print(")
NOT_OF_OTHERS = {
    "src/measnet/headed_help.py": 1,  # help
    "runtime/terminal.py": 1,  # a picture
}
"""Places that print in a way of their own, and how often: pictures, help."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("caf\xe9 \u3000 \U0001f469\u200d\U0001f52c", "caf\xe9 \u3000 \U0001f469\u200d\U0001f52c"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\u202eexe.4pm", r"\u202eexe.4pm"),
        ("bad\udcff", r"bad\udcff"),
        ("\x9b31m\u2028", r"\x9b31m\u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_too_long_keeps_its_beginning_and_its_end() -> None:
    assert printable("begin" + "x" * 10**6 + "end", 20) == "beginxxxxx…xxxxxxend"
    assert len(printable("y" * 10**6)) == LONGEST_LINE
    assert printable("z" * 20, 20) == "z" * 20


def test_nothing_is_printed_past_it() -> None:
    for folder in ("src/measnet", "runtime", "export", "calibration", "train"):
        for path in sorted((SOURCES / folder).rglob("*.py")):
            name = str(path.relative_to(SOURCES))
            if path.is_symlink() or "/runtime/" in name:
                continue
            found = [
                line.strip()
                for line in path.read_text().splitlines()
                if any(call in line for call in SPOKEN) and not re.search(r"printable\(|_safe\(", line)
            ]
            assert len(found) == NOT_OF_OTHERS.get(name, 0), (name, found)
