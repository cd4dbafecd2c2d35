"""Terminal text: what a terminal would show of it, line by line, and its colours as HTML.

A line is what stands between two newlines. Within it a carriage return or a backspace goes back and later
text overwrites, as progress bars mean it; colours are kept, every other control sequence is dropped.
Colours cross lines, so each line here begins with the style that is in force: any window of lines can be
shown alone.
"""

from __future__ import annotations

import functools
import html
import re
import threading
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

__all__ = ["LogBuffer", "Style", "fold", "has_controls", "strip", "to_html", "without_colours"]

#: CSI, OSC (ended by BEL or ST) and two-character escape sequences.
_ESCAPE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]{0,4000}(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: An escape sequence that the next piece of text may complete.
_PARTIAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,4000}\x1b?|[ -/]*)$")
#: A longer line is shown as far as this, and says so: one line must not be the whole memory.
_LONGEST_LINE = 100_000

# JupyterLab's own values for the sixteen colours, in its order (black to white).
_PLAIN = ("3e424d", "e75c58", "00a250", "ddb62b", "208ffb", "d160c4", "60c6c8", "c5c1b4")
_INTENSE = ("282c36", "b22b31", "007427", "b27d12", "0065ca", "a03196", "258f8f", "a1a6b2")


@dataclass(frozen=True)
class Style:
    """The look of a character: colours as the SGR parameters that set them, ``"31"`` or ``"38;2;1;2;3"``."""

    fg: str = ""
    bg: str = ""
    bold: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False

    def sgr(self) -> str:
        """Give the escape sequence that sets this style after a reset; ``""`` for the default one."""
        flags = {"1": self.bold, "3": self.italic, "4": self.underline, "7": self.inverse}
        codes = [c for c in (*(c for c, on in flags.items() if on), self.fg, self.bg) if c]
        return f"\x1b[{';'.join(codes)}m" if codes else ""

    def css(self) -> str:
        """Give the same as inline style; backgrounds and inversion are left to better viewers."""
        parts = [f"color: #{colour}"] if (colour := _rgb(self.fg, self.bold)) else []
        parts += ["font-weight: bold"] if self.bold else []
        parts += ["font-style: italic"] if self.italic else []
        return "; ".join(parts)


def _rgb(code: str, bold: bool) -> str:
    """Hexadecimal colour of an SGR foreground; JupyterLab too shows bold plain colours as intense ones."""
    numbers = [int(n) for n in code.split(";")] if code else []
    if len(numbers) == 5:
        return "".join(f"{min(n, 255):02x}" for n in numbers[2:])
    if len(numbers) == 3:
        return _of_256(numbers[2])
    if not numbers:
        return ""
    if numbers[0] >= 90:
        return _INTENSE[numbers[0] - 90]
    return (_INTENSE if bold else _PLAIN)[numbers[0] - 30]


def _of_256(n: int) -> str:
    if n < 16:
        return (*_PLAIN, *_INTENSE)[n]
    if n >= 232:
        return f"{8 + 10 * (min(n, 255) - 232):02x}" * 3
    levels = (0, 95, 135, 175, 215, 255)
    return "".join(f"{levels[(n - 16) // d % 6]:02x}" for d in (36, 6, 1))


@functools.lru_cache(maxsize=4096)
def _restyle(style: Style, parameters: str) -> Style:
    """Apply the parameters of one SGR sequence."""
    codes = [int(c) if c.isdigit() else 0 for c in re.split("[;:]", parameters)]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = Style()
        elif code in (38, 48):
            if colour := _extended(codes):
                change: dict[str, Any] = {"fg" if code == 38 else "bg": f"{code};{colour}"}
                style = replace(style, **change)
        else:
            style = replace(style, **_change(code))
    return style


def _change(code: int) -> dict[str, Any]:
    if 30 <= code <= 37 or 90 <= code <= 97:
        return {"fg": str(code)}
    if 40 <= code <= 47 or 100 <= code <= 107:
        return {"bg": str(code)}
    return _SWITCHES.get(code, {})


