"""The shards of an embedding table across devices and machines, through Lightning's predict loop."""

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ssl_audio.embedding.table import EmbeddingTable


class _ShardWriter(pl.LightningModule):
    """Writes a part of the table for every shard that the loop gives this process."""

    def __init__(self, table: EmbeddingTable, options: dict[str, Any]) -> None:
        super().__init__()
        self.model = table.model  # a submodule, so that Lightning moves it to this process's device
        self.table, self.options = table, options

    def predict_step(self, batch: list[int], batch_index: int) -> None:
        self.table.write_shards(batch, device=self.device, **self.options)


def write_missing(
    table: EmbeddingTable,
    devices: int,
    num_nodes: int = 1,
    strategy: str | None = None,
    accelerator: str | None = None,
    options: dict[str, Any] | None = None,
) -> bool:
    """Write all parts that are missing, the shards dealt out to the processes.

    Args:
        table: on a folder that all machines see.
        devices, num_nodes, strategy: of `pytorch_lightning.Trainer`; the strategy is "ddp" by default.
        accelerator: "cpu", "cuda" or None for what the machine has.
        options: batch_size and workers of `embed_files`.

    Returns:
        Whether this is the process that goes on alone, to assemble the table; the others are done.
    """
    missing = table.missing()
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
