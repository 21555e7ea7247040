"""Images that are held out of a source without splits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_taskrobust.vision import ImageSource

#: Images held out at least, if they are no more than a fifth.
_ENOUGH = 30
_LARGEST_SHARE = 0.2


def split_images(source: "ImageSource", share: float) -> "tuple[ImageSource, ImageSource]":
    """Holds out records evenly over a source: the same ones every time.

    Args:
        source: `ImageSource`.
        share: float. Share of the records that is held out: at least 30, or a fifth of fewer than
            150, or one.

    Returns:
        The others, and those held out.

    Raises:
        ValueError: there are no others.
    """
    from keras_taskrobust.vision import ImageSubset

    number = len(source)
    least = min(_ENOUGH, int(number * _LARGEST_SHARE))
    if number * share < least:
        held_out = {index * number // least for index in range(least)}
    else:
        held_out = {int(index / share) for index in range(int(number * share))} or {0}
    kept = [index for index in range(number) if index not in held_out]
    if not kept:
        raise ValueError(
            "A folder must have more images than the one that is held out. "
            f"Received: {number} images"
        )
    return ImageSubset(source, kept), ImageSubset(source, sorted(held_out))
