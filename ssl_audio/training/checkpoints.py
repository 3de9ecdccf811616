"""Checkpoints that are whole or not there."""

import io
import os
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ssl_audio.utils.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint and renames: a run that is killed while it saves still has the one before.

    Lightning's own writes to the system's temporary folder, from where a rename is a copy if that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As the base; addresses such as `s3://` are left to it."""
        if "://" in os.fspath(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # torch says "file write failed" where the system says why
        torch.save(checkpoint, content)
        with write_atomically(path) as temporary, open(temporary, "wb") as file:
            file.write(content.getbuffer())
