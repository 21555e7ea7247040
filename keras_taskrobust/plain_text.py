"""Text that is shown as it is, whoever wrote it."""


def printable(text: str) -> str:
    """The text with a replacement character for what would steer a terminal or the direction of
    writing, and for halves of characters.

    Args:
        text: string.

    Returns:
        string. White space stays.

    Example:

    >>> printable("a\\x1b[31mb\\n")
    'a�[31mb\\n'
    """
    return "".join(
        character if character.isprintable() or character.isspace() else "\ufffd"
        for character in text
    )


def one_line(text: str) -> str:
    """`printable` text in one line, with single spaces."""
    return " ".join(printable(text).split())
