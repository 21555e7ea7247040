"""Linear functions whose steps are known, transposed no further than is needed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from keras_taskrobust.training.gradients import add


class LinearFunction:
    """A linear function, as `jax.linearize` gives them.

    Args:
        function: linear function of trees of arrays, which returns a tree of arrays.
        arguments: trees with the shapes and dtypes of its arguments.

    Attributes:
        inputs: the arrays in `arguments`, in one list, as the outputs are counted too.
    """

    def __init__(self, function: Callable, arguments: Any):
        closed = jax.make_jaxpr(function)(*arguments)
        self._jaxpr, self._constants = closed.jaxpr, closed.consts
        self.inputs = jax.tree.leaves(arguments)

    def pull(self, cotangents: Sequence) -> list:
        """The gradients by the inputs.

        Args:
            cotangents: for the first outputs an array each, of any floating-point dtype, or `None`
                for zeros; for the others zeros.

        Returns:
            The gradient by each input, `None` by those that lead to no output with a cotangent.
        """
        given = [position for position, found in enumerate(cotangents) if found is not None]
        if not given:
            return [None] * len(self.inputs)
        outputs = [self._jaxpr.outvars[position] for position in given]
        steps = [step for step, leads_to in self._steps_towards(outputs) if leads_to]
        gradients = self._transposed(steps, (), outputs)(
            [cotangents[i].astype(v.aval.dtype) for i, v in zip(given, outputs, strict=True)]
        )
        return self._where_read(_read(steps, outputs), gradients)

    def pull_rows(
        self,
        outputs: Sequence,
        rows: Sequence,
        cotangent: Callable,
        inputs: Sequence[int],
        map_rows: Callable,
    ) -> tuple[list, list]:
        """The gradients of several rows, each of which makes a cotangent of one output.

        What leads to one of the outputs alone is transposed for the rows of this output only, what
        leads to several for all rows at once.

        Args:
            outputs: the positions of some outputs.
            rows: for each of those its rows, `(n, ...)`.
            cotangent: function of an output and one of its rows; returns the output's cotangent.
            inputs: the positions of some inputs.
            map_rows: maps a function over the rows of an array, or of a list of arrays.

        Returns:
            By each of `inputs` the gradients of all rows, `(rows, ...)`, or `None`. And for each of
            `outputs` a list: by each input the gradients of its rows through what leads to it
            alone, `(n, ...)`, or `None`.
        """
        variables = [self._jaxpr.outvars[output] for output in outputs]
        shared: list[Any] = []
        own: list[list[Any]] = [[] for _ in outputs]
        for step, leads_to in self._steps_towards(variables):
            if leads_to:
                (own[min(leads_to)] if len(leads_to) == 1 else shared).append(step)
        reads = [_read(steps, [variable]) for steps, variable in zip(own, variables, strict=True)]
        made = {id(variable): variable for step in shared for variable in step.outvars}
        values = [variable for key, variable in made.items() if any(key in read for read in reads)]

        by_value, by_input = [], []
        for steps, variable, read, output, of_output in zip(
            own, variables, reads, outputs, rows, strict=True
        ):
            head = self._transposed(steps, values, [variable])
            gradients = map_rows(
                lambda row, head=head, output=output: head([cotangent(output, row)]), of_output
            )
            by_value.append(gradients[: len(values)])
            by_input.append(self._where_read(read, gradients[len(values) :]))
        found = [self._of_all_rows(index, by_input, rows) for index in inputs]
        if values:
            trunk = self._transposed(shared, (), values)
            joined = [jnp.concatenate(of_outputs) for of_outputs in zip(*by_value, strict=True)]
            of_trunk = map_rows(lambda row: [trunk(row)[index] for index in inputs], joined)
            found = [add(a, b) for a, b in zip(of_trunk, found, strict=True)]
        return found, by_input

    def _steps_towards(self, outputs):
        """Each step, and to which positions of `outputs` it leads."""
        leads_to = defaultdict(set)
        for position, variable in enumerate(outputs):
            leads_to[id(variable)].add(position)
        steps = []
        for step in reversed(self._jaxpr.eqns):
            reached = set().union(*(leads_to[id(variable)] for variable in step.outvars))
            for variable in step.invars:
                leads_to[id(variable)] |= reached
            steps.append((step, reached))
        return reversed(steps)

    def _transposed(self, steps, values, outputs):
        """The transpose of these steps alone, a function of `values` that they read and all inputs.

        Returns:
            A function of the cotangents of `outputs`.
        """
        arguments = [*values, *self._jaxpr.invars]
        jaxpr = self._jaxpr.replace(eqns=steps, invars=arguments, outvars=outputs)
        function = jaxpr_as_fun(ClosedJaxpr(jaxpr, self._constants))
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in arguments]
        return jax.linear_transpose(lambda *values: function(*values), *shapes)

    def _of_all_rows(self, index, by_input, rows):
        found = [gradients[index] for gradients in by_input]
        if all(gradient is None for gradient in found):
            return None
        shape, dtype = self.inputs[index].shape, self.inputs[index].dtype
        return jnp.concatenate(
            [
                jnp.zeros((len(of_output), *shape), dtype) if gradient is None else gradient
                for gradient, of_output in zip(found, rows, strict=True)
            ]
        )

    def _where_read(self, read: set[int], gradients: Iterable) -> list:
        return [
            gradient if id(variable) in read else None
            for variable, gradient in zip(self._jaxpr.invars, gradients, strict=True)
        ]


def _read(steps: Iterable, outputs: Sequence) -> set[int]:
    """The variables that the steps read, or that are outputs themselves."""
    atoms = [*(atom for step in steps for atom in step.invars), *outputs]
    return {id(atom) for atom in atoms if not isinstance(atom, Literal)}
