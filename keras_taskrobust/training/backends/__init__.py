"""What differs between TensorFlow, JAX and PyTorch, and only that. One module a backend.

Each module offers:

- `Trainer`: `keras.Model`.
- `give_back_state(model)`: puts the state of before the failing step into a `Trainer`'s variables.
- `replicas()`: the number of replicas that each compute with their own part of a batch.
- `same_start(model)`: before a first step, gives all replicas the state of the first one.
- `global_totals(model, totals, counts)`: the sums over all replicas, differentiable by the local
  ones such that the replicas' combined gradient is that of the global loss.
- `sum_over_replicas(tensor)`: the sum of the replicas' tensors, without a gradient.
- `update_metric(metric, ...)`: Keras's metric, updated with the batches of all replicas.
- `sum_by_group(values, member)`: the sums of `values` over the elements of each group.
- `select_predictions(counts, predictions, value)`: the predictions, and `value` where `counts` is
  `False`.
- `scale_for_replicas(loss)`: the share of a global loss that one replica returns.
- `reached(model, x, layer)`: for each of the model's `task_outputs`, by which of the network's
  trainable variables it has a gradient, and whether by an output of the layer (or `None`); then
  the same for the outputs of the layer.
- `inner_products(gradients)`, `weighted_sum(weights, gradients)`: over the tasks of `(K, ...)`
  float32 gradients, in full float32.
- `random_stream()` and `own_randomness(stream)`: a train step's own random numbers, where Keras
  would draw from a global generator.
- `one_step_of_all(model)`: a context in which a compiled Keras model of any class, not a wrapper,
  takes the step of the whole batch in `fit`, of which each replica has an equal part. Its loss is
  that of all outputs; what layers add to it must not depend on the batch.
- `fused_update(optimizer)`: a context in which it takes the same steps in less time.
- `FUSES_LAYERS`: whether layers are faster by the next two, which it then has.
- `linear(x, kernel, bias)`: `x @ kernel + bias` over the last axis; `bias` may be `None`.
- `attend(query, key, value, mask, dropout, training)`: attention of `(B, T, heads, width)` each, to
  the tokens that the bool `mask` `(B, T)` has, if there is one; `dropout` is a layer or `None`.
- `is_concrete(tensor)`: whether it has its values, unlike in a function that is being compiled.
- `accelerator()`: the name of the device that a process computes on; `""` for the processor.
- `has_bfloat16()`: whether that device multiplies bfloat16 in hardware; not a processor.
- `rematerialized(function)`: the function of tensors, computed again in the backward pass.
- `stock_train_step(model, ...)`: Keras's train step, the same update on every backend.
- `with_logs(step_function, change)`: Keras's train or test function with `change(logs)` as logs.
- `gradient_train_step(model, ...)`: Keras's train step, with the task gradients.

Beside each is a launcher, which starts several devices and processes:

- `processes_for(devices)`: how many processes of the same command these devices need here.
- `start(devices)`: takes the devices, and joins the other processes.
- `count()`, `rank()`: the number of processes, and which this one is.
- `replicas()`: the number of models that have a part of each batch.
- `model_parallel()`: the number of devices that share the weights of a model.
- `part()`: which of how many equal parts of each batch this process reads.
- `scope()`: a context that makes and trains models on all devices of a process; `alone()`: on one.
- `whole(variables)`: a context in which their values are all in this process; all go through it.
- `is_scoped()`: whether a process has several.
- `for_fit(open_batches)`: what `fit` takes, given what opens the batches of this process.
- `gather(payload)`: the bytes of all processes.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

import keras

_NAME = keras.backend.backend()
if _NAME not in ("tensorflow", "jax", "torch"):
    raise ValueError(
        "keras_taskrobust needs the Keras backend 'tensorflow', 'jax' or 'torch'. "
        f"Received: KERAS_BACKEND={_NAME}"
    )

backend: ModuleType = importlib.import_module(f"{__name__}.{_NAME}")
launcher: ModuleType = importlib.import_module(f"{__name__}.{_NAME}_launcher")

if TYPE_CHECKING:
    Trainer = keras.Model
else:
    Trainer = backend.Trainer
