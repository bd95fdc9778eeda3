"""Words of others, names of files among them, as a terminal may show them. All that commands print goes
through here; reports and logs in JSON keep the original."""

from __future__ import annotations

import unicodedata

LONGEST_LINE = 2000
"""Signs of a line that are shown, and ..."""

LONGEST_VALUE = 60
"""... of one value that somebody else chose, within it."""

_JOINERS = "\u200c\u200d"  # of letters, and of what one emoji is made of


def printable(text: object, longest: int = LONGEST_LINE) -> str:
    r"""``text`` on one line, without anything that a terminal would obey: control signs, marks of direction
    and halves of letters are shown as Python writes them (``\x1b``, ``\n``, ``\u202e``).

    Of more than ``longest`` signs the middle is left out, with ``…`` in its place.
    """
    words = str(text)
    keep = longest - 1
    if len(words) > longest:
        words = f"{words[: keep - keep // 2]}…{words[-(keep // 2) :]}"
    if not words.isprintable():
        words = "".join(sign if _is_shown(sign) else ascii(sign)[1:-1] for sign in words)
    return words


def _is_shown(sign: str) -> bool:
    return unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or sign in _JOINERS
