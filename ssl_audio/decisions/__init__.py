"""From scores to decisions: the calibration of a model, and what it says of recordings."""

from ssl_audio.decisions.calibrating import calibrate
from ssl_audio.decisions.comparing import Comparison, compare

__all__ = ["Comparison", "calibrate", "compare"]
