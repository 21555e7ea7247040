"""What JAX computes on."""

import jax


def accelerator() -> str:
    device = jax.devices()[0]
    return "" if device.platform == "cpu" else device.device_kind


def has_bfloat16() -> bool:
    device = jax.devices()[0]
    if device.platform != "gpu":
        return device.platform == "tpu"
    try:
        return float(device.compute_capability) >= 8
    except ValueError:  # AMD's are names
        return True
