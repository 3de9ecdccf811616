"""Augmentation of waveforms and features.

- `ssl_audio.augmentations.clip`: waveforms, one clip at a time on the CPU, in the data loader's workers
  (audiomentations, Praat).
- `ssl_audio.augmentations.batch`: waveforms, whole batches in torch, on the device of the batch.
- `ssl_audio.augmentations.features`: features after the frontend, whole batches.

Transforms of the same name in `clip` and `batch` have the same arguments and distributions. The configs in
`train_configs/augmentation/` choose between the two.
"""
