"""The choice of the device for computation."""

import torch

from ssl_audio.errors import InputError


def best_device(device: str | torch.device | None = None) -> torch.device:
    """The given device; if None, a GPU if there is one (CUDA or Apple's), else the CPU.

    Raises:
        InputError: this machine has no such device.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # raised for unknown and for absent devices
        raise InputError(f"there is no device {str(device)!r} here; give cpu, or leave it out to choose one") from error
    return found
