"""What one request may cost."""

from dataclasses import dataclass, fields

from ssl_audio.errors import InputError

MAX_SAMPLE_RATE = 192_000  # Hz, of an upload


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Args:
        max_bytes: of a request's body, all its files together.
        max_seconds: of audio in one file.
        max_files: in one request.
        max_requests: under way at once; one more is answered with 503.
        timeout_seconds: for a request, from its first byte to its answer.
        batch_files: in one call of the model, over several requests.

    Raises:
        InputError: a bound that is not above 0.
    """

    max_bytes: int = 32_000_000
    max_seconds: float = 300.0
    max_files: int = 16
    max_requests: int = 64
    timeout_seconds: float = 60.0
    batch_files: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise InputError(f"--{field.name} must be above 0, not {value}")
