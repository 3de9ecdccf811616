"""What every encoder promises."""

from torch import Tensor, nn

from ssl_audio.errors import InputError


class Encoder(nn.Module):
    """Features -> one vector a clip.

    A subclass sets `dim` and, where the shortest input is not one frame, `minimum_frames`; it stores every constructor
    argument under its own name. An encoder whose features keep time also sets `frame_dim` and defines `frames`.

    Attributes:
        dim: size of the embedding.
        frame_dim: size of a frame, None for encoders without frames.
        minimum_frames: the shortest input along time, in the frontend's frames (samples for raw waveforms).
        runs_code: constructor arguments that name code outside of the package; `config.build` refuses them in a config
            that nobody vouches for.
    """

    dim: int
    frame_dim: int | None = None
    minimum_frames: int = 1
    runs_code: tuple[str, ...] = ()

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` or `(batch, samples)` -> `(batch, dim)`."""
        raise NotImplementedError

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` or `(batch, samples)` -> `(batch, frames, frame_dim)`, never longer in time."""
        raise InputError(f"{type(self).__name__} has no frames; take an encoder that has, such as EfficientNet")


def check_bands(encoder: Encoder, features: Tensor, n_mels: int | None) -> None:
    """Raise InputError if an encoder that was made for `n_mels` bands is given another number; None takes any."""
    if n_mels is not None and features.shape[1] != n_mels:
        raise InputError(
            f"{type(encoder).__name__} was made for n_mels {n_mels} and got {features.shape[1]} bands; "
            "set the encoder's n_mels to the frontend's"
        )
