"""Writing an embedding table on several devices or machines, with Lightning's predict loop."""

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ssl_audio.embedding.table import EmbeddingTable

_NOTHING = -1


class _ShardWriter(pl.LightningModule):
    """Writes one part of the table for every shard that the loop assigns to this process."""

    def __init__(self, table: EmbeddingTable, options: dict[str, Any]) -> None:
        super().__init__()
        self.model = table.model  # a submodule, so that Lightning moves it to the device of this process
        self.table, self.options = table, options

    def predict_step(self, batch: list[int], batch_index: int) -> None:
        shards = [shard for shard in batch if shard != _NOTHING]
        self.table.write_shards(shards, device=self.device, **self.options)


def write_missing(
    table: EmbeddingTable,
    devices: int,
    num_nodes: int = 1,
    strategy: str | None = None,
    accelerator: str | None = None,
    options: dict[str, Any] | None = None,
) -> bool:
    """Write all missing parts of a table; the shards are divided among the processes.

    Args:
        table: its output folder must be visible on all machines.
        devices: number of devices per machine, see `pytorch_lightning.Trainer`.
        num_nodes: number of machines.
        strategy: Lightning's strategy; default: "ddp".
        accelerator: "cpu", "cuda", or None for the best one of the machine.
        options: `batch_size` and `workers` of `embed_files`.

    Returns:
        True in the process that has to assemble the table; False in all others, which have nothing left to do.
    """
    missing = table.missing()
    processes = devices * num_nodes
    missing += [_NOTHING] * max(0, processes - len(missing))  # the loop needs a shard for each process
    trainer = pl.Trainer(
        accelerator=accelerator or "auto",
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy or "ddp",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    loader: DataLoader = DataLoader(missing, batch_size=1, collate_fn=list)  # type: ignore[arg-type]
    trainer.predict(_ShardWriter(table, options or {}), loader, return_predictions=False)
    trainer.strategy.barrier("all parts are written")
    return trainer.is_global_zero
