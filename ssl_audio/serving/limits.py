"""Limits of a request."""

from dataclasses import dataclass, fields

from ssl_audio.errors import InputError

MAX_SAMPLE_RATE = 192_000  # Hz; highest sample rate of an uploaded file


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        max_bytes: size of the body of a request, with all its files.
        max_seconds: length of the audio in a file.
        max_files: number of files in a request.
        max_requests: number of requests under way. Further requests are answered with 503.
        timeout_seconds: time from the first byte of a request to its answer.
        batch_files: number of files in a call of the model, from one or several requests.

    Raises:
        InputError: a limit is not above 0.
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
