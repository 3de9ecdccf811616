"""MoCo v2: find the key of the other view among the keys of earlier batches (https://arxiv.org/abs/2003.04297)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_audio.errors import InputError
from ssl_audio.losses import moco_loss
from ssl_audio.methods.averaging import follow, frozen_copy
from ssl_audio.methods.base import Batch, Objective
from ssl_audio.methods.distributed import gather
from ssl_audio.methods.siamese import SiameseMethod


class MoCo(SiameseMethod):
    """Queries of a network, keys of its moving average, and a queue of the keys of earlier batches as negatives.

    He et al., CVPR 2020, https://arxiv.org/abs/1911.05722, with the head and the augmentation of v2. The keys of all
    ranks enter the queue after the loss of a batch. A row of the queue that is of the same recording as a query is no
    negative for it, so that a queue may be longer than the data set.

    Batch-norm that sees a query and its key in equal batches tells which belong together. So keys are computed in
    `key_chunks` parts of a random order, each with its own statistics (the paper shuffles over GPUs).

    The loss rises while the queue, random at first, fills.

    Args:
        queue_size: keys in a queue.
        temperature: see `moco_loss`.
        momentum: of the key network.
        symmetric: mean of both directions, each with a queue of its own; else the first view finds the second.
        key_chunks: parts of a batch of keys; 1: all at once, for encoders without batch-norm.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).

    Raises:
        InputError: a value out of its range.
    """

    views_together = False
    queue: Tensor
    queue_ids: Tensor
    pointer: Tensor

    def __init__(
        self,
        queue_size: int = 32768,
        temperature: float = 0.07,
        momentum: float = 0.999,
        symmetric: bool = True,
        key_chunks: int = 2,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        for name, count in (("queue_size", queue_size), ("key_chunks", key_chunks)):
            if count < 1:
                raise InputError(f"model.{name} is {count}; it must be at least 1")
        if not 0 <= momentum <= 1:
            raise InputError(f"model.momentum is {momentum}; it must be from 0 to 1")
        self.queue_size = queue_size
        self.temperature = temperature
        self.momentum = momentum
        self.symmetric = symmetric
        self.key_chunks = key_chunks
        copies = {"encoder": frozen_copy(self.encoder), "projection": frozen_copy(self.projection)}
        self.key = nn.ModuleDict(copies)
        directions, dim = 1 + symmetric, self.projection.dim
        self.register_buffer("queue", normalize(torch.randn(directions, queue_size, int(dim)), dim=2))  # type: ignore[arg-type]
        self.register_buffer("queue_ids", torch.full((queue_size,), -1))  # of recordings or groups; -1: not filled yet
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.ids: Tensor | None = None
        self._new: tuple[Tensor, Tensor | None] | None = None  # keys and ids that enter the queue after the loss

    def batch_objective(self, batch: Batch) -> Objective:
        """As the base; numbers of recordings, or of groups, say which rows of the queue are no negatives."""
        self.ids = batch.get("group", batch.get("index"))
        return super().batch_objective(batch)

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        features = [self.features(clip1), self.features(clip2)]
        keyed = features if self.symmetric else features[1:]
        queried = features if self.symmetric else features[:1]
        embeddings = [self.encoder(view).float() for view in queried]
        queries = [self.projection(e).float() for e in embeddings]
        with torch.no_grad():
            key_embeddings, keys = zip(*map(self._keys, keyed), strict=True)
        # Each key is in the place of its query: the keys of view 2 belong to the queries of view 1.
        keys = keys[::-1]
        known = self.training and self.ids is not None  # validation counts its own recordings
        ignored = self.ids[:, None] == self.queue_ids if known else None  # type: ignore[index]
        with torch.autocast(clip1.device.type, enabled=False):
            # A mean over clips, against a queue that all ranks have: averaging over ranks is exact without a gather.
            losses = [
                moco_loss(q, k, queue, self.temperature, ignored)
                for q, k, queue in zip(queries, keys, self.queue, strict=True)
            ]
        if self.training:
            ids = None if self.ids is None else gather(self.ids)
            self._new = torch.stack([gather(normalize(k, dim=1)) for k in keys]), ids
        loss = torch.stack(losses).mean()
        if not self.symmetric:
            embeddings, queries = [*embeddings, *key_embeddings], [*queries, *keys]
        return Objective({"loss": loss}, tuple(embeddings), tuple(queries))

    def _keys(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a view -> embeddings and keys of the moving average, in their order; float32."""
        order = torch.randperm(len(features), device=features.device) if self.training else None
        mixed = features if order is None else features[order]
        # A part of one clip would have no statistics of its own.
        parts = mixed.chunk(max(1, min(self.key_chunks, len(mixed) // 2)) if self.training else 1)
        embeddings = [self.key["encoder"](part) for part in parts]
        keys = torch.cat([self.key["projection"](e) for e in embeddings]).float()
        joined = torch.cat(embeddings).float()
        if order is None:
            return joined, keys
        back = order.argsort()
        return joined[back], keys[back]

    @torch.no_grad()
    def enqueue(self) -> None:
        """Write the keys of the last batch over the oldest ones of the queue."""
        if self._new is None:
            return
        (keys, ids), self._new = self._new, None
        keys, ids = keys[:, -self.queue_size :], None if ids is None else ids[-self.queue_size :]
        count = keys.shape[1]
        places = (self.pointer + torch.arange(count, device=keys.device)) % self.queue_size
        self.queue[:, places] = keys
        self.queue_ids[places] = -1 if ids is None else ids
        self.pointer.add_(count).remainder_(self.queue_size)

    def on_after_backward(self) -> None:
        self.enqueue()  # not before: the backward pass needs the queue as it was

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Before the batch ends, so that a checkpoint of this step has it.
        super().optimizer_step(*args, **kwargs)
        follow(self.key["encoder"], self.encoder, self.momentum)
        follow(self.key["projection"], self.projection, self.momentum)
