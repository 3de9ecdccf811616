"""Loading: values are checked when they are given, and a loader does what they say."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_audio.data.loading import Loading, identity
from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.errors import InputError


class Numbers(Dataset):
    """Item n is n; whole batches are lists."""

    def __len__(self) -> int:
        return 10

    def __getitems__(self, draws: list[Draw]) -> dict[str, Any]:
        return {"numbers": [draw.item for draw in draws]}


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 0), ("prefetch_factor", 0), ("seed", -1), ("num_workers", -1)]
)
def test_a_value_that_cannot_be_is_refused_by_its_key(key: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"^data\.{key} is {value}; it must ") as caught:
        Loading(**{"batch_size": 1, key: value})
    assert "\n" not in str(caught.value)


def loader_of(loading: Loading) -> DataLoader:
    numbers = Numbers()
    return loading.loader(numbers, EpochSampler(numbers, loading.batch_size, seed=0), identity)


def test_batches_come_in_the_order_of_the_sampler_and_torchs_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches = [batch["numbers"] for batch in loader_of(Loading(3, num_workers=0))]
    order = [draw.item for draw in EpochSampler(Numbers(), 3, seed=0)]
    assert batches == [order[:3], order[3:6], order[6:9]]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_has_the_given_settings() -> None:
    loader = loader_of(Loading(2, num_workers=1, prefetch_factor=5, pin_memory=False))
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (2, 1, 5, False)
    assert loader.persistent_workers and loader.drop_last
    plain = loader_of(Loading(2, num_workers=0))
    assert plain.prefetch_factor is None and plain.pin_memory == torch.cuda.is_available()


def test_workers_are_at_most_as_many_as_batches() -> None:
    assert Loading(1, "auto").workers(steps=1, processes=1) == 1
    assert Loading(1, 3).workers(steps=1, processes=1) == 3  # as asked for
    assert 1 <= Loading(1, "auto").workers(steps=1000, processes=1) <= 16
