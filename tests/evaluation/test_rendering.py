"""A report shows what data say as they say it: nothing of it is markup."""

import io
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from keras_taskrobust.evaluation import print_downstream
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.drawing import shown
from keras_taskrobust.evaluation.inheritance import Inheritance
from keras_taskrobust.evaluation.inheritance_report import print_inheritance
from keras_taskrobust.evaluation.rendering import (
    Entry,
    Heading,
    Notes,
    Paragraph,
    Picture,
    Table,
    to_csv,
    to_html,
    to_markdown,
    to_terminal,
)
from keras_taskrobust.plain_text import one_line

pytestmark = pytest.mark.backend_free

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXTS = st.text(max_size=12) | st.text(alphabet="*_`[]()<>|\\~#-+.=1!&;:/ \nax$@", max_size=12)
FRAGMENTS = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](http://tracker/x.png)",
    "[x]: http://y",
    "http://y www.y.z <http://y> a@b.c",
    "&lt;b&gt; &#60;",
    "1. a",
    "- - -",
    "---",
    "# a #",
    "```\na",
    "~~a~~ **a** _a_ __a__ `a`",
    "a\\",
    "$a$ $$a$$",
    "| a | b |",
    "a\r\n\r\n# b\x0b\x1c",
    "\x1b[31m\ud800\u202e",
)


def with_fragments(test):
    for fragment in FRAGMENTS:
        test = example(fragment)(test)
    return test


def blocks(text):
    return [
        Heading(text),
        Paragraph(text),
        Notes((text, text)),
        Picture("picture.png", text),
        Table((text, text), ((Entry(text), Entry("-0.3", text, "worst")),), title=f"{text}."),
    ]


def plain(token):
    for child in token.children or ():
        yield from plain(child) if child.type == "image" else [child.content]


@settings(max_examples=100, deadline=None)
@with_fragments
@given(TEXTS)
def test_markdown_shows_any_text_as_it_is(text):
    line = one_line(text)
    tokens = MARKDOWN.parse(to_markdown(text, blocks(text)))
    inline = [token for token in tokens if token.type == "inline"]
    texts = ["".join(plain(token)).strip() for token in inline]
    expected = [*[line] * 6, one_line(f"{text}."), *[line] * 3, f"-0.3 worst {line}".strip()]
    assert list(filter(None, texts)) == list(filter(None, expected))
    children = [child for token in inline for child in token.children]
    kinds = {child.type for child in children}
    assert kinds <= {"text", "image", "strong_open", "strong_close", "text_special"}
    assert [child.attrs["src"] for child in children if child.type == "image"] == ["picture.png"]


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(name for name, _ in attributes)))
        self.texts += [value for name, value in attributes if name == "alt"]

    def handle_data(self, data):
        self.texts.append(data)


@settings(max_examples=60, deadline=None)
@with_fragments
@given(TEXTS)
def test_html_shows_any_text_as_it_is(text):
    page = Reader(to_html(text, blocks(text), {"picture.png": b""}))
    assert (
        page.tags == Reader(to_html("a", blocks("a"), {"picture.png": b""})).tags[: len(page.tags)]
    )
    line = one_line(text)
    assert line == "" or page.texts.count(line) >= 8


def test_figures_and_names_stay_readable():
    assert to_markdown("a", [Paragraph("hard_max: 5.900 [−5.8, 6.0], 3 % of a (b)")]).endswith(  # noqa: RUF001
        "\nhard_max: 5.900 [−5.8, 6.0], 3 % of a (b)\n"  # noqa: RUF001
    )


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["$\\frac$", "$x$ $", "_a", "a\nb", "\x1b[2J", "x" * 300, "\\$"])
def test_pictures_show_names_as_they_are(name):
    figure = Figure(figsize=(1, 1))
    text = shown(name)
    lines = figure.add_axes((0, 0, 1, 1)).plot([0, 1])
    legend = figure.legend(lines, [text])
    FigureCanvasAgg(figure).draw()
    (label,) = legend.get_texts()
    written, is_formula = label._preprocess_math(label.get_text())
    expected = one_line(name)
    assert is_formula is False
    assert written.strip() == (expected if len(expected) <= 48 else f"{expected[:44]} ...")


@pytest.mark.parametrize(
    "name", ["[red]a[/red]", "[/x]", "[link=http://x]a", "a\x1b[2Jb", "\ud800"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_shows_names_as_they_are(name, encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(file=file, width=200)
    results = [
        DownstreamResult(name, 0, name, {"accuracy": 0.7}, {"accuracy": 0.5}),
        DownstreamResult("b", 0, name, failure=name),
    ]
    print_downstream(results, console)
    inherited = Inheritance((name, "b"), [0.5, 0.5], [[0.6, 0.4], [0.4, 0.6]])
    print_inheritance({name: {0: inherited}}, [(name, 0, name, name)], console)
    file.flush()
    said = file.buffer.getvalue().decode(encoding)
    expected = one_line(name).encode(encoding, "replace").decode(encoding)
    assert said.count(expected) >= 6
    assert "\x1b" not in said


def printed(blocks, encoding="utf-8", width=200):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    to_terminal(Console(file=file, width=width), blocks)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("text", FRAGMENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_shows_every_block_as_it_is(text, encoding):
    line = one_line(text)
    said = printed(blocks(line), encoding)
    assert said.count(line.encode(encoding, "replace").decode(encoding)) >= 9
    assert "-0.3 worst" in said
    assert "\x1b" not in said


def test_the_terminal_keeps_widths_and_rules():
    rows = tuple((Entry(name * 6), Entry("0.5", "[0.4, 0.6]")) for name in "abc")
    table = Table(("task", "loss"), rows, title="Losses", rules=(2, 3), widths=(4, 10))
    lines = [line.rstrip() for line in printed([table]).splitlines()]
    start = next(index for index, line in enumerate(lines) if "aaaa" in line)
    assert "Losses" in lines[0]
    assert [line.strip() for line in lines[start : start + 6]] == [
        "aaaa         0.5",
        "aa    [0.4, 0.6]",
        "bbbb         0.5",
        "bb    [0.4, 0.6]",
        "",
        "cccc         0.5",
    ]


def test_a_narrow_terminal_breaks_figures_and_cuts_none():
    row = (Entry("task"), *(Entry(f"0.{digit * 3}") for digit in "123456789"))
    said = printed([Table(tuple("abcdefghij"), (row,))], "ascii", width=44)
    assert [said.count(digit) for digit in "123456789"] == [3] * 9


def test_csv_has_names_and_commas_as_they_are():
    assert to_csv([("a", "b"), ("x, y", 'say "no"'), (1, "")]) == ('a,b\n"x, y","say ""no"""\n1,\n')
