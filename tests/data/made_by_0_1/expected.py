"""What version 0.1.0 gave for one recording, by each model that `make.sh` made: `expected.npz`."""

from pathlib import Path

import numpy as np
import onnx
import torch
from recordings import RATE

from ssl_audio import load_model
from ssl_audio.audio import read
from ssl_audio.downstream.features import _key
from ssl_audio.provenance import fingerprint

clip = torch.from_numpy(read("recordings/singer2/song1.wav", RATE))[None]
models = {
    "contrastive": load_model("runs/contrastive/0"),
    "contrastive_projection": load_model("runs/contrastive/0/checkpoints/last.ckpt", projection=True),
    "byol_middle": load_model("runs/byol/0/checkpoints/middle.ckpt"),
    "supervised_classes": load_model("runs/supervised/0", projection=True),
    "cpc": load_model("runs/cpc/0"),
    "saved": load_model("saved"),
    "probe": load_model("probe/model"),
}
with torch.inference_mode():
    vectors = {name: model(clip)[0].numpy() for name, model in models.items()}
np.savez(
    "expected.npz",
    **vectors,
    fingerprint_of_saved=fingerprint(models["saved"]),
    features_of_missing_file=_key(models["saved"], [Path("/missing.wav")], 0.5, None),
)
paths = [Path(line.partition(",")[0]) for line in Path("labels.csv").read_text().splitlines()[1:]]
(Path("cache/features") / f"{_key(models['saved'], paths, 0.5, None)}.parquet").replace("features.parquet")

network = onnx.load("onnx/model.onnx")  # names files of the machine that exported it
for node in network.graph.node:
    del node.metadata_props[:]
onnx.save(network, "onnx/model.onnx")
