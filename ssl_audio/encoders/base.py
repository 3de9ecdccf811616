"""The base class of encoders, and what it requires of them."""

from torch import Tensor, nn

from ssl_audio.errors import InputError


class Encoder(nn.Module):
    """Features of a clip -> one vector.

    A subclass
    - stores every constructor argument under its own name, so that a saved model can be rebuilt;
    - sets `dim`;
    - sets `minimum_frames`, if the shortest input is more than one frame;
    - sets `frame_dim` and defines `frames`, if its features have a time axis.

    The embedding of a clip must not depend on the other clips of the batch (in evaluation mode).

    Attributes:
        dim: size of the embedding.
        frame_dim: size of a frame; None for encoders without frames.
        minimum_frames: the shortest input in frames of the frontend; in samples, for encoders of raw waveforms.
        runs_code: names of constructor arguments that name code outside the package. `config.build` refuses them in an
            untrusted config.

    Example:
        >>> import torch
        >>> class BandMeans(Encoder):
        ...     def __init__(self, n_mels: int) -> None:
        ...         super().__init__()
        ...         self.n_mels = self.dim = n_mels
        ...     def forward(self, features: Tensor) -> Tensor:
        ...         return features.mean(dim=2)
        >>> BandMeans(64)(torch.randn(3, 64, 100)).shape
        torch.Size([3, 64])
    """

    dim: int
    frame_dim: int | None = None
    minimum_frames: int = 1
    runs_code: tuple[str, ...] = ()

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` or `(batch, samples)` -> `(batch, dim)`."""
        raise NotImplementedError

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` or `(batch, samples)` -> `(batch, frames, frame_dim)`, with at most as many frames.

        Raises:
            InputError: the encoder has no frames.
        """
        raise InputError(f"{type(self).__name__} has no frames; use an encoder that has, such as EfficientNet")


def check_bands(encoder: Encoder, features: Tensor, n_mels: int | None) -> None:
    """Check the number of bands; None allows any.

    Raises:
        InputError: the features do not have `n_mels` bands.
    """
    if n_mels is not None and features.shape[1] != n_mels:
        raise InputError(
            f"{type(encoder).__name__} was made for n_mels {n_mels} and got {features.shape[1]} bands; "
            "set the encoder's n_mels to the frontend's"
        )
