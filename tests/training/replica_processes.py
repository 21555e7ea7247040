"""Runs cases on several replicas, in processes of this file that start an engine first.

`python replica_processes.py KIND NUMBER RANK FOLDER ADDRESSES CASE ...` writes what each case found
to `FOLDER/RANK.pickle`. `KIND` is `"one"` device, several `"devices"` of one process, several
`"processes"`, or a `"model"` on two of them each.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from keras_taskrobust.distribution import free_addresses

BACKEND = keras.backend.backend()
#: The longest that the cases of one call may take, in seconds.
TIME_OUT = 1500
#: One for each sum over the processes so far, where it can be counted: with PyTorch.
SUMS: list = []


def run(cases, folder, kind="processes", number=2):
    """What each process found in each of the `cases`."""
    # To compile takes far longer than to compute.
    flags = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    if kind in ("devices", "model"):
        flags.append(f"--xla_force_host_platform_device_count={number}")
    settings = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": " ".join(flags)}
    environment = {**os.environ, **settings}
    many = number if kind == "processes" else 1
    addresses = ",".join(free_addresses(many))
    command = [sys.executable, __file__, kind]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(rank), str(folder), addresses, *cases],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(many)
    ]
    try:
        outputs = [process.communicate(timeout=TIME_OUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(outputs)[-6000:]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(many)]


def check_equal(one, replicas):
    """Training by several processes against that on one device."""
    first, *others = replicas
    for other in others:
        np.testing.assert_array_equal(other["after"], first["after"])
        assert other["logs"] == first["logs"]
    assert all(found["copies_are_equal"] for found in replicas)
    assert np.linalg.norm(one["after"] - one["before"]) > 0.01
    assert first.get("scale", 0.0) == one.get("scale", 0.0) < 2.0**127
    assert difference(one, first) < 2e-5
    for name, value in one["logs"].items():
        np.testing.assert_allclose(first["logs"][name], value, rtol=2e-5, err_msg=name)


def difference(one, other):
    """The difference of the weights after training over the size of the update."""
    update = np.linalg.norm(one["after"] - one["before"])
    return np.linalg.norm(other["after"] - one["after"]) / update


def _start_torch(kind, number, rank, folder, addresses):
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    if kind == "one":
        return contextlib.nullcontext()
    all_reduce = distributed.all_reduce

    def counted(*args, **kwargs):
        SUMS.append(1)
        return all_reduce(*args, **kwargs)

    distributed.all_reduce = counted
    address = f"file://{folder.resolve()}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=number)
    stack = contextlib.ExitStack()
    stack.callback(distributed.destroy_process_group)
    stack.callback(distributed.barrier)
    return stack


def _start_jax(kind, number, rank, folder, addresses):
    if kind == "processes":
        import jax

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(addresses[0], number, rank)
    if kind == "model":
        from keras_taskrobust import layout_map

        devices = keras.distribution.list_devices()
        mesh = keras.distribution.DeviceMesh((number // 2, 2), ("batch", "model"), devices)
        parallel = keras.distribution.ModelParallel(
            layout_map=layout_map(mesh), batch_dim_name="batch", auto_shard_dataset=False
        )
        keras.distribution.set_distribution(parallel)
    elif kind != "one":
        parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
        keras.distribution.set_distribution(parallel)
    return contextlib.nullcontext()


def _start_tensorflow(kind, number, rank, folder, addresses):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    if kind == "devices":
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * number
        tf.config.set_logical_device_configuration(cpu, devices)
        names = [f"CPU:{index}" for index in range(number)]
        return tf.distribute.MirroredStrategy(names).scope()
    if kind == "processes":
        task = {"type": "worker", "index": rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    return contextlib.nullcontext()


_START = {"torch": _start_torch, "jax": _start_jax, "tensorflow": _start_tensorflow}


def _main(kind, number, rank, folder, addresses, *names):
    number, rank, folder = int(number), int(rank), Path(folder)
    with _START[BACKEND](kind, number, rank, folder, addresses.split(",")):
        from replica_cases import TRAINED, Replica

        cases = TRAINED
        if BACKEND == "torch":
            from torch_replica_cases import CASES as cases
        # TensorFlow's processes all read the same batches, of which each takes its part.
        reads_part = kind == "processes" and BACKEND != "tensorflow"
        replica = Replica() if not reads_part else Replica(rank, number, BACKEND == "torch", SUMS)
        found = {name: cases[name](replica) for name in names}
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
