"""Processes of `torch.distributed`, each with one device."""

import atexit
import contextlib
import datetime
import functools
import os
from typing import Any

import torch
from torch import distributed

from keras_taskrobust.training.backends.torch_replicas import replicas as replicas

#: What the main process does first may take days: that another has ended is seen without it.
_PATIENCE = datetime.timedelta(days=30)


def processes_for(devices: Any) -> int:
    there = torch.cuda.device_count()
    if devices.devices == "all":
        return max(there, 1)
    number = devices.devices or 1
    if there and number > there:
        raise ValueError(
            f"`devices` must be at most {there}: so many GPUs are there. Received: devices={number}"
        )
    return number


def start(devices: Any) -> None:
    if devices.model_parallel > 1:
        raise ValueError(
            "`model_parallel` needs JAX: KERAS_BACKEND=jax. "
            f"Received: model_parallel={devices.model_parallel} under PyTorch"
        )
    if not devices.are_several_processes:
        number = processes_for(devices)
        if number > 1:
            raise ValueError(
                f"PyTorch has one process a device: start {number} of them by "
                f"torchrun --nproc-per-node {number} SCRIPT. Received: devices={number}"
            )
        return
    if devices.coordinator == "auto":
        raise ValueError(
            "`coordinator` must be HOST:PORT under PyTorch, or come from torchrun. "
            "Received: coordinator='auto'"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if devices.devices not in (None, "all", here):
        raise ValueError(
            f"`devices` must be {here}, the number of processes on this machine: PyTorch has one "
            f"device a process. Received: devices={devices.devices}"
        )
    if distributed.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(_local_device(devices))
    distributed.init_process_group(
        backend,
        init_method=_rendezvous(devices),
        world_size=devices.processes,
        rank=devices.process_id,
    )
    atexit.register(_end)


def _rendezvous(devices: Any) -> str:
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return "env://" if by_torchrun else f"tcp://{devices.addresses[0]}"


def _local_device(devices: Any) -> int:
    there = torch.cuda.device_count()
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    number = devices.process_id % there if local is None else int(local)
    if number >= there:
        raise ValueError(
            f"There must be a GPU for each process of this machine: there are {there}. "
            f"Received: process {number}, counted from 0. Start at most {there} here"
        )
    return number


def _end() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    return replicas()


def rank() -> int:
    return distributed.get_rank() if replicas() > 1 else 0


def model_parallel() -> int:
    return 1


def part() -> tuple[int, int]:
    return rank(), count()


def scope() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


alone = scope


def whole(variables: Any) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def is_scoped() -> bool:
    return False


def for_fit(open_batches):
    return open_batches()


@functools.lru_cache(maxsize=1)
def _host_group(world: Any) -> Any:
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


def gather(payload: bytes) -> list[bytes]:
    payloads: list = [None] * count()
    try:
        distributed.all_gather_object(payloads, payload, group=_host_group(distributed.group.WORLD))
    except RuntimeError as error:
        raise RuntimeError(
            f"Another process has ended: what it says comes first. {error}"
        ) from error
    return payloads