_SWITCHES: dict[int, dict[str, Any]] = {
    1: {"bold": True},
    3: {"italic": True},
    4: {"underline": True},
    7: {"inverse": True},
    21: {"bold": False},
    22: {"bold": False},
    23: {"italic": False},
    24: {"underline": False},
    27: {"inverse": False},
    39: {"fg": ""},
    49: {"bg": ""},
}


def _extended(codes: list[int]) -> str:
    """Take the rest of ``38;5;N`` or ``38;2;R;G;B`` off `codes`."""
    size = {5: 2, 2: 4}.get(codes[0] if codes else 0, 0)
    taken, codes[:] = codes[:size], codes[size:]
    return ";".join(str(min(c, 255)) for c in taken) if size and len(taken) == size else ""


class _Row:
    """One line of a terminal, written piece by piece: cells, a cursor, and the style in force."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self._cells: list[tuple[str, Style]] = []
        self._at = self._width = 0
        self._rest = ""

    def feed(self, text: str, last: bool = False) -> None:
        """Write `text`; unless it is the `last` piece, an escape sequence may still be cut at its end."""
        text, self._rest = self._rest + text, ""
        cut = None if last else _PARTIAL.search(text)
        if cut:
            text, self._rest = text[: cut.start()], cut[0]
        for kind, part in _tokens(text):
            self._take(kind, part)

    def _take(self, kind: str, part: str) -> None:
        if kind == "text":
            self._write(part)
        elif kind == "m":
            self.style = _restyle(self.style, part)
        elif kind == "K" and part in ("", "0"):
            del self._cells[self._at :]
        elif kind == "K" and part == "2":
            self._cells.clear()
        elif kind == "K":
            self._cells[: self._at] = [(" ", Style())] * min(self._at, len(self._cells))
        elif kind == "\r":
            self._at = 0
        elif kind == "\b":
            self._at = max(0, self._at - 1)

    def _write(self, text: str) -> None:
        shown = text[: max(0, _LONGEST_LINE - self._at)]
        self._cells += [(" ", Style())] * (min(self._at, _LONGEST_LINE) - len(self._cells))
        self._cells[self._at : self._at + len(shown)] = [(c, self.style) for c in shown]
        self._at += len(text)
        self._width = max(self._width, self._at)

    def text(self) -> str:
        """Give what is shown, with the styles that change in it."""
        out, now = [], Style()
        for char, style in self._cells:
            if style != now:
                out.append(("\x1b[0m" if now != Style() else "") + style.sgr())
                now = style
            out.append(char)
        out.append("\x1b[0m" if now != Style() else "")
        if self._width > _LONGEST_LINE:
            out.append(f" … {self._width - _LONGEST_LINE:,} more characters")
        return "".join(out)


def fold(line: str, style: Style | None = None) -> tuple[str, Style]:
    """Give what a terminal shows of one line, and the style in force at its end.

    Parameters
    ----------
    line : str
        Text without a newline.
    style : Style, optional
        In force at its beginning.

    Returns
    -------
    text : str
        Only printable characters, tabs and SGR sequences that begin at the default style; folding it again
        changes nothing.
    style : Style
    """
    style = style or Style()
    if style == Style() and len(line) <= _LONGEST_LINE and not _CONTROL.search(line):
        return line, style
    if len(line) <= _LONGEST_LINE and not _CONTROL.search(_SGR.sub("", line)):
        return _recoloured(line, style)
    row = _Row(style)
    row.feed(line, last=True)
    return row.text(), row.style


def _recoloured(line: str, style: Style) -> tuple[str, Style]:
    """Fold a line in which nothing but the colours changes: most coloured ones, and ten times as fast."""
    out, shown, begin = [], Style(), 0
    for match in (*_SGR.finditer(line), None):
        if text := line[begin : match.start() if match else len(line)]:
            if style != shown:
                out.append(("\x1b[0m" if shown != Style() else "") + style.sgr())
                shown = style
            out.append(text)
        if match:
            style, begin = _restyle(style, match[1]), match.end()
    out.append("\x1b[0m" if shown != Style() else "")
    return "".join(out), style


def _tokens(line: str) -> list[tuple[str, str]]:
    tokens, begin = [], 0
    for match in _CONTROL.finditer(line):
        if match.start() < begin:
            continue  # inside an escape sequence
        if match.start() > begin:
            tokens.append(("text", line[begin : match.start()]))
        escape = _ESCAPE.match(line, match.start()) if match[0] == "\x1b" else None
        begin = escape.end() if escape else match.end()
        tokens.append((escape[2] or "", escape[1] or "") if escape else (match[0], ""))
    if begin < len(line):
        tokens.append(("text", line[begin:]))
    return tokens


def strip(text: str) -> str:
    """Give `text` as a terminal without colours would show it."""
    return "\n".join(_ESCAPE.sub("", fold(line)[0]) for line in text.split("\n"))


def without_colours(text: str) -> str:
    """Give the text of lines in which nothing but colours would have to be folded."""
    return _SGR.sub("", text) if "\x1b" in text else text


def has_controls(text: str) -> bool:
    """Whether lines, without their colours, are not yet what a terminal shows."""
    return _CONTROL.search(text.replace("\n", "")) is not None


def to_html(text: str) -> str:
    """Give escaped HTML of `text`; colours are inline style, which every sanitizer of notebooks passes."""
    out, style = [], Style()
    for line in text.split("\n"):
        folded, style = fold(line, style)
        out.append(_line_html(folded))
    return "\n".join(out)


def _line_html(line: str) -> str:
    out, style = [], Style()
    for kind, text in _tokens(line):
        if kind == "m":
            style = _restyle(style, text)
        elif text:
            css, safe = style.css(), html.escape(text, quote=False)
            out.append(f'<span style="{css}">{safe}</span>' if css else safe)
    return "".join(out)


class LogBuffer:
    """The newest lines of a log, folded, in bounded memory; one thread may write while others read.

    How the text is cut into pieces does not matter: escape sequences and lines may cross them.

    Parameters
    ----------
    max_lines : int
    max_bytes : int
        Characters that are kept; the newest line is always kept.
    """

    def __init__(self, max_lines: int = 20_000, max_bytes: int = 4_000_000) -> None:
        self._max_lines, self._max_bytes = max_lines, max_bytes
        self._lines: deque[str] = deque()
        self._size = self._done = 0
        self._row: _Row | None = None
        self._style = Style()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Lines so far, the unfinished one included, whether or not they are still kept."""
        return self._done + (self._row is not None)

    @property
    def first(self) -> int:
        """Number of the first line that is still kept, counted from 0."""
        return self._done - len(self._lines)

    def write(self, text: str) -> int:
        """Append `text`.

        Returns
        -------
        int
            Number of the first line that changed: all from there on is new.
        """
        with self._lock:
            changed = self._done
            *whole, rest = text.split("\n")
            for part in whole:
                self._finish(part)
            if rest:
                self._row = self._row or _Row(self._style)
                self._row.feed(rest)
            return changed

    def lines(self, first: int, last: int) -> list[str]:
        """Give lines `first` to `last` (not included), counted from 0, as far as they are kept."""
        with self._lock:
            begin = max(first - self.first, 0)
            out = list(islice(self._lines, begin, max(begin, last - self.first)))
            if self._row is not None and first <= self._done < last:
                out.append(self._row.text())
            return out

    def _finish(self, part: str) -> None:
        if self._row is None:
            line, self._style = fold(part, self._style)
        else:
            self._row.feed(part, last=True)
            line, self._style, self._row = self._row.text(), self._row.style, None
        self._lines.append(line)
        self._size += len(line)
        self._done += 1
        while len(self._lines) > 1 and (len(self._lines) > self._max_lines or self._size > self._max_bytes):
            self._size -= len(self._lines.popleft())
