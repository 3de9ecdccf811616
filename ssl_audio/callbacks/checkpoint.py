"""Checkpoint callbacks that stand beside each other."""

from pytorch_lightning.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose state in a checkpoint is known by its file name too.

    Lightning knows these callbacks by what they watch and when they save, and refuses two that agree in both: `last`
    saves at the end of every epoch, so that `callbacks.periodic.every_n_epochs 1` would be its twin.
    """

    @property
    def state_key(self) -> str:
        return f"{super().state_key}{{'filename': {self.filename!r}}}"
