"""The results on real recordings: who is trained on and who is tested."""

import csv

import numpy as np

from benchmarks.results import split, table
from ssl_audio import audio
from ssl_audio.evaluation.recordings import find_recordings


def collection(root, singers, recordings):
    """`root/voices/set/<singer>/<n>.wav` of one or more recordings, and the manifest."""
    rows = []
    for i in range(singers):
        for n in range(2):
            path = root / "voices" / "set" / f"s{i}" / f"{n}.wav"
            audio.write(path, 0.1 * np.random.default_rng(i).standard_normal(1600).astype(np.float32), 16000)
            take = n if i < recordings else 0
            rows.append({"path": f"set/s{i}/{n}.wav", "speaker": f"set:s{i}", "utterance": f'take, "{take}"'})
    with open(root / "voices" / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "speaker", "utterance"])
        writer.writeheader()
        writer.writerows(rows)


def test_singers_are_split_by_the_seed_and_recordings_stay_known(tmp_path):
    collection(tmp_path, singers=12, recordings=4)
    parts = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"split-{len(parts)}"
        split(tmp_path, folder, seed)
        parts.append([{path.name for path in (folder / part / "set").iterdir()} for part in ("train", "test")])
        assert not parts[-1][0] & parts[-1][1] and len(parts[-1][0] | parts[-1][1]) == 12
        assert len(parts[-1][1] & {f"s{i}" for i in range(4)}) == 2  # half of those with several recordings
        assert len(parts[-1][1]) == 2 + 2  # and a quarter of the others
    assert parts[0] == parts[1] != parts[2]
    tested = find_recordings(tmp_path / "split-0" / "test" / "set")
    takes = [
        len({take for take, s in zip(tested.recording, tested.singers, strict=True) if s == n})
        for n in set(tested.singers)
    ]
    assert sorted(takes) == [1, 1, 2, 2]


def test_a_table_shows_mean_and_spread_and_leaves_out_what_is_missing():
    found = [{"pesnq": {"raw": 0.1, "z": 0.2}}, {"pesnq": {"raw": 0.3, "z": 0.2}}]
    text = table({"ours": found, "nothing": []})
    assert "| ours | raw | 0.200 ± 0.141 |" in text and "| ours | z | 0.200 ± 0.000 |" in text
    assert "nothing" not in text and "librispeech" not in text
