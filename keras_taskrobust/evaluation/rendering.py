"""A report's blocks as Markdown, as one HTML file and in the terminal; rows as CSV."""

import base64
import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from keras_taskrobust.evaluation.page import PAGE, STYLE
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
    return PAGE.format(title=_html_text(title), style=STYLE, body=body)


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


#: Where a name may break: behind what joins its words.
_PARTS = re.compile(r"[^\W_]+[\W_]*|[\W_]+")


def longest_part(name: str) -> int:
    """How wide a column must be to break a name between its words only."""
    return max((len(part.rstrip()) for part in _PARTS.findall(one_line(name))), default=0)


def broken(name: str, width: int) -> str:
    """The name in lines of at most `width` characters, broken between its words if it can be."""
    lines = [""]
    for part in _PARTS.findall(one_line(name)):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _terminal_table(table, shown):
    title = shown(table.title, "table.title")
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title)
    for index, name in enumerate(table.header):
        width = table.widths[index] if table.widths else None
        drawn.add_column(
            shown(broken(name, width) if width else name),
            overflow="fold",
            justify="left" if index in table.text_columns else "right",
            width=width,
        )
    for number, (name, *entries) in enumerate(table.rows, start=1):
        if table.widths:
            name = replace(name, text=broken(name.text, table.widths[0]))
        drawn.add_row(*(_terminal_entry(entry, shown) for entry in (name, *entries)))
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
