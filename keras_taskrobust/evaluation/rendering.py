"""A report's blocks as Markdown, as one HTML file and in the terminal; rows as CSV."""

import base64
import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from keras_taskrobust.plain_text import one_line, printable

#: The mark of the worst in the terminal.
MARK = "◀"
_ASCII = str.maketrans(f"{MARK}–−", "<--")  # noqa: RUF001


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text. `important`: set off from the rest."""

    text: str
    important: bool = False


@dataclass(frozen=True)
class Notes:
    """A list of remarks. `important`: what went wrong, set off in the terminal."""

    items: tuple[str, ...]
    important: bool = False


@dataclass(frozen=True)
class Picture:
    """An image beside the report. `description`: what it shows, in words."""

    file_name: str
    description: str


@dataclass(frozen=True)
class Entry:
    """A figure in a table.

    Attributes:
        text: the figure.
        detail: what stands behind it in small print, such as its interval.
        mark: a word that sets it off from the others, such as "worst".
    """

    text: str
    detail: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Named columns; the first entry of a row is its name.

    Attributes:
        header: the names of the columns.
        rows: the entries of each row.
        text_columns: indices of the columns that hold words, not figures.
        title: the heading over it, "" for none.
        rules: after how many rows the terminal leaves a line.
        widths: characters that each column has in the terminal, by default what its entries need.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    title: str = ""
    rules: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()


Block = Heading | Paragraph | Notes | Picture | Table


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Writes the blocks as GitHub-flavoured Markdown.

    Args:
        title: string.
        blocks: the blocks in order.

    Returns:
        The text.

    Example:

    >>> table = Table(("", "noun"), ((Entry("uniform"), Entry("5.9", "[5.8, 6.0]", "worst")),))
    >>> print(to_markdown("Losses", [table]))
    # Losses
    <BLANKLINE>
    |  | noun |
    | :-- | --: |
    | uniform | **5.9** worst [5.8, 6.0] |
    <BLANKLINE>
    """
    parts = [f"# {_markdown_text(title)}", *(_markdown(block) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """Writes the blocks as one HTML file that needs nothing beside it.

    Args:
        title: string.
        blocks: the blocks in order.
        pictures: file name to PNG bytes, for every `Picture`.

    Returns:
        The text.
    """
    body = "\n".join(_html(block, pictures) for block in blocks)
    return _PAGE.format(title=_html_text(title), style=_STYLE, body=body)


def to_terminal(console: Console, blocks: Sequence[Block], width: int | None = None) -> None:
    """Prints the blocks.

    Args:
        console: a `rich` console. Characters that its encoding lacks are replaced.
        blocks: the blocks in order.
        width: the most characters of a line, by default the console's.
    """

    def shown(text, style=""):
        return Text(_encodable(text, console), style=style)

    for block in blocks:
        for renderable in _terminal(block, shown):
            console.print(renderable, width=width)


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Writes rows of values as CSV, header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _markdown(block):
    match block:
        case Heading():
            return f"## {_markdown_text(block.text)}"
        case Paragraph(important=True):
            return f"**{_markdown_text(block.text)}**"
        case Paragraph():
            return _markdown_line(block.text)
        case Notes():
            return "\n".join(f"- {_markdown_line(item)}" for item in block.items)
        case Picture():
            return f"![{_markdown_text(block.description)}]({block.file_name})"
        case Table():
            return _markdown_table(block)


def _markdown_table(table):
    title = [_markdown(Heading(table.title)), ""] if table.title else []
    header = [_markdown_text(name) for name in table.header]
    sides = [":--" if index in table.text_columns else "--:" for index in range(len(header))]
    rows = [[_markdown_entry(entry) for entry in row] for row in table.rows]
    return "\n".join([*title, *(f"| {' | '.join(texts)} |" for texts in (header, sides, *rows))])


def _markdown_entry(entry):
    text = _markdown_text(entry.text)
    parts = [f"**{text}** {entry.mark}" if entry.mark else text, _markdown_text(entry.detail)]
    return " ".join(part for part in parts if part)


#: What Markdown, or GitHub's, would take as its own, but for brackets around figures alone and for
#: what stands inside of a word or number.
_MARKUP = re.compile(
    r"""
    (?P<figures>\[[-+−\d.,%\ ]+\](?![\[(:]))
    | [\\`*|<\[\]~$@]
    | &(?=\#?\w+;)
    | (?<![^\W_])_ | _(?![^\W_])
    | (?<!\S)\#
    | :(?=//)
    | (?<=\bwww)\.
    """,  # noqa: RUF001
    re.VERBOSE,
)
#: What begins a block at the start of a line.
_START = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[>+-]))")


