"""The parts of a work that several processes or machines do at the same time."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Self, TypeVar

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

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


WHOLE = Part()
