"""Text that is shown as it is, whoever wrote it."""

from collections.abc import Mapping

_LISTED = 5


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


def listed_faults(faults: Mapping[str, str]) -> str:
    """Files with what is wrong with them: five, and how many more there are.

    Args:
        faults: dict of paths to reasons.

    Returns:
        string.

    Example:

    >>> listed_faults({f"{number}.png": "empty file" for number in range(7)})[-29:]
    '4.png: empty file; and 2 more'
    """
    listed = [f"{path}: {fault}" for path, fault in list(faults.items())[:_LISTED]]
    if len(faults) > _LISTED:
        listed.append(f"and {len(faults) - _LISTED} more")
    return "; ".join(listed)
