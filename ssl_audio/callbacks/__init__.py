"""What watches a training run, from the outputs of its steps: nothing is encoded twice."""

from ssl_audio.callbacks.collapse import CollapseMonitor
from ssl_audio.callbacks.finite import FiniteLoss
from ssl_audio.callbacks.in_batch import InBatchMetrics
from ssl_audio.callbacks.progress import DataWaitProgressBar
from ssl_audio.callbacks.run_folder import RunFolder

__all__ = ["CollapseMonitor", "DataWaitProgressBar", "FiniteLoss", "InBatchMetrics", "RunFolder"]
