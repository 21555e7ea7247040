"""What is known of a method: the columns of the methods' table, and what it promises."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class MethodFacts:
    """What a weighting balances, what it costs and what holds for its weights.

    The table of methods and the property tests are made from it.

    Args:
        summary: str. What it does, in a few words.
        reference: str. Authors and year, as in a citation, or "-".
        year: int or `None`. The year of publication.
        balances_magnitudes: bool. Losses of another scale get another weight for it.
        balances_learning: bool. Tasks that learn more slowly, or are worse, get more weight.
        needs_no_tuning: bool. Has no parameter that has to be chosen for the problem at hand.
        cost: str. What a step costs beside the weighted sum.
        total: what the weights of the present tasks sum to: 1 ("one"), their number ("number"),
            or anything ("free").
        nonnegative: bool. Whether no weight is ever negative.
        lone_task: bool. Whether a task that is alone has the weight 1.
        scale: what happens to the weights when all losses, and all gradients, are multiplied by one
            positive number: nothing ("same"), they are divided by it ("inverse"), or something else
            ("free").
    """

    summary: str
    reference: str = "-"
    year: int | None = None
    balances_magnitudes: bool = False
    balances_learning: bool = False
    needs_no_tuning: bool = False
    cost: str = "none"
    total: Literal["one", "number", "free"] = "one"
    nonnegative: bool = True
    lone_task: bool = True
    scale: Literal["same", "inverse", "free"] = "free"
