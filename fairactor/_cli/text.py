"""Texts of others, such as names of tenants, made safe for a terminal."""

from __future__ import annotations

import re
from typing import Final

# Control characters, and what changes the direction of writing, is invisible, separates lines, or is half a character.
_HARMFUL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_LONGEST: Final = 4096  # characters


def visible(text: str, *, lines: bool = False, longest: int = _LONGEST) -> str:
    r"""Returns a text in which control characters and invisible ones are written as ``\\x1b`` or ``\\u202e``.

    Args:
        text: the text.
        lines: whether line breaks stay as they are.
        longest: of a longer text, this many characters are left, and a mark.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return _HARMFUL.sub(lambda match: match[0] if lines and match[0] == "\n" else ascii(match[0])[1:-1], cut)