def _markdown_text(text):
    """One line, with nothing that Markdown would take as its own."""
    return _MARKUP.sub(lambda found: found["figures"] or f"\\{found[0]}", one_line(text))


def _markdown_line(text):
    """`_markdown_text` where a line begins."""
    return _START.sub(r"\1\\", _markdown_text(text))


def _html_text(text):
    return html.escape(one_line(text))


def _html(block, pictures):
    match block:
        case Heading():
            return f"<h2>{_html_text(block.text)}</h2>"
        case Paragraph():
            kind = ' class="important"' if block.important else ""
            return f"<p{kind}>{_html_text(block.text)}</p>"
        case Notes():
            items = "".join(f"<li>{_html_text(item)}</li>" for item in block.items)
            return f"<ul>{items}</ul>"
        case Picture():
            data = base64.b64encode(pictures[block.file_name]).decode("ascii")
            description = _html_text(block.description)
            return (
                f'<figure><img alt="{description}" src="data:image/png;base64,{data}">'
                f"<figcaption>{description}</figcaption></figure>"
            )
        case Table():
            title = f"{_html(Heading(block.title), pictures)}\n" if block.title else ""
            return f"{title}{_html_table(block)}"


def _html_table(table):
    header = "".join(
        f'<th scope="col"{_text_class(table, index)}>{_html_text(text)}</th>'
        for index, text in enumerate(table.header)
    )
    rows = "\n".join(f"<tr>{_html_row(table, row)}</tr>" for row in table.rows)
    return (
        '<div class="table"><table>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _html_row(table, row):
    name, *entries = row
    return f'<th scope="row" class="text">{_html_text(name.text)}</th>' + "".join(
        f"<td{_text_class(table, index)}>{_html_entry(entry)}</td>"
        for index, entry in enumerate(entries, start=1)
    )


def _text_class(table, index):
    return ' class="text"' if index in table.text_columns else ""


def _html_entry(entry):
    text = _html_text(entry.text)
    if entry.mark:
        text = f'<strong class="mark">{text} {_html_text(entry.mark)}</strong>'
    return f"{text}<br><small>{_html_text(entry.detail)}</small>" if entry.detail else text


def _terminal(block: Block, shown: Callable[..., Text]) -> Iterator[Text | RichTable]:
    """What `rich` prints for a block; `shown(text, style)` is safe to print."""
    match block:
        case Heading():
            yield shown(block.text, "bold")
        case Paragraph(important=True):
            yield from (Text(), shown(block.text, "bold"))
        case Paragraph():
            yield shown(block.text)
        case Notes():
            yield from (shown(item, "red" if block.important else "dim") for item in block.items)
        case Picture():
            yield shown(f"{block.file_name}: {block.description}", "dim")
        case Table():
            yield _terminal_table(block, shown)


def _terminal_table(table, shown):
    title = shown(table.title, "table.title")
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title)
    for index, name in enumerate(table.header):
        drawn.add_column(
            shown(name),
            overflow="fold",
            justify="left" if index in table.text_columns else "right",
            width=table.widths[index] if table.widths else None,
        )
    for number, row in enumerate(table.rows, start=1):
        drawn.add_row(*(_terminal_entry(entry, shown) for entry in row))
        if number in table.rules:
            drawn.add_section()
    return drawn


def _terminal_entry(entry, shown):
    text = f"{entry.text} {entry.mark}" if entry.mark else entry.text
    lines = "\n".join(filter(None, (text, entry.detail)))
    return shown(lines, "bold red" if entry.mark else "")


def _encodable(text, console):
    """The text in characters that the console's encoding has, none of which steers it."""
    text = printable(text)
    if console.encoding.lower().startswith("utf"):
        return text
    return text.translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_STYLE = """:root {
  color-scheme: light dark;
  --ink: #1c1c1c; --paper: #ffffff; --quiet: #5c5c5c; --line: #dcdcdc; --tint: #f4f4f2;
  --mark: #a03000; --edge: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e6e6; --paper: #17181a; --quiet: #a8a8a8; --line: #3a3c40; --tint: #212326;
    --mark: #ffb38a; --edge: #56b4e9;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
p, li { max-width: 50rem; }
.important { border-left: 4px solid var(--edge); background: var(--tint); padding: 0.75rem 1rem; }
.table { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--quiet); vertical-align: bottom; }
th.text, td.text { text-align: left; white-space: normal; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
td small { color: var(--quiet); font-size: 0.8em; }
.mark { color: var(--mark); }
figure { margin: 0.75rem 0; }
img { display: block; width: 1200px; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); }
figcaption { color: var(--quiet); font-size: 0.9rem; margin-top: 0.35rem; max-width: 50rem; }"""
