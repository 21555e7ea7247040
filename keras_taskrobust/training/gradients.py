"""Where the tasks' gradients are taken, and what each trainable variable gets of them."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.training.keras_internals import get_keras_mask, layers_of, set_keras_mask
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import TaskWeighting

PLACES = ("shared", "last_shared", "representation")
HEADS = ("weighted", "own")


class GradientSettings(NamedTuple):
    """What `MinimaxModel.compile` was told of the task gradients, checked."""

    weighting: str
    needs: str
    gradients_at: Any
    representation: str | None
    head_gradients: str
    task_chunk: int | None
    diagnostics: bool

    @property
    def takes_rows(self) -> bool:
        """Whether the tasks' gradients are taken one by one."""
        return self.needs != "losses" or self.diagnostics


def check_settings(
    weighting: TaskWeighting,
    gradients_at: Any,
    representation: str | None,
    head_gradients: str | None,
    task_chunk: int | None,
    diagnostics: bool,
) -> GradientSettings:
    """Checks the arguments of `MinimaxModel.compile`; `None` becomes what the weighting says.

    Raises:
        ValueError: if an argument is none of those offered.
    """
    at = weighting.gradients_at if gradients_at is None else gradients_at
    named = isinstance(at, list | tuple) and at and all(isinstance(name, str) for name in at)
    if at not in PLACES and not named:
        raise ValueError(
            f"`gradients_at` must be one of {', '.join(PLACES)}, or a list of names of layers and "
            f"variables. Received: gradients_at={gradients_at!r}"
        )
    if (at == "representation") != (representation is not None):
        raise ValueError(
            '`representation` must name a layer if `gradients_at` is "representation", and be None '
            f"otherwise. Received: gradients_at={gradients_at!r}, representation={representation!r}"
        )
    if at == "representation" and weighting.keeps_gradients:
        raise ValueError(
            f"{type(weighting).__name__} keeps a state for every gradient element: its gradients "
            "must be taken at weights, not at a representation, which is another for every batch. "
            f"Received: gradients_at={gradients_at!r}"
        )
    heads = weighting.head_gradients if head_gradients is None else head_gradients
    if heads not in HEADS:
        raise ValueError(
            f"`head_gradients` must be one of {', '.join(HEADS)}, or None. "
            f"Received: head_gradients={head_gradients!r}"
        )
    return GradientSettings(
        weighting=type(weighting).__name__,
        needs=weighting.needs,
        gradients_at=tuple(at) if named else at,
        representation=representation,
        head_gradients=heads,
        task_chunk=checks.integer_or_none("task_chunk", task_chunk, least=1),
        diagnostics=bool(diagnostics),
    )


def check_places(network: keras.Model, settings: GradientSettings) -> None:
    """Raises a `ValueError` if a named place of the gradients is not in the built `network`."""
    if isinstance(settings.gradients_at, tuple):
        named_variables(network.trainable_variables, settings.gradients_at)
    if settings.representation is not None:
        _layer_named(network, settings.representation)


