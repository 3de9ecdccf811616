"""The one rule for the device that computes."""

import torch

from ssl_audio.errors import InputError


def best_device(device: str | torch.device | None = None) -> torch.device:
    """The device that was asked for; else a GPU where there is one (CUDA, or Apple's), else the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's for an unknown and an absent device
        raise InputError(f"there is no device {str(device)!r} here; give cpu, cuda, cuda:1 or mps") from error
    return found
