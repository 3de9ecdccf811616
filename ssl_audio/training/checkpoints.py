"""Checkpoints that are written completely or not at all."""

import io
import os
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ssl_audio.utils.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint and renames, so that a run that is killed while saving has the checkpoint before.

    Lightning's own class writes to the system's temporary folder; moving a file from there to another disk copies it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As the base, which is used for addresses such as `s3://`."""
        if "://" in os.fspath(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # torch's own message for a failed write has no reason, the system's has one
        torch.save(checkpoint, content)
        with write_atomically(path) as temporary, open(temporary, "wb") as file:
            file.write(content.getbuffer())
