"""What a command prints, drawn as a terminal shows it."""

import io
import re

from rich.console import Console
from rich.text import Text

__all__ = ["COLUMNS", "drawn"]

#: Characters in a line.
COLUMNS = 100


def drawn(command: str, output: str) -> str:
    """An SVG of a command line and what it printed, with the colours that it asked for."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ {command}\n{output.rstrip()}"))
    svg = console.export_svg(title="", unique_id="terminal")
    # Nothing is fetched: any font of equal widths will do.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
