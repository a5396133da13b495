"""Takes what the story shows and promises; gives lines, coloured where somebody looks at them."""

import os
import unicodedata
from typing import TextIO

NOTHING = "–"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Page:
    """`promises` counts what was promised; `broken` names what was not so."""

    def __init__(self, output: TextIO):
        self._output = output
        self._coloured = output.isatty() and not os.environ.get("NO_COLOR")
        self.promises = 0
        self.broken: list[str] = []

    def title(self, text: str):
        self.line(f"\n{self._paint('1', text)}")

    def line(self, text: str = ""):
        print(text, file=self._output, flush=True)

    def live(self, text: str, count: int | None = None):
        """A part of a line, now; with the running count of its parts, small."""
        number = "" if count is None else self.faint(str(count).translate(SUBSCRIPTS))
        print(text + number, end="", file=self._output, flush=True)

    def table(self, rows: list[list[str]], *, head: bool = True):
        """Aligned columns, numbers to the right; with `head` the first row is their names."""
        columns = []
        for column in zip(*rows, strict=True):
            width = max(map(_width, column))
            numbers = all(cell.replace(",", "").isdigit() or cell == NOTHING for cell in column[1:])
            columns.append([_padded(cell, width, numbers) for cell in column])
        for number, cells in enumerate(zip(*columns, strict=True)):
            text = f"    {'  '.join(cells)}".rstrip()
            self.line(self.faint(text) if head and not number else text)

    def promise(self, text: str, kept: bool, found: object = ""):
        """Says that it is so only if it is; else what was found."""
        self.promises += 1
        if kept:
            self.line(f"  {self.good('✓')} {text}")
        else:
            self.broken.append(text)
            self.line(self.bad(f"  ✗ {text}" + (f": found {found}" if found != "" else "")))

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._coloured else text


def shown(secret: str) -> str:
    """Enough of a secret to recognize it."""
    scheme, _, rest = secret.rpartition(" ")
    return f"{scheme} {rest[:10]}{'…' if len(rest) > 10 else ''}".lstrip()


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
