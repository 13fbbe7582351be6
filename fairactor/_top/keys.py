"""Reads key presses from the bytes that a terminal sends."""

from __future__ import annotations

import codecs
import re
from typing import Final

import attrs

ESCAPE_PATIENCE: Final = 0.05
"""Seconds after which an escape character that nothing follows is the Esc key."""

_CONTROL: Final = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "ctrl-c",
    "\x0c": "ctrl-l",
    "\x15": "ctrl-u",
    "\x1a": "ctrl-z",
    "\x04": "pgdn",
    "\x06": "pgdn",
    "\x02": "pgup",
    "\x0e": "down",
    "\x10": "up",
}
_FINAL: Final = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "Z": "backtab"}
_TILDE: Final = {"1": "home", "7": "home", "4": "end", "8": "end", "5": "pgup", "6": "pgdn", "3": "delete"}
_SEQUENCE: Final = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|O([@-~]))", re.DOTALL)
_PASTED: Final = ("\x1b[200~", "\x1b[201~")
_LONGEST: Final = 4096  # characters of a paste that are kept


@attrs.define
class KeyParser:
    """Turns bytes into the names of keys. A printable character is its own name; a paste is ``paste:`` and its text."""

    _decoder: codecs.IncrementalDecoder = attrs.field(factory=lambda: codecs.getincrementaldecoder("utf-8")("ignore"))
    _left: str = ""
    _paste: str | None = None

    @property
    def waits(self) -> bool:
        """Whether more bytes may belong to what has arrived."""
        return bool(self._left)

    def feed(self, data: bytes) -> list[str]:
        """Returns the keys that are complete."""
        self._left += self._decoder.decode(data)
        keys: list[str] = []
        while self._left:
            if self._paste is not None:
                if not self._read_paste(keys):
                    break
            elif self._left[0] != "\x1b":
                _add(keys, _CONTROL.get(self._left[0], self._left[0]))
                self._left = self._left[1:]
            elif found := _SEQUENCE.match(self._left):
                self._left = self._left[found.end() :]
                if found[0] == _PASTED[0]:
                    self._paste = ""
                else:
                    _add(keys, _named(found))
            elif len(self._left) > 1 and self._left[1] not in "[O":  # Esc and another key; Alt has no meaning here
                self._left = self._left[1:]
                keys.append("esc")
            else:
                break
        return keys

    def flush(self) -> list[str]:
        """Returns what an incomplete sequence means, since nothing followed in time."""
        left, self._left = self._left, ""
        if self._paste is not None:
            self._paste = (self._paste + left)[:_LONGEST]
            return []
        return ["esc"] if left == "\x1b" else []

    def _read_paste(self, keys: list[str]) -> bool:
        """Reads pasted text; returns whether its end has come."""
        text, end, rest = self._left.partition(_PASTED[1])
        if not end:  # the beginning of the end may be there
            keep = next((n for n in range(len(_PASTED[1]) - 1, 0, -1) if text.endswith(_PASTED[1][:n])), 0)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
        self._paste = ((self._paste or "") + text)[:_LONGEST]
        self._left = rest
        if end:
            keys.append(f"paste:{self._paste}")
            self._paste = None
        return bool(end)


def _named(found: re.Match[str]) -> str:
    parameters, final, single = found.groups()
    if final == "~":
        return _TILDE.get(parameters.partition(";")[0], "")
    return _FINAL.get(final or single, "")


def _add(keys: list[str], key: str) -> None:
    if len(key) > 1 or (key and key.isprintable()):
        keys.append(key)
