"""Callbacks that watch a training run, by the outputs of its steps or on a held-out folder."""

from ssl_audio.callbacks.best import BestCheckpoint
from ssl_audio.callbacks.checkpoint import Checkpoint
from ssl_audio.callbacks.collapse import CollapseMonitor
from ssl_audio.callbacks.finite import FiniteLoss
from ssl_audio.callbacks.in_batch import InBatchMetrics
from ssl_audio.callbacks.interrupt import SaveOnInterrupt
from ssl_audio.callbacks.progress import DataWaitProgressBar
from ssl_audio.callbacks.run_folder import RunFolder
from ssl_audio.callbacks.verification import Verification
from ssl_audio.callbacks.whiten import Whiten

__all__ = [
    "BestCheckpoint",
    "Checkpoint",
    "CollapseMonitor",
    "DataWaitProgressBar",
    "FiniteLoss",
    "InBatchMetrics",
    "RunFolder",
    "SaveOnInterrupt",
    "Verification",
    "Whiten",
]
