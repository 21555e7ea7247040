"""Which devices and processes train together: as asked for, and as the environment says."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from keras_taskrobust import checks

_TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_KERAS = {
    "processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process_id": "KERAS_DISTRIBUTION_PROCESS_ID",
    "coordinator": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
}


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that train together."""

    devices: int | Literal["all"] | None = None
    """Devices of this machine that share each batch; by default one, or all if there are several
    processes."""
    model_parallel: int = 1
    """Devices that share the weights of one model, under JAX."""
    processes: int | None = None
    """Processes that are started with the same command, on one machine or several."""
    process_id: int | None = None
    """Which of them this is, from 0. The first one writes."""
    coordinator: str | None = None
    """HOST:PORT of process 0, on which a port is free; under TensorFlow that of each process, with
    commas; auto where JAX finds all three by itself: on TPU machines, and under Slurm."""

    def __post_init__(self):
        if self.devices not in (None, "all"):
            checks.integer("devices", self.devices, least=1)
        checks.integer("model_parallel", self.model_parallel, least=1)
        checks.integer_or_none("processes", self.processes, least=1)
        checks.integer_or_none("process_id", self.process_id, least=0)
        if self.coordinator == "auto":
            return
        if self.processes is None and self.process_id is None and self.coordinator is None:
            return
        if self.processes is None or self.process_id is None or self.coordinator is None:
            raise ValueError(
                "`processes`, `process_id` and `coordinator` must be given together. Received: "
                f"processes={self.processes}, process_id={self.process_id}, "
                f"coordinator={self.coordinator}"
            )
        if self.process_id >= self.processes:
            raise ValueError(
                "`process_id` must be less than `processes`. "
                f"Received: process_id={self.process_id}, processes={self.processes}"
            )
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not (host and port.isdigit() and 0 < int(port) < 2**16):
                raise ValueError(
                    "`coordinator` must be HOST:PORT, such as 10.0.0.1:29500. "
                    f"Received: coordinator={self.coordinator!r}"
                )

    @property
    def addresses(self) -> list[str]:
        """Those of the coordinator, or of all processes."""
        return [] if self.coordinator is None else self.coordinator.split(",")

    @property
    def are_several_processes(self) -> bool:
        """Whether other processes take part."""
        return self.coordinator == "auto" or (self.processes or 1) > 1

    def with_environment(self, engine: str, environment: Mapping[str, str]) -> "Devices":
        """The same, with the processes that the environment says where no argument does.

        Args:
            engine: string. The Keras backend.
            environment: its variables: those of torchrun for PyTorch, `TF_CONFIG` for TensorFlow,
                `KERAS_DISTRIBUTION_*` for any.

        Raises:
            ValueError: a variable is not as said.
        """
        if self.coordinator is not None:
            return self
        if engine == "torch" and all(name in environment for name in _TORCH):
            rank, size, host, port = (environment[name] for name in _TORCH)
            found: dict[str, Any] = {
                "processes": _integer("WORLD_SIZE", size),
                "process_id": _integer("RANK", rank),
                "coordinator": f"{host}:{port}",
            }
        elif engine == "tensorflow" and environment.get("TF_CONFIG"):
            found = _from_tf_config(environment["TF_CONFIG"])
        elif any(name in environment for name in _KERAS.values()):
            found = {name: environment.get(variable) for name, variable in _KERAS.items()}
            for name in ("processes", "process_id"):
                if found[name] is not None:
                    found[name] = _integer(_KERAS[name], found[name])
        else:
            return self
        return dataclasses.replace(self, **found)


def _integer(name: str, value: str) -> int:
    if not value.isdigit():
        raise ValueError(f"The variable {name} must be an integer. Received: {name}={value}")
    return int(value)


def _from_tf_config(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        chiefs = [*cluster.get("chief", ()), *cluster.get("master", ())]
        addresses = [*chiefs, *cluster["worker"]]
        index = int(task["index"]) + (len(chiefs) if task["type"] == "worker" else 0)
        return {
            "processes": len(addresses),
            "process_id": index,
            "coordinator": ",".join(addresses),
        }
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            'TF_CONFIG must be JSON with {"cluster": {"worker": [addresses]}, "task": {"type": '
            f'"worker", "index": number}}}}. Received: TF_CONFIG={text}'
        ) from error
