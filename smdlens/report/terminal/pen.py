"""Writes sanitised, wrapped text on a console, in Unicode or in plain ASCII."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from smdlens.names import for_terminal
from smdlens.vocabulary import HELD_STATES, Outcome, State

_WIDEST_PROSE = 100
# Every character keeps its width, so that ASCII tables align like the others.
_TO_ASCII = str.maketrans("–—−·×±≥≤≈…’“”✓✗→●", '---|x+><~~\'""+x>o')

SYMBOLS: dict[Outcome, tuple[str, str]] = {
    Outcome.ERROR: ("✗", "bold red"),
    Outcome.FAIL: ("✗", "red"),
    Outcome.WARN: ("!", "yellow"),
    Outcome.INCONCLUSIVE: ("?", "cyan"),
    Outcome.PASS: ("✓", "green"),
}


def state_style(state: State) -> str:
    """Colour of a state; the words beside it carry the meaning."""
    if state is State.UNDETERMINED:
        return "cyan"
    return "green" if state in HELD_STATES else "red"


class Pen:
    """Everything a section needs to write; nothing wider than the console leaves it."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self.console = console
        self.verbose = verbose
        self.ascii = not console.encoding.lower().startswith("utf")
        self.width = console.width

    def clean(self, raw: str) -> str:
        """`raw` safe to show, in ASCII where the terminal needs that."""
        text = for_terminal(raw)
        if not self.ascii:
            return text
        return text.translate(_TO_ASCII).encode("ascii", "backslashreplace").decode("ascii")

    def text(self, raw: str, style: str = "") -> Text:
        """`raw` as rich text: brackets in it are no markup."""
        return Text(self.clean(raw), style=style)

    def blank(self) -> None:
        """An empty line."""
        self.console.print()

    def line(self, raw: str | Text, style: str = "", *, indent: int = 1) -> None:
        """A paragraph, wrapped and indented."""
        text = raw if isinstance(raw, Text) else self.text(raw, style)
        self.show(Padding(text, (0, 0, 0, indent)), self._prose_width)

    def item(self, symbol: str, style: str, paragraphs: Iterable[Text]) -> None:
        """A symbol with paragraphs hanging beside it."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        for number, paragraph in enumerate(paragraphs):
            grid.add_row(self.text(symbol if number == 0 else "", style), paragraph)
        self.show(Padding(grid, (0, 0, 0, 1)), self._prose_width)

    def pieces(self, pieces: Sequence[str], style: str = "") -> None:
        """Pieces joined by dots, broken between pieces rather than inside them."""
        dot = self.clean(" · ")
        lines: list[str] = []
        for piece in map(self.clean, pieces):
            if lines and cell_len(lines[-1] + dot + piece) <= self._prose_width:
                lines[-1] += dot + piece
            else:
                lines.append(piece)
        for text in lines:
            self.line(Text(text, style), indent=0)

    @property
    def _prose_width(self) -> int:
        return min(self.width, _WIDEST_PROSE)

    def show(self, renderable: RenderableType, width: int) -> None:
        """Prints without the blanks that rich pads lines with: logs and copies stay clean."""
        options = self.console.options.update(width=width)
        for segments in self.console.render_lines(renderable, options, pad=False):
            text = Text.assemble(*((s.text, s.style or "") for s in segments if not s.control))
            text.rstrip()
            self.console.print(text, no_wrap=True, overflow="ignore", crop=False)
