"""What `train.py` does around Lightning: stacked files, typed keys, one-line errors, the run folder."""
