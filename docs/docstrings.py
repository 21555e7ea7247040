"""Docstrings of the library, which are Markdown with sections, as MyST pages."""

import inspect
import re
from typing import Any, NamedTuple

_SECTIONS = (
    "Args",
    "Attributes",
    "Call arguments",
    "Returns",
    "Call returns",
    "Yields",
    "Raises",
    "Example",
    "Reference",
    "References",
)
_TITLE = re.compile(rf"^({'|'.join(_SECTIONS)}):$")
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)", re.DOTALL)


class Docstring(NamedTuple):
    """A docstring in parts.

    Attributes:
        summary: string. Its first paragraph.
        body: string. What follows, up to the first section.
        sections: titles to Markdown.
    """

    summary: str
    body: str
    sections: dict[str, str]


def parse(thing: Any) -> Docstring:
    """The docstring of a class, function or module."""
    text = inspect.cleandoc(thing.__doc__ or "")
    title, lines = "", {"": []}
    for line in text.splitlines():
        found = _TITLE.match(line)
        if found:
            title = found[1]
            lines[title] = []
        else:
            lines[title].append(line)
    parts = {name: inspect.cleandoc("\n".join(["", *part])) for name, part in lines.items()}
    summary, _, body = parts.pop("").partition("\n\n")
    sections = {name: _SECTION.get(name, _prose)(part) for name, part in parts.items()}
    return Docstring(_prose(summary), _prose(body), sections)


def to_markdown(thing: Any) -> str:
    """The whole docstring of a class, function or module, for a page."""
    found = parse(thing)
    parts = [found.summary, found.body]
    parts += [f"**{title}**\n\n{text}" for title, text in found.sections.items()]
    return "\n\n".join(part for part in parts if part)


def signature_of(thing: Any) -> str:
    """How a class or function is called: `(alpha=1.0, **kwargs)`, without types."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    shown = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    text = str(inspect.Signature(shown))
    return re.sub(r"<(?:function |class ')?([\w.]+)[^>]*>", r"\1", text)


def _prose(text: str) -> str:
    """Paragraphs; a link may be broken over two lines, and what is indented is a formula."""
    text = re.sub(r"\]\s*\n?\s*\((https?://)", r"](\1", text)
    blocks = re.split(r"\n\n+", text)
    return "\n\n".join(_block(block) for block in blocks)


def _block(block: str) -> str:
    if not block.startswith("    "):
        return block
    return f"```text\n{inspect.cleandoc(block)}\n```"


def _entries(text: str) -> str:
    """A list of names with what they are; or, without names, prose."""
    found: list[str] = []
    for line in text.splitlines():
        if found and (line.startswith(" ") or not line):
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    if not found or not all(_ENTRY.match(entry) for entry in found):
        return _prose(text)
    return "\n".join(_entry(*_ENTRY.match(entry).groups()) for entry in found)


def _entry(names: str, text: str) -> str:
    named = ", ".join(f"`{name}`" for name in names.split(", "))
    first, _, rest = text.partition("\n")
    prose = _prose("\n".join([first, inspect.cleandoc(f"\n{rest}")]).strip())
    return f"- {named}: " + prose.replace("\n", "\n  ")


def _session(text: str) -> str:
    return f"```pycon\n{text.strip()}\n```"


_SECTION = {
    "Args": _entries,
    "Attributes": _entries,
    "Call arguments": _entries,
    "Raises": _entries,
    "Example": _session,
}
