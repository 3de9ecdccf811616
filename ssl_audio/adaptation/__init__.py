"""Adapt a model to recordings without training, and test on people left out whether it pays."""