class GradientPlan:
    """What a gradient step does with which trainable variable of the network.

    Args:
        network: the network.
        tasks_per_output: the number of tasks in each of its outputs that carry any.
        find_reached: function of a layer or `None`; returns for each of those outputs V + 1 bools:
            has it a gradient by the network's v-th trainable variable, and by what the layer gives?
            With a layer, the same for what it gives comes last.
        settings: `GradientSettings`.

    Attributes:
        takes_rows: bool. Whether the tasks' gradients are taken one by one.
        layer: the layer at whose output they are taken, or `None`.
        place: the variables they are taken at, empty with a `layer`.
        heads: the variables that at most one task reaches, outside `place`.
        weighted_heads: bool. Whether those get the weights of the losses.
        task_chunk: the number of tasks of one backward pass, or `None` for all.
    """

    def __init__(
        self,
        network: keras.Model,
        tasks_per_output: list[int],
        find_reached: Callable,
        settings: GradientSettings,
    ):
        self.takes_rows = settings.takes_rows
        self.output_of_task = [
            output for output, number in enumerate(tasks_per_output) for _ in range(number)
        ]
        self.layer = None
        if self.takes_rows and settings.gradients_at == "representation":
            self.layer = _layer_named(network, settings.representation)
        depends = find_reached(self.layer)
        before_layer = depends.pop() if self.layer is not None else ()
        numbers = [
            sum(number for number, reaches in zip(tasks_per_output, column, strict=True) if reaches)
            for column in zip(*depends, strict=True)
        ]
        # Only now: a network may be built by the pass that finds what is reached.
        variables = network.trainable_variables
        self._variables = variables
        at_layer = numbers.pop()
        least = min(2, sum(tasks_per_output))
        self.task_chunk = settings.task_chunk
        self.weighted_heads = settings.head_gradients == "weighted"
        place: Sequence[int] = ()
        if self.layer is not None:
            _check_representation(self.layer, at_layer, least, settings.weighting)
        elif self.takes_rows:
            place = _place(variables, numbers, least, settings.gradients_at, settings.weighting)
        self.place = [variables[index] for index in place]
        elsewhere = {*place, *(index for index, before in enumerate(before_layer) if before)}
        heads = [i for i, number in enumerate(numbers) if number <= 1 and i not in elsewhere]
        self.heads = [variables[index] for index in heads]
        self.heads_of_task = [
            [variables[index] for index in heads if depends[output][index]]
            for output in self.output_of_task
        ]

    def is_for(self, network: keras.Model) -> bool:
        """Whether the trainable variables of `network` are those that the plan was made for."""
        return list(map(id, network.trainable_variables)) == list(map(id, self._variables))

    @property
    def number_of_elements(self) -> int:
        """P, the number of gradient elements at the place."""
        return sum(math.prod(variable.shape) for variable in self.place)

    def gradients(
        self,
        variables: Sequence[keras.Variable],
        pull: Callable,
        weights: Tensor,
        own_weights: Tensor,
        rows: "TaskRows | None",
        directions: list[Tensor],
        scale: Tensor,
    ) -> list:
        """The gradient of each of the model's trainable variables.

        `place` gets the direction, or what it pulls back to from the representation; `heads` their
        own or weighted gradient; the rest the weighted one. What is outside the weighting comes on
        top, with weight 1.

        Args:
            variables: the model's trainable variables.
            pull: function of the `(K,)` cotangent of the task losses or `None`, the scalar
                cotangent of all that is outside the weighting, the cotangents of the layer's
                outputs or `None`, and the variables or `None`; gives the gradients by those, or,
                for `None`, by what the rest of the network gets as the layer's outputs.
            weights: `(K,)`.
            own_weights: `(K,)`, for `heads` that are not weighted.
            rows: `TaskRows`, or `None`.
            directions: a tensor for each of `place`, or for each output of the layer.
            scale: scalar, of the loss.

        Returns:
            A gradient for each of `variables`, `None` where there is none.
        """
        found: dict[int, Any] = {}

        def pull_to(group, tasks, upstream=None):
            pulled = pull(tasks, scale, upstream, group) if group else ()
            for variable, gradient in zip(group, pulled, strict=True):
                found[id(variable)] = _sum(found.get(id(variable)), gradient)

        upstream = None
        if self.layer is not None:
            others = pull(None, scale, None, None)
            upstream = [_sum(scale * d, other) for d, other in zip(directions, others, strict=True)]
        elif self.place:
            found.update(
                (id(variable), scale * direction)
                for variable, direction in zip(self.place, directions, strict=True)
            )
            pull_to(self.place, None)
        if rows is None:
            pull_to(self.heads, scale * own_weights)
        else:
            found.update(self._of_heads(rows, weights if self.weighted_heads else own_weights))
            pull_to(self.heads, None)
        apart = set(map(id, [*self.place, *self.heads]))
        pull_to([v for v in variables if id(v) not in apart], scale * weights, upstream)
        return [found[id(variable)] for variable in variables]

    def _of_heads(self, rows, weights):
        for weight, heads, gradients in zip(
            ops.unstack(weights), self.heads_of_task, rows.heads, strict=True
        ):
            for variable, gradient in zip(heads, gradients, strict=True):
                yield id(variable), None if gradient is None else weight * gradient


class TaskRows(NamedTuple):
    """The gradients of the task losses, one by one.

    Attributes:
        place: `(K, ...)` float32 by each variable of a plan's `place`, or each output of its layer.
        heads: for each task a list, by each of its `heads_of_task`, float32 or `None` where there
            is none; they are times the scale of the loss.
    """

    place: list
    heads: list[list]


