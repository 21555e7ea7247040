"""The gradients of several tasks on PyTorch: one by one, or together from where their ways meet.

A backward pass for all tasks at once launches hardly more operations than one for a single task,
and launches are what the step of a small network on an accelerator waits for. A CPU is faster with
one task at a time.
"""

import contextlib
from collections.abc import Sequence

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from keras_taskrobust.types import Tensor

#: What owns a node of the record that more than one output leads to.
_SEVERAL = -1


def gradients_of(
    targets: Sequence, cotangents: Sequence, values: Sequence, is_last: bool = False
) -> list:
    """The gradients by `values`, summed over the targets; `None` where there is none.

    Args:
        targets: tensors.
        cotangents: the cotangent of each, or `None` for zeros.
        values: leaf tensors, or edges of the record.
        is_last: bool. Whether no other pass follows: this one frees the activations on its way.
    """
    pairs = [
        (target, cotangent)
        for target, cotangent in zip(targets, cotangents, strict=True)
        if target.requires_grad and cotangent is not None
    ]
    if not pairs or not values:
        return [None] * len(values)
    targets, cotangents = zip(*pairs, strict=True)
    retain = not is_last
    return list(
        torch.autograd.grad(targets, values, cotangents, retain_graph=retain, allow_unused=True)
    )


def pull_losses(losses: Tensor, scale: Tensor, outputs: Sequence) -> list:
    """The slopes of K losses, each by the task's own output, in a pass for each task of an output.

    Args:
        losses: `(K,)`.
        scale: scalar, of each.
        outputs: K tensors, of which several may be the same.

    Returns:
        For each loss a cotangent of its output, or `None` for zeros.
    """
    slopes: list = [None] * len(outputs)
    losses = losses.unbind()
    left = [task for task, output in enumerate(outputs) if output.requires_grad]
    with _ending_at({get_gradient_edge(outputs[task]).node for task in left}):
        while left:
            tasks = list({id(outputs[task]): task for task in left}.values())
            found = gradients_of(
                [losses[task] for task in tasks],
                [scale] * len(tasks),
                [outputs[task] for task in tasks],
            )
            for task, slope in zip(tasks, found, strict=True):
                slopes[task] = slope
            left = [task for task in left if task not in tasks]
    return slopes


def runs_on_cpu(values: Sequence) -> bool:
    """Whether the passes to these tensors are made of a CPU's operations."""
    return all(value.device.type == "cpu" for value in values)


def pull_one_by_one(outputs, cotangents, values, heads):
    """Pulls back the cotangents of K tasks, each from the task's own output.

    Args:
        outputs: K tensors, of which several may be the same.
        cotangents: for each its cotangent, or `None` for zeros.
        values: leaf tensors.
        heads: for each task the leaf tensors that nothing but its output depends on.

    Returns:
        `(K, ...)` gradients by each of `values`. And for each task a list: by each of its `heads`
        the gradient, or `None` where there is none.
    """
    found = [
        gradients_of([output], [cotangent], [*values, *own])
        for output, cotangent, own in zip(outputs, cotangents, heads, strict=True)
    ]
    rows = [_stack([row[i] for row in found], value) for i, value in enumerate(values)]
    return rows, [row[len(values) :] for row in found]


def pull_together(outputs, cotangents, values, heads, chunk):
    """What `pull_one_by_one` does; where outputs meet, for `chunk` tasks at once (`None`: all)."""
    by_edge, of_heads = [], []
    meetings = _meetings(outputs, values)
    with _ending_at({edge.node for edges in meetings for edge in edges}):
        for output, cotangent, edges, own in zip(outputs, cotangents, meetings, heads, strict=True):
            found = gradients_of([output], [cotangent], [*edges, *own])
            by_edge.append(dict(zip(edges, found, strict=False)))
            of_heads.append(found[len(edges) :])
    reached = {e: g for gradients in by_edge for e, g in gradients.items() if g is not None}
    stacked = [_stack([g.get(edge) for g in by_edge], like) for edge, like in reached.items()]
    chunks = zip(*(rows.split(chunk or len(outputs)) for rows in stacked), strict=True)
    by_chunk = [_pull_rows(reached, rows, values) for rows in chunks]
    together = map(_join, zip(*by_chunk, strict=True)) if by_chunk else [None] * len(values)
    rows = [
        value.new_zeros((len(outputs), *value.shape)) if rows is None else rows
        for rows, value in zip(together, values, strict=True)
    ]
    return rows, of_heads


def _pull_rows(edges, cotangents, values):
    """The gradients of each row of the cotangents of `edges`, or `None` where there is none."""
    try:
        return torch.autograd.grad(
            tuple(edges),
            values,
            cotangents,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
    except RuntimeError as error:
        error.add_note(
            "This was a backward pass for several tasks at once, under `vmap`. "
            "`compile(task_chunk=1)` takes one task at a time, which needs less memory."
        )
        raise


def _join(parts):
    return parts[0] if len(parts) == 1 or parts[0] is None else torch.cat(parts)


def _meetings(outputs: Sequence, values: Sequence) -> list[list[GradientEdge]]:
    """For each output the edges by which its own part of the record ends.

    It ends at `values`, and where nodes begin that another output leads to, too.
    """
    owners = {get_gradient_edge(value).node: _SEVERAL for value in values}
    roots = [_edge(output) for output in outputs]
    waiting = [(task, edge.node) for task, root in enumerate(roots) for edge in root]
    while waiting:
        task, node = waiting.pop()
        known = owners.get(node)
        owner = task if known in (None, task) else _SEVERAL
        if owner != known:
            owners[node] = owner
            waiting += [(owner, following) for following, _ in node.next_functions if following]
    meetings = [{edge: None for edge in root if owners[edge.node] == _SEVERAL} for root in roots]
    for node, owner in owners.items():
        if owner != _SEVERAL:
            for following, place in node.next_functions:
                if following and owners[following] == _SEVERAL:
                    meetings[owner][GradientEdge(following, place)] = None
    return [list(edges) for edges in meetings]


def _edge(output: Tensor) -> list[GradientEdge]:
    if not output.requires_grad:
        return []
    node, place, *_ = get_gradient_edge(output)
    return [GradientEdge(node, place)]


@contextlib.contextmanager
def _ending_at(nodes):
    """While open, no gradient passes these nodes of the record."""
    hooks = [node.register_prehook(lambda gradients: (None,) * len(gradients)) for node in nodes]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stack(gradients, like):
    """The gradients in one tensor; zeros `like` this one where there is none."""
    zeros = torch.zeros_like(like) if any(g is None for g in gradients) else like
    return torch.stack([zeros if g is None else g for g in gradients])
