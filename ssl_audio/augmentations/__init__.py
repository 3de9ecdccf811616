"""Waveform augmentation in two forms with the same names, arguments and distributions.

- `ssl_audio.augmentations.clip`: one clip at a time on the CPU, in the data loader's workers (audiomentations, Praat).
- `ssl_audio.augmentations.batch`: whole batches in torch, on the device that holds them.

A stacked config chooses which runs where (`train_configs/augmentation/`). Nothing is imported here, so that naming the
package costs nothing.
"""
