#!/usr/bin/env bash
# How the files of this folder were made, in an empty folder, by version 0.1.0 (commit b3a34c9). Never run it again:
# what counts is that files of that version still load.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1 SSL_AUDIO_CACHE=$PWD/cache
python "$here/recordings.py" recordings

common=(--config common --trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.log_every_n_steps 1
  --callbacks.periodic null --data.dataset_dirs [recordings] --data.sample_rate 8000 --data.num_workers 0)
small=(--trainer.max_epochs 2 --trainer.max_time null --data.nr_samples 4000 --data.batch_size 4
  --data.eval_frac 0.34 --data.batch_sampling_mode sample_clips --data.multi_epoch 2)
voices=(--config recipes/small-voices --model.encoder.channels [4,8] --model.encoder.embedding_dim 6
  --model.projection.dim 5 --model.frontend.n_mels 16 --model.encoder.n_mels 16 --model.frontend.n_fft 256
  --model.frontend.sample_rate 8000 --model.lr_scheduler.unit epochs)
printf 'callbacks:\n  middle:\n    class_path: ssl_audio.callbacks.Checkpoint\n    init_args: {filename: middle, every_n_train_steps: 8, save_top_k: -1}\n' > middle.yaml

ssl-audio train "${common[@]}" --config contrastive "${voices[@]}" "${small[@]}" --config middle.yaml
ssl-audio train "${common[@]}" --config byol "${voices[@]}" "${small[@]}" --config middle.yaml \
  --model.predictor.dims [8,5]
ssl-audio train "${common[@]}" --config supervised --config recipes/small-voices "${voices[@]:2:14}" \
  --data.dataset_dirs [recordings] --data.sample_rate 8000 --data.nr_samples 4000 --data.batch_size 4 --config middle.yaml \
  --trainer.max_epochs 2 --trainer.max_time null --model.projection null --model.lr_scheduler null --callbacks.whiten null
ssl-audio train "${common[@]}" --config cpc --config data/windows --data.dataset_dirs [recordings] --config middle.yaml \
  --model.encoder '{channels: 16, heads: 2, feedforward: 16}' --model.steps 2 --model.num_negatives 4 \
  --data.nr_samples 1280 --data.batch_size 4 --trainer.max_epochs 2 --data.eval_frac 0.34

model=runs/contrastive/0
python -c "import ssl_audio; ssl_audio.save_model(ssl_audio.load_model('$model'), 'saved')"
ssl-audio export --model $model --format onnx --output onnx/model.onnx
ssl-audio embed recordings --model saved --output table.parquet
ssl-audio embed recordings --model saved --output table.npz --window 0.3
ssl-audio index recordings --model saved --output library.index --window 0.3
(echo path,label,split; for s in 0 1 2 3 4 5; do for k in 0 1 2; do
  echo recordings/singer$s/song$k.wav,$((s % 2)),$([ $s -lt 4 ] && echo train || echo test); done; done) > labels.csv
ssl-audio probe --model saved --corpus csv --root labels.csv --option label=label --option fold=split --clip 0.5 --output probe --draws 10
ssl-audio shard recordings --output shards --sample_rate 8000

python "$here/expected.py"
rm -r recordings cache middle.yaml labels.csv probe/*.* runs/*/0/plots runs/*/0/events* runs/{byol,cpc,supervised}/0/checkpoints/best.ckpt
