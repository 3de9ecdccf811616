"""Shards: what was written is what is read, each recording once, by any number of processes, within the budget."""

import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
import torch.multiprocessing
from helpers import needed

from ssl_audio.cli import main
from ssl_audio.data import AudioDataModule
from ssl_audio.data.dataset import TwoViewDataset
from ssl_audio.data.sharded import ShardDataModule
from ssl_audio.data.shards import ShardSet
from ssl_audio.data.sources.shards import ShardSampler
from ssl_audio.errors import InputError
from ssl_audio.training.config import load_config

webdataset = needed("webdataset")

SETTINGS = {"sample_rate": 16000, "nr_samples": 6000, "batch_size": 4, "num_workers": 0, "eval_frac": 0.2}


@pytest.fixture
def shards(singers, tmp_path):
    folder = tmp_path / "shards"
    words = ["--output", str(folder), "--sample_rate", "16000", "--shard_mb", ".1"]  # three recordings a shard
    assert main(["shard", str(singers), *words]) == 0
    return folder


def test_training_from_shards_equals_training_from_the_files(singers, shards):
    """Same seed, same draws: 16 bit recordings at the same rate are stored exactly."""
    plain, sharded = AudioDataModule([str(singers)], **SETTINGS), ShardDataModule(str(shards), **SETTINGS)
    for data in (plain, sharded):
        data.setup()
    assert [g.name for g in sharded.train_groups] == [g.name for g in plain.train_groups]
    count = 0
    for ours, theirs in zip(sharded.train_dataloader(), plain.train_dataloader(), strict=True):
        for key in ("clip1", "clip2", "index"):
            assert torch.equal(ours[key], theirs[key])
        assert ours["group_name"] == theirs["group_name"] and not ours["failures"]
        count += 1
    assert count == 4


def test_any_webdataset_pipeline_reads_the_shards(singers, shards):
    paths = sorted(map(str, shards.glob("*.tar")))
    assert len(paths) > 5
    seen = {}
    for sample in webdataset.WebDataset(paths, shardshuffle=False).decode():
        seen[sample["json"]["path"]] = sample["npy"] * np.float32(sample["json"]["scale"])
    assert len(seen) == 20
    for path, audio in seen.items():
        assert np.array_equal(audio, soundfile.read(singers / path, dtype="float32")[0])


