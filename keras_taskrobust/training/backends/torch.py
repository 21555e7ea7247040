"""PyTorch: eager steps; gradients by `torch.autograd.grad`; replicas by `torch.distributed`."""

import contextlib

import keras
import torch
from torch import distributed


def sum_by_group(values, member):
    return torch.where(member, values[..., None], 0.0).sum(tuple(range(values.ndim)))


def sum_over_replicas(totals, counts):
    if not (distributed.is_available() and distributed.is_initialized()):
        return totals, counts
    replicas = distributed.get_world_size()
    both = torch.stack([totals, counts]).detach()
    distributed.all_reduce(both)
    # DistributedDataParallel averages the gradients: R times the local total makes that a sum.
    scaled = replicas * totals
    return scaled + (both[0] - scaled).detach(), both[1]


def scale_for_replicas(loss):
    return loss


def random_stream():
    return keras.random.SeedGenerator()


@contextlib.contextmanager
def own_randomness(stream):
    """Keras's unseeded dropout draws from torch's global generator, which no model can save.

    Inside this context it draws from the model's own stream; the global state is left as it was.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    seed = int(stream.next().sum())
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def shared_variables(model, x):
    """The indices of the network's trainable variables that the most tasks share."""
    variables = model.network.trainable_variables
    values = [variable.value for variable in variables]
    with torch.enable_grad():
        outputs = model.task_outputs(model(x, training=False))
    reached = []
    for output in outputs:
        gradients = torch.autograd.grad(
            output.float().sum(), values, retain_graph=True, allow_unused=True
        )
        reached.append([gradient is not None for gradient in gradients])
    return model.most_shared(reached)


def stock_train_step(model, *args):
    return keras.Model.train_step(model, *args)


def with_logs(step_function, change):
    def changed(iterator):
        return change(step_function(iterator))

    return changed


def gradient_train_step(model, data):
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    variables = [v.value for v in model.gramian_variables(lambda: shared_variables(model, x))]

    def gramian(shares):
        rows = [
            torch.autograd.grad(share, variables, retain_graph=True, allow_unused=True)
            for share in shares
        ]
        zeros = [torch.zeros_like(variable) for variable in variables]
        total = shares.new_zeros((len(rows), len(rows)))
        for index, zero in enumerate(zeros):
            row = [zero if grads[index] is None else grads[index] for grads in rows]
            flat = torch.stack(row).reshape(len(rows), -1).float()
            if distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(flat)
            total = total + flat @ flat.T
        return total

    with model.gramian_from(gramian):
        return stock_train_step(model, data)
