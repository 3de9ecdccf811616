"""CPC: distinguish the next frames from negatives, given all frames before (https://arxiv.org/abs/1807.03748)."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.encoders.cpc import RECURRENT, State
from ssl_audio.errors import InputError
from ssl_audio.heads import Identity
from ssl_audio.losses import cpc_loss, sample_negatives
from ssl_audio.methods.base import Batch, Method, Objective
from ssl_audio.methods.distributed import gather, of_first, rank, ranks


class CPC(Method):
    """Predicts the frames of one clip (`clip1` of a batch).

    With an encoder that has `latents` and `contextualize` (`encoders.CPC`), these are predicted from those. With any
    other encoder that has frames, its frames are predicted by a recurrent network over them, which is part of the
    method and is not saved with the model. That is easy where a frame sees much of the clip (attention, normalisation
    over time).

    Logged: the sum of the steps' losses as "loss" beside its "chance", the mean "accuracy" beside "accuracy_chance",
    and "loss_k" and "accuracy_k" for each step k. With an encoder whose context runs in reverse, the past is predicted.

    With several processes, each predicts its own clips, and the negatives come from the batches of all. Averaged over
    the processes, loss and gradients are those of one process on the whole batch.

    Callbacks get two "views" of each clip: the mean contexts of its first and its second half.

    Args:
        steps: prediction steps; one linear head each.
        num_negatives: candidates beside the true frame, see `sample_negatives`.
        negatives_within: draw them from the clip itself instead of the whole batch.
        exclude_collisions, scale_by_dim: see `cpc_loss`.
        head_dropout: on the predictions.
        carry_state: begin each training batch with the recurrent state at the end of the batch before. The data module
            must continue each row from batch to batch (`data.composition: sequential`). The state of a row starts at
            zero where its `group_name` changes. For a recurrent context that runs forward.
        context: the network over the frames of an encoder without a context of its own: gru, lstm or rnn.
        context_dim: its size; None: that of a frame.
        projection: a head without parameters, or None; the prediction heads take the place of a projection. (The key
            is there so that a config can replace the projection of the config below it.)
        **network: frontend, encoder, optimizer, lr_scheduler, ... (see `Method`).

    Raises:
        InputError: an encoder without frames, a projection that would have to be trained, a count below 1,
            a state that cannot be carried.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ("clip1",)

    def __init__(
        self,
        steps: int = 12,
        num_negatives: int = 128,
        negatives_within: bool = False,
        exclude_collisions: bool = False,
        scale_by_dim: bool = True,
        head_dropout: float = 0.0,
        carry_state: bool = False,
        projection: Callable[[int], nn.Module] | None = Identity,
        context: Literal["gru", "lstm", "rnn"] = "gru",
        context_dim: int | None = None,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        encoder: Any = self.encoder
        if projection is not None:
            self.projection = projection(encoder.dim)
        if any(True for _ in self.projection.parameters()):
            raise InputError("CPC trains no projection; set model.projection to ssl_audio.heads.Identity")
        own = hasattr(encoder, "contextualize")
        if not own and encoder.frame_dim is None:
            raise InputError(
                f"CPC predicts frames, which {type(encoder).__name__} does not have; take an encoder that has, such as "
                "encoder/cpc or encoder/efficientnet_b0"
            )
        for name, count in (("steps", steps), ("num_negatives", num_negatives), ("context_dim", context_dim)):
            if count is not None and count < 1:
                raise InputError(f"model.{name} is {count}; it must be at least 1")
        if carry_state and own and (encoder.context not in RECURRENT or encoder.reverse):
            raise InputError(
                "model.carry_state needs a recurrent context that runs forward; set model.encoder.context to one of "
                f"{', '.join(RECURRENT)} and model.encoder.reverse to false, or carry_state to false"
            )
        self.steps = steps
        self.num_negatives = num_negatives
        self.negatives_within = negatives_within
        self.exclude_collisions = exclude_collisions
        self.scale_by_dim = scale_by_dim
        self.head_dropout = head_dropout
        self.carry_state = carry_state
        latent_dim = encoder.channels if own else encoder.frame_dim
        dim = encoder.dim if own else context_dim or latent_dim
        self.context_network = None if own else RECURRENT[context](latent_dim, dim, batch_first=True)
        # The heads of all steps side by side: the same as one Linear a step, in one product.
        self.heads = nn.Sequential(nn.Linear(dim, steps * latent_dim, bias=False), nn.Dropout(head_dropout))
        self.state: State = None
        self.state_groups: list[str] = []

    def batch_objective(self, batch: Batch) -> Objective:
        """The objective of `clip1`; with `carry_state`, training continues from the state of the batch before."""
        if not (self.carry_state and self.training):
            return self.objective(batch["clip1"])[0]
        groups = list(batch["group_name"])
        result, state = self.objective(batch["clip1"], self._carried_state(groups))
        self.state, self.state_groups = _map_state(state, Tensor.detach), groups
        return result

    def objective(self, clips: Tensor, state: State = None) -> tuple[Objective, State]:
        """(batch, samples) and the recurrent state before them -> the objective, and the state after them."""
        encoder: Any = self.encoder
        features = self.features(clips)
        if self.context_network is None:
            latents = encoder.latents(features)
            context, state = encoder.contextualize(latents, state)
        else:
            latents = encoder.frames(features)
            context, state = self.context_network(latents, state)
        first, second = (half.float().mean(dim=1) for half in context.tensor_split(2, dim=1))
        if getattr(encoder, "reverse", False):
            latents, context = latents.flip(1), context.flip(1)
        return Objective(self._terms(latents, context), (first, second), (first, second)), state

    def _terms(self, latents: Tensor, context: Tensor) -> dict[str, Tensor]:
        """(batch, frames, channels), (batch, frames, dim), both in the order of prediction -> named terms."""
        batch, frames, _ = latents.shape
        positions = frames - self.steps
        if positions < 1:
            raise InputError(
                f"a clip of {frames} frames has none that is followed by {self.steps} others; "
                "raise data.nr_samples or lower model.steps"
            )
        predictions = self.heads(context[:, :positions]).unflatten(2, (self.steps, -1)).permute(2, 0, 1, 3)
        # Training draws from torch's generator, which `Method` seeds each step; validation repeats one draw.
        # With several processes, the first draws for all, and each takes the part for its own clips.
        together, first, generator = ranks(), rank() * batch, None
        if not self.training:
            together, first, generator = 1, 0, torch.Generator(latents.device).manual_seed(0)
        negatives = sample_negatives(
            together * batch, frames, positions, self.num_negatives, self.negatives_within, generator, latents.device
        )
        if together > 1:
            negatives, latents = of_first(negatives)[first : first + batch], gather(latents)
        with torch.autocast(latents.device.type, enabled=False):
            losses, accuracies = cpc_loss(
                predictions.float(), latents.float(), negatives, self.scale_by_dim, self.exclude_collisions, first
            )
        candidates = 1 + self.num_negatives
        terms = {
            "loss": losses.sum(),
            "chance": losses.new_tensor(self.steps * math.log(candidates)),
            "accuracy": accuracies.mean(),
            "accuracy_chance": losses.new_tensor(1 / candidates),
        }
        for k in range(self.steps):
            terms |= {f"loss_{k + 1}": losses[k], f"accuracy_{k + 1}": accuracies[k]}
        return terms

    def _carried_state(self, groups: list[str]) -> State:
        """The state of the batch before, zero in rows that continue nothing; None if no row continues."""
        if self.state is None or len(groups) != len(self.state_groups):
            return None
        continued = torch.tensor([a == b for a, b in zip(groups, self.state_groups, strict=True)])
        return _map_state(self.state, lambda s: s * continued.to(s.device, s.dtype).view(1, -1, 1))

    @property
    def batch_keys(self) -> tuple[str, ...]:
        return (*self.clip_keys, "group_name") if self.carry_state else self.clip_keys

    def check_data(self, spec: BatchSpec) -> None:
        """As the base. Raises InputError: a state is to be carried between batches that do not continue each other."""
        super().check_data(spec)
        if self.carry_state and not spec.continues:
            raise InputError(
                "model.carry_state needs batches that continue each other, and those of the data do not; set "
                "data.composition to sequential (data/windows, data/musicnet-windows), or model.carry_state to false"
            )

    def on_train_epoch_start(self) -> None:
        self.state, self.state_groups = None, []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.carry_state:  # for a run that is resumed within an epoch
            checkpoint["carried_state"] = {"state": self.state, "groups": self.state_groups}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.carry_state and "carried_state" in checkpoint:
            self.state, self.state_groups = checkpoint["carried_state"].values()


def _map_state(state: State, function: Any) -> State:
    """A function of tensors over a recurrent state: None, (layers, batch, dim), or a pair of them."""
    if state is None:
        return None
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)
