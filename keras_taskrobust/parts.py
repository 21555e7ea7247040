"""The parts of a work that several processes or machines do at the same time."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

_SHOWN = 5

Items = TypeVar("Items", bound=Sequence)


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several parts.

    Args:
        number: int, from 1.
        parts: int, how many there are.

    Example:

    >>> part = Part.read("2/3")
    >>> part.of(range(10)), str(part)
    (range(3, 6), '2/3')
    """

    number: int = 1
    parts: int = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """Reads `"2/3"`, the second of three.

        Args:
            text: string.

        Raises:
            ValueError: it is no such thing, or there is no such part.
        """
        match = re.fullmatch(r"0*([1-9]\d*)/0*([1-9]\d*)", text)
        if match is None or int(match[1]) > int(match[2]):
            raise ValueError(
                "`part` must be I/N, such as 2/3 for the second of three parts. "
                f"Received: part={text!r}"
            )
        return cls(int(match[1]), int(match[2]))

    def edges(self, length: int) -> tuple[int, int]:
        """Where the part begins and ends, if the whole has a length."""
        return length * (self.number - 1) // self.parts, length * self.number // self.parts

    def of(self, items: Items) -> Items:
        """The part of a sequence."""
        return items[slice(*self.edges(len(items)))]  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """What the file or folder of the part is called."""
        return f"{self.number}-of-{self.parts}"

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


WHOLE = Part()


def parts_in(folder: Path) -> dict[Part, Path]:
    """The files or folders of parts in a folder, in order."""
    found = {}
    for path in folder.glob("*-of-*"):
        try:
            found[Part.read(path.stem.replace("-of-", "/"))] = path
        except ValueError:  # something else
            continue
    return dict(sorted(found.items(), key=lambda one: (one[0].number, one[0].parts)))


def refuse_other_parts(folder: Path, own: Part) -> None:
    """Raises a `ValueError` where a folder has parts of another number than `own` is of."""
    others = {part.parts for part in parts_in(folder)} - {own.parts}
    if others:
        raise ValueError(
            f"All parts must be of one number. Received: part={own}, where {folder} has parts of "
            f"{min(others)}: remove them, or go on with theirs"
        )


def all_parts(folder: Path, is_finished: Callable[[Path], bool]) -> dict[Part, Path]:
    """The parts in a folder, in order.

    Args:
        folder: path.
        is_finished: callable: whether the part at a path is complete.

    Returns:
        dict of `Part` to the path of its file or folder.

    Raises:
        ValueError: they are of different numbers, or some are missing or not complete.
    """
    found = parts_in(folder)
    if len({part.parts for part in found}) > 1:
        raise ValueError(
            f"All parts must be of one number. Received: {_listed(list(found))} in {folder}: "
            "remove the others"
        )
    parts = next(iter(found), WHOLE).parts
    expected = [Part(number, parts) for number in range(1, parts + 1)]
    missing = [one for one in expected if one not in found or not is_finished(found[one])]
    if missing:
        raise ValueError(
            f"All parts must be there, to be joined. Received: {folder} without "
            f"{_listed(missing)}: make them with `part`, or remove the folder to do without parts"
        )
    return found


def _listed(parts: Sequence[Part]) -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return ", ".join(map(str, parts[:_SHOWN])) + more
