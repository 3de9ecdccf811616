"""Options that several kinds of address share, and their parsers."""

from collections.abc import Callable

from ssl_audio.encoders.clips import SHORT
from ssl_audio.encoders.huggingface import POOLS
from ssl_audio.hub.address import Option


def one_of(*names: str) -> Callable[[str], str]:
    """A parser that accepts one of these words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return parse


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers that are at least `least`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return value

    return parse


def number_or_none(text: str) -> float | None:
    """Parse a number, or `none` as None."""
    return None if text == "none" else float(text)


def layer(text: str) -> int | str | list[int]:
    """Parse a layer: a number, several numbers separated by commas, `mean` or `sweep`."""
    if text in ("mean", "sweep"):
        return text
    numbers = [int(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def truth(text: str) -> bool:
    """Parse `yes` or `no`."""
    return one_of("yes", "no")(text) == "yes"


RATE = Option(whole(1), "the sample rate in Hz that the model takes, such as 16000")
SHORT_CLIPS = Option(one_of(*SHORT), "what to do with clips that are too short: refuse (the default), repeat or pad")
LAYER = Option(layer, "the number of a layer (-1 is the last), several separated by commas, mean, or sweep")
POOL = Option(one_of(*POOLS), f"one of {', '.join(POOLS)}")