@pytest.mark.parametrize("budget", [None, 250_000])
def test_each_recording_comes_once_over_all_ranks_and_epochs_differ(shards, budget):
    found = ShardSet(str(shards))
    dataset = TwoViewDataset(found.index().groups, 6000, 16000, 0, "sample_clips", 2, open=found.open)
    home = [entry.location.shard for entry in dataset.entries]
    orders = []
    for epoch in range(2):
        drawn = []
        for rank in range(2):
            sampler = ShardSampler(dataset, found, budget, batch_size=5, seed=7, num_replicas=2, rank=rank)
            sampler.set_epoch(epoch)
            drawn.append([draw.item for draw in sampler])
        orders.append([item for pair in zip(*drawn, strict=True) for item in pair])
        assert sorted(orders[-1]) == list(range(40))
        visits = [item // 2 for item in orders[-1]]
        assert sorted(visits[:20]) == list(range(20)), "a repetition visits each recording once"
        if budget:  # two shards at a time: no shard comes back after its window
            starts = [i for i, item in enumerate(visits[:20]) if home[item] not in {home[v] for v in visits[:i]}]
            for shard in set(home):
                places = [i for i in range(20) if home[visits[i]] == shard]
                assert places[-1] - places[0] < 6
            assert len(starts) == len(set(home))
    assert orders[0] != orders[1]


def test_an_address_is_fetched_into_a_cache_that_keeps_to_its_room(shards, tmp_path):
    cache, room = tmp_path / "cache", 250_000
    data = ShardDataModule(f"pipe:cat {shards}/{{}}", cache=str(cache), cache_bytes=room, **SETTINGS)
    data.setup()
    seen = []
    for batch in data.train_dataloader():
        seen += batch["index"].tolist()
        assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= room
    assert sorted(seen) == list(range(16))
    with pytest.raises(InputError, match="the key cache is missing"):
        ShardDataModule(f"pipe:cat {shards}/{{}}", **SETTINGS).setup()
    with pytest.raises(InputError, match="cannot be fetched"):
        ShardDataModule("pipe:cat /no/such/folder/{}", cache=str(cache), **SETTINGS).setup()
    with pytest.raises(InputError, match=r"cache_bytes is 100000, and half .* at least \d{6}, or write smaller"):
        ShardDataModule(f"pipe:cat {shards}/{{}}", cache=str(cache), cache_bytes=100_000, **SETTINGS).setup()


def test_shards_that_are_missing_cut_short_or_of_another_rate_are_named(shards, singers, capsys):
    with pytest.raises(InputError, match=r"data\.sample_rate is 8000 and the shards .* are at 16000 Hz"):
        ShardDataModule(str(shards), **{**SETTINGS, "sample_rate": 8000}).setup()
    assert main(["shard", str(singers), "--output", str(shards)]) == 2
    assert "holds shards already" in capsys.readouterr().err
    victim = sorted(shards.glob("*.tar"))[1]
    victim.write_bytes(victim.read_bytes()[:-600])
    with pytest.raises(InputError, match=f"the shard .*{victim.name} is missing or cut short"):
        ShardDataModule(str(shards), **SETTINGS).setup()
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(InputError, match="of version 99"):
        ShardDataModule(str(shards), **SETTINGS).setup()
    for other in ([], {"version": 1}):  # another program's index.json
        (shards / "index.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=r"index\.json is no index of shards"):
            ShardDataModule(str(shards), **SETTINGS).setup()


def test_the_config_keeps_the_augmentation_that_folders_have():
    both = [load_config(["common", *more, "contrastive"]) for more in (["data/folder"], ["data/shards"])]
    chains = [(c["data"]["init_args"]["augmentation"], c["model"]["init_args"]["augmentation"]) for c in both]
    assert chains[0] == chains[1] and chains[0][0] is not None
    in_batches = load_config(["common", "data/shards", "contrastive", "augmentation/device"])
    assert in_batches["data"]["init_args"]["augmentation"] is None


def rank_says(rank: int, folders: list[str], store: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        ShardDataModule(folders[rank], **SETTINGS).setup()
        results.put("nothing")
    except InputError as error:
        results.put(str(error))
    torch.distributed.destroy_process_group()


def test_a_shard_that_one_rank_lacks_stops_all_of_them(shards, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(shards, other)
    gone = sorted(other.glob("*.tar"))[0]
    gone.unlink()
    results = torch.multiprocessing.get_context("fork").SimpleQueue()
    arguments = ([str(shards), str(other)], str(tmp_path / "store"), results)
    torch.multiprocessing.start_processes(rank_says, arguments, nprocs=2, start_method="fork", daemon=True)
    for _ in range(2):
        assert results.get() == f"process 1: the shard {gone} is missing or cut short; copy the shards again"


def test_tar_members_lie_where_the_index_says(shards):
    index = json.loads((shards / "index.json").read_text())
    for facts in index["recordings"]:
        with tarfile.open(shards / index["shards"][facts["shard"]]["name"]) as tar:
            ends = [member.offset_data + member.size for member in tar if member.name.endswith(".npy")]
        assert facts["start"] + 2 * facts["samples"] in ends


def test_many_who_make_room_at_once_neither_fail_nor_take_more(shards, tmp_path):
    cache, room = tmp_path / "cache", 250_000

    def read_all(seed):
        found = ShardSet(f"pipe:cat {shards}/{{}}", str(cache), room)
        entries = [entry for group in found.index().groups for entry in group.entries]
        for i in np.random.default_rng(seed).permutation(len(entries)):
            with found.open(entries[i]) as recording:
                assert len(recording.read(0, 100, 16000)) == 100

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read_all, range(12)))
    read_all(0)  # what six fetch in one moment may be more than there is room for; the next takes it away
    assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= room


@pytest.mark.parametrize("size", ["nan", "inf", "0"])
def test_a_size_that_is_none_is_refused(singers, tmp_path, capsys, size):
    assert main(["shard", str(singers), "--output", str(tmp_path / "s"), "--shard_mb", size]) == 2
    assert "--shard_mb" in capsys.readouterr().err
