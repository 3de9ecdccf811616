"""Adapt a model to recordings without training, and test on people left out whether it pays."""

from ssl_audio.adaptation.chain import RUNGS, Step
from ssl_audio.adaptation.ladder import adapt

__all__ = ["RUNGS", "Step", "adapt"]