@contextlib.contextmanager
def cutting(layer: keras.layers.Layer | None, cut: Callable) -> Iterator[None]:
    """While open, every floating-point output of `layer` goes through `cut(tensor)`.

    Args:
        layer: a layer of the network that runs meanwhile, or `None`: nothing is cut.
        cut: function of a tensor; returns the tensor that the rest of the network gets.
    """
    if layer is None:
        yield
        return
    call, calls, cuts = layer.call, 0, 0

    def cut_floats(tensor):
        nonlocal cuts
        if not is_float(tensor):
            return tensor
        cuts += 1
        result = cut(tensor)
        set_keras_mask(result, get_keras_mask(tensor))
        return result

    def call_and_cut(*args, **kwargs):
        nonlocal calls
        calls += 1
        return keras.tree.map_structure(cut_floats, call(*args, **kwargs))

    # Past Keras's tracking of attributes.
    former = layer.__dict__.get("call")
    layer.__dict__["call"] = call_and_cut
    try:
        yield
    finally:
        del layer.__dict__["call"]
        if former is not None:
            layer.__dict__["call"] = former
    if calls != 1:
        raise ValueError(
            "`representation` must name a layer that the network calls once in a forward pass. "
            f"Received: representation={layer.name!r}, which it called {calls} times"
        )
    if not cuts:
        raise ValueError(
            "`representation` must name a layer with a floating-point output. "
            f"Received: representation={layer.name!r}, which has none"
        )


def is_float(tensor: Tensor) -> bool:
    """Whether the elements of a tensor are floating-point numbers."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


def floats_of(structure: Any) -> list:
    """The floating-point tensors of a structure, in the order of `keras.tree.flatten`."""
    return [tensor for tensor in keras.tree.flatten(structure) if is_float(tensor)]


def add(term, other):
    """The sum of two terms, each of which may be `None`: nothing."""
    if term is None or other is None:
        return other if term is None else term
    return term + other


def by_variable_and_layer(found: list[bool], number: int) -> list[bool]:
    """What was `found` of the `number` variables, and one entry for all outputs of the layer."""
    return [*found[:number], any(found[number:])]


def _sum(direction, other):
    return add(direction, None if other is None else ops.cast(other, "float32"))


def _place(
    variables: Sequence[keras.Variable], numbers: list[int], least: int, at: Any, who: str
) -> list[int]:
    if at in ("shared", "last_shared"):
        return _shared(variables, numbers, least, last_layer=at == "last_shared", who=who)
    place = named_variables(variables, at)
    if max(numbers[index] for index in place) < least:
        raise ValueError(
            f"`gradients_at` must name at least one variable that {_sharers(least)}, since {who} "
            f"compares their gradients. Received: gradients_at={list(at)}"
        )
    return place


def _check_representation(layer: keras.layers.Layer, number: int, least: int, who: str) -> None:
    if number < least:
        raise ValueError(
            f"`representation` must name a layer whose output {_sharers(least)}, since {who} "
            f"compares their gradients. Received: representation={layer.name!r}, whose output "
            f"{number} of the tasks depend on"
        )


def _sharers(least: int) -> str:
    return "two tasks share" if least > 1 else "the task depends on"


def named_variables(variables: Sequence[keras.Variable], names: Sequence[str]) -> list[int]:
    """The indices of the variables that are named, or belong to a layer that is.

    Args:
        variables: the network's trainable variables.
        names: names of layers or variables, or paths such as "encoder/dense/kernel".

    Raises:
        ValueError: if a name fits none.
    """
    found: set[int] = set()
    for name in names:
        named = {i for i, variable in enumerate(variables) if f"/{name}/" in f"/{variable.path}/"}
        if not named:
            raise ValueError(
                "`gradients_at` must name layers with trainable variables, or trainable variables, "
                f"of the network. Received: {name!r}; the variables are "
                f"{[variable.path for variable in variables]}"
            )
        found |= named
    return sorted(found)


def _shared(
    variables: Sequence[keras.Variable], numbers: list[int], least: int, last_layer: bool, who: str
) -> list[int]:
    largest = max(numbers, default=0)
    if largest < least:
        raise ValueError(
            f"{who} compares the tasks' gradients, but no trainable variable is "
            f"{'shared by two of the tasks' if least > 1 else 'reached by the task'}. "
            f"Received: {len(variables)} trainable variables"
        )
    if not last_layer:
        return [index for index, number in enumerate(numbers) if number >= least]
    most = [index for index, number in enumerate(numbers) if number == largest]
    layer = _layer_path(variables[most[-1]])
    return [index for index in most if _layer_path(variables[index]) == layer]


def _layer_named(network, name):
    layers = {id(layer): layer for layer in layers_of(network, include_self=False)}
    named = [layer for layer in layers.values() if layer.name == name]
    if len(named) != 1:
        raise ValueError(
            "`representation` must be the name of one layer of the network. Received: "
            f"representation={name!r}, the name of {len(named)} layers; the layers are "
            f"{sorted({layer.name for layer in layers.values()})}"
        )
    return named[0]


def _layer_path(variable: keras.Variable) -> str:
    return variable.path.rpartition("/")[0]
