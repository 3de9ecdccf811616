"""A checkpoint callback of which a run may have several."""

from pytorch_lightning.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, identified by its file name too.

    Lightning identifies these callbacks by what they monitor and when they save, and refuses two that agree in both.
    `last` saves at the end of every epoch, and so does `periodic` with `callbacks.periodic.every_n_epochs 1`.
    """

    @property
    def state_key(self) -> str:
        return f"{super().state_key}{{'filename': {self.filename!r}}}"
