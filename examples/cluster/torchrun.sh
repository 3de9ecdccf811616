#!/usr/bin/env bash
# Train on all GPUs of one machine, or of several: run the same line on each, with NODES, NODE and HEAD set.
#
#   examples/cluster/torchrun.sh --config common --config contrastive --data.dataset_dirs '[my_voices]'
#   NODES=2 NODE=0 HEAD=node1 examples/cluster/torchrun.sh ...     # on node1
#   NODES=2 NODE=1 HEAD=node1 examples/cluster/torchrun.sh ...     # on the other
#
# PROCESSES: of one machine (its GPUs). HARDWARE: the config of the devices. More words go on to train.py.
set -euo pipefail
cd "$(dirname "$0")/../.."

NODES="${NODES:-1}" NODE="${NODE:-0}" HEAD="${HEAD:-localhost}" PORT="${PORT:-29500}"
PROCESSES="${PROCESSES:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}"

exec python -m torch.distributed.run \
  --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$PROCESSES" --master_addr "$HEAD" --master_port "$PORT" \
  train.py "$@" --config "${HARDWARE:-hardware/multi-gpu}" --trainer.devices "$PROCESSES" --trainer.num_nodes "$NODES"
