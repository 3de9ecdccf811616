"""Every corpus on a small tree in its true format; audio files are only looked for, so a byte is enough."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import skip_without

from ssl_audio.data.corpora import Corpus, Track, fma, folder, gtzan, librispeech, magnatagatune, msd
from ssl_audio.errors import InputError


def put(path: Path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def by_id(corpus):
    return {track.id: track for track in corpus.tracks}


# --- MagnaTagATune

CLIPS = {  # id -> (path, split of Pons, tags)
    "2": ("f/bach_soloists-solo_cantatas-01-aria-30-59.mp3", "train", {"classical", "violin"}),
    "6": ("f/bach_soloists-solo_cantatas-01-aria-146-175.mp3", "train", set()),
    "14": ("c/lvx_nova-lvx_nova-01-contimune-30-59.mp3", "val", {"techno"}),
    "35": ("e/the_headroom_project-jetuton-01-linda-0-29.mp3", "test", {"no vocals", "choral"}),
}


@pytest.fixture
def mtat(tmp_path):
    tags = magnatagatune.PONS_TAGS
    for path, _, _ in CLIPS.values():
        put(tmp_path / path)
    for split in ("train", "val", "test"):
        lines = [
            f"{clip}\t{[float(tag in chosen) for tag in tags]}"
            for clip, (_, part, chosen) in CLIPS.items()
            if part == split
        ]
        put(tmp_path / f"{split}_gt_mtt.tsv", "\n".join(lines) + "\n")
    put(tmp_path / "index_mtt.tsv", "".join(f"{clip}\t{path}\n" for clip, (path, _, _) in CLIPS.items()))
    # the other split: another order of tags, rows of a matrix, other spellings
    other = np.array([tag.title().replace(" ", "")[::-1] for tag in reversed(tags)])
    np.save(tmp_path / "tags.npy", other)
    rows = [[tag in chosen for tag in reversed(tags)] for _, _, chosen in CLIPS.values()]
    np.save(tmp_path / "binary.npy", np.array(rows).astype(int))
    for split, numbers in {"train": [0], "valid": [3], "test": [2]}.items():
        np.save(tmp_path / f"{split}.npy", np.array([f"{i}\t{list(CLIPS.values())[i][0]}" for i in numbers]))
    header = ["clip_id", *tags[:20], "rare tag", *tags[20:], "mp3_path"]
    lines = [
        [clip, *(str(int(tag in chosen)) for tag in header[1:-1]), path] for clip, (path, _, chosen) in CLIPS.items()
    ]
    put(
        tmp_path / "annotations_final.csv",
        "".join("\t".join(f'"{v}"' for v in line) + "\n" for line in [header, *lines]),
    )
    return tmp_path


def test_magnatagatune_by_pons(mtat):
    corpus = magnatagatune.read(mtat)
    assert [track.id for track in corpus.split("train")] == ["2", "6"]
    assert [track.id for track in corpus.split("valid")] == ["14"] and corpus.multi_label
    track = by_id(corpus)["2"]
    assert set(track.labels) == {"classical", "violin"} and track.group == "bach_soloists" and track.path.is_file()
    targets = corpus.targets(corpus.split("test"))
    assert targets.shape == (1, 50) and targets.sum() == 2
    assert targets[0, [corpus.label_names.index(tag) for tag in ("no vocals", "choral")]].tolist() == [1, 1]


def test_magnatagatune_by_minzwon_has_its_own_clips_and_order_of_tags(mtat):
    corpus = magnatagatune.read(mtat, split="minzwon")
    assert corpus.split_name == "minzwon" and corpus.label_names[0] == "Choral"[::-1]
    assert {track.path.name[:3]: track.split for track in corpus.tracks} == {
        "bac": "train",
        "the": "valid",
        "lvx": "test",
    }
    assert by_id(corpus)["3"].labels == ("Choral"[::-1], "NoVocals"[::-1])


def test_magnatagatune_by_folders_takes_the_most_frequent_tags(mtat):
    corpus = magnatagatune.read(mtat, split="folders")
    assert len(corpus.label_names) == 50 and "choral" in corpus.label_names
    assert {track.id: track.split for track in corpus.tracks} == {"2": "test", "6": "test", "14": "valid", "35": "test"}
    assert set(by_id(corpus)["35"].labels) == {"no vocals", "choral"}


def test_magnatagatune_names_every_missing_file_and_refuses_what_does_not_fit(mtat):
    with pytest.raises(InputError, match="no split 'both'"):
        magnatagatune.read(mtat, split="both")
    (mtat / "index_mtt.tsv").rename(mtat / "kept")
    (mtat / "val_gt_mtt.tsv").unlink()
    with pytest.raises(InputError, match=r"val_gt_mtt\.tsv \(from https.*index_mtt\.tsv \(from") as error:
        magnatagatune.read(mtat)
    assert "\n" not in str(error.value)
    put(mtat / "val_gt_mtt.tsv", f"99\t{[0] * 50}\n")
    (mtat / "kept").rename(mtat / "index_mtt.tsv")
    with pytest.raises(InputError, match="clip 99: is not in"):
        magnatagatune.read(mtat)
    put(mtat / "val_gt_mtt.tsv", f"14\t{[0] * 49}\n")
    with pytest.raises(InputError, match="clip 14: expected 50 values"):
        magnatagatune.read(mtat)
    put(mtat / "val_gt_mtt.tsv", f"2\t{[0] * 50}\n")
    with pytest.raises(InputError, match="listed twice"):
        magnatagatune.read(mtat)
    put(mtat / "val_gt_mtt.tsv", "14\t__import__('os').getcwd()\n")
    with pytest.raises(InputError, match="not a list"):
        magnatagatune.read(mtat)
    np.save(mtat / "tags.npy", np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"tags\.npy: is not a plain numpy array"):
        magnatagatune.read(mtat, split="minzwon")


def test_missing_and_empty_audio_is_refused_or_left_out_and_counted(mtat):
    (mtat / CLIPS["2"][0]).write_bytes(b"")
    (mtat / CLIPS["35"][0]).unlink()
    with pytest.raises(InputError, match=r"2 of 4 audio files are missing.*unpack.*--option missing=skip"):
        magnatagatune.read(mtat)
    corpus = magnatagatune.read(mtat, missing="skip")
    assert set(corpus.left_out) == {"2", "35"} and len(corpus.tracks) == 2


# --- Million Song Dataset

MSD_TAGS = ["rock", "female vocalists", "00s"]


def make_msd(root, ids):
    lists = root / "processed_annotations"
    put(lists / "output_labels_msd.txt", f"# Output labels\nMSD_LABELS = {MSD_TAGS}\n\n")
    put(lists / "train_gt_msd.tsv", "TRAAAAK128F9318786\t[1, 0, 1]\nTRAAAAW128F429D538\t[0, 0, 0]\n")
    put(lists / "val_gt_msd.tsv", "TRYOGXX128F42483A6\t[0, 1, 0]\n")
    put(lists / "test_gt_msd.tsv", "TRZZRTG128F936184E\t[0, 0, 1]\n")
    (lists / "MSD_id_to_7D_id.pkl").write_bytes(ids)
    return root


MSD_IDS = {
    "TRAAAAK128F9318786": "7168862",
    "TRAAAAW128F429D538": "2168257",
    "TRYOGXX128F42483A6": "359581",
    "TRZZRTG128F936184E": "8",
    "unused": "1",
}


def test_million_song_dataset(tmp_path):
    root = make_msd(tmp_path, pickle.dumps(MSD_IDS, protocol=2))
    for place in ("7/1/7168862.clip.wav", "2/1/2168257.clip.mp3", "3/5/359581.clip.wav"):
        put(root / "preprocessed" / place)
    corpus = msd.read(root, missing="skip")
    assert corpus.label_names == tuple(MSD_TAGS) and corpus.left_out == ("TRZZRTG128F936184E",)
    assert by_id(corpus)["TRAAAAK128F9318786"].labels == ("rock", "00s")
    assert by_id(corpus)["TRAAAAW128F429D538"].path.name == "2168257.clip.mp3"
    assert [len(corpus.split(name)) for name in ("train", "valid", "test")] == [2, 1, 0]


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (marker,)

    with pytest.raises(InputError, match="not run"):
        msd.read(make_msd(tmp_path, pickle.dumps(Bomb())))
    assert not marker.exists()
    for content in (b"", b"\x80\x02}q\x00(U", pickle.dumps([1])):
        with pytest.raises(InputError, match="MSD_id_to_7D_id"):
            msd.read(make_msd(tmp_path, content))


# --- GTZAN, LibriSpeech, any folder


@pytest.mark.parametrize(("layout", "suffix"), [("genres", ".wav"), ("genres_original", ".wav"), (".", ".au")])
def test_gtzan(tmp_path, layout, suffix):
    put(tmp_path / "train_filtered.txt", "blues/blues.00029.wav\nrock/rock.00001.wav\n")
    put(tmp_path / "valid_filtered.txt", "blues.00000\n")
    put(tmp_path / "test_filtered.txt", "jazz/jazz.00002.wav")
    for name in ("blues/blues.00029", "rock/rock.00001", "blues/blues.00000", "jazz/jazz.00002", "jazz/jazz.00099"):
        put(tmp_path / layout / f"{name}{suffix}")
    corpus = gtzan.read(tmp_path)
    assert {track.id: track.split for track in corpus.tracks} == {
        "blues.00029": "train",
        "rock.00001": "train",
        "blues.00000": "valid",
        "jazz.00002": "test",
    }
    assert corpus.targets(corpus.split("test")).argmax() == gtzan.GENRES.index("jazz")
    put(tmp_path / "test_filtered.txt", "polka/polka.00002.wav")
    with pytest.raises(InputError, match="line 1: 'polka"):
        gtzan.read(tmp_path)


@pytest.fixture
def librispeech_root(tmp_path):
    names = ["train-clean-100/103-1240-0000", "train-clean-100/103-1240-0001", "train-clean-100/103-1241-0000"]
    names += ["train-clean-100/26-495-0000", "train-clean-100/26-496-0000", "train-clean-100/26-1000-0000"]
    names += ["train-clean-100/39-121-0000", "test-clean/61-70968-0000"]
    for name in names:
        subset, utterance = name.split("/")
        speaker, chapter, _ = utterance.split("-")
        put(tmp_path / subset / speaker / chapter / f"{utterance}.flac")
        put(tmp_path / subset / speaker / chapter / f"{speaker}-{chapter}.trans.txt")
    return tmp_path


def test_librispeech_by_subsets_shares_no_speaker(librispeech_root):
    corpus = librispeech.read(librispeech_root)
    assert len(corpus.tracks) == 8 and corpus.label_names == ("26", "39", "61", "103")
    assert {track.group for track in corpus.split("test")} == {"61"}
    assert corpus.artist_filtered() == corpus


def test_librispeech_by_chapters_keeps_recordings_together(librispeech_root):
    corpus = librispeech.read(librispeech_root, ["train-clean-100"], split="chapters")
    parts = {track.id: track.split for track in corpus.tracks}
    assert parts["103-1241-0000"] == "test" and parts["103-1240-0000"] == parts["103-1240-0001"] == "train"
    assert [parts[f"26-{chapter}-0000"] for chapter in (495, 496, 1000)] == ["train", "valid", "test"]  # by number
    assert parts["39-121-0000"] == "train"
    with pytest.raises(InputError, match=r"dev-clean \(from https://www.openslr.org/12, dev-clean.tar.gz\)"):
        librispeech.read(librispeech_root, ["dev-clean"])
    assert librispeech.read(librispeech_root, "train-clean-100", split="chapters") == corpus  # as on a command line


def test_librispeech_refuses_a_subset_whose_split_nothing_tells(librispeech_root):
    put(librispeech_root / "music" / "9" / "1" / "9-1-0000.flac")
    with pytest.raises(InputError, match="subset music is not train"):
        librispeech.read(librispeech_root, ["train-clean-100", "music"])
    assert len(librispeech.read(librispeech_root, "music", split="chapters").tracks) == 1


def test_any_folder_is_split_within_labels_by_whole_folders(tmp_path):
    for label in ("rock", "jazz"):
        for artist in range(10):
            for song in range(2):
                put(tmp_path / label / f"artist {artist}" / f"{song}.wav")
    put(tmp_path / "loose.wav")
    corpus = folder.read(tmp_path)
    assert corpus.label_names == ("jazz", "rock") and len(corpus.tracks) == 40
    counts = {name: [t.labels[0] for t in corpus.split(name)] for name in ("train", "valid", "test")}
    assert all(labels.count("rock") == labels.count("jazz") for labels in counts.values())
    assert [len(labels) for labels in counts.values()] == [32, 4, 4]
    assert corpus.artist_filtered() == corpus and folder.read(tmp_path) == corpus
    assert folder.read(tmp_path, seed=1) != corpus
    for fractions in ((0.5, 0.1, 0.1), 3, "0.8", ["a", 0, 0]):
        with pytest.raises(InputError, match="adding up to 1"):
            folder.read(tmp_path, fractions=fractions)


def test_real_folders_become_a_corpus(shared):
    root = shared / "data" / "music" / "notes"
    if not root.is_dir():
        skip_without("music recordings")
    corpus = folder.read(root, group="file")
    assert len(corpus.label_names) == 12 and len(corpus.tracks) == 288
    assert all(len({t.labels for t in corpus.split(name)}) == 12 for name in ("train", "valid", "test"))


# --- the Free Music Archive

GENRES = "genre_id,#tracks,parent,title,top_level\n12,32923,0,Rock,12\n21,12706,0,Hip-Hop,21\n25,9261,12,Punk,12\n"
COLUMNS = [("album", "id"), ("album", "title"), ("artist", "bio"), ("artist", "id"), ("artist", "name")]
COLUMNS += [("set", "split"), ("set", "subset"), ("track", "duration"), ("track", "genre_top"), ("track", "genres")]
COLUMNS += [("track", "genres_all"), ("track", "license"), ("track", "listens"), ("track", "title")]
CC = "Attribution-NonCommercial-ShareAlike 3.0 International"
TRACKS = [  # id, artist id, split, subset, seconds, top, all, licence, listens
    (2, 1, "training", "small", 168, "Hip-Hop", "[21]", CC, 1293),
    (5, 1, "training", "medium", 206, "Hip-Hop", "[21]", "Public Domain Mark 1.0", 1151),
    (10, 6, "validation", "small", 161, "Rock", "[25, 12]", CC, 50135),
    (141, 7, "test", "large", 20, "", "[25, 12, 21]", "CC0 1.0 Universal", 1593),
    (155000, 9, "test", "small", 30, "Rock", "[12]", "Public Domain", 3),
]


@pytest.fixture
def fma_root(tmp_path):
    import csv

    put(tmp_path / "fma_metadata" / "genres.csv", GENRES)
    with open(tmp_path / "fma_metadata" / "tracks.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(first for first, _ in COLUMNS)])
        writer.writerow(["", *(second for _, second in COLUMNS)])
        writer.writerow(["track_id", *[""] * len(COLUMNS)])
        for number, artist, split, subset, seconds, top, genres, license, listens in TRACKS:
            bio = 'A "long" one,\nover lines ' * 9000  # beyond csv's usual limit of a field
            row = [
                1,
                "Album",
                bio,
                artist,
                "Ärtist",
                split,
                subset,
                seconds,
                top,
                genres,
                genres,
                license,
                listens,
                "T",
            ]
            writer.writerow([number, *row])
            name = f"{number:06d}"
            put(tmp_path / "fma_large" / name[:3] / f"{name}.mp3")
            if subset == "small":
                put(tmp_path / "fma_small" / name[:3] / f"{name}.mp3")
    return tmp_path


def test_fma_official_splits_and_subsets(fma_root):
    corpus = fma.read(fma_root)
    assert {track.id: track.split for track in corpus.tracks} == {"2": "train", "10": "valid", "155000": "test"}
    assert corpus.label_names == ("Hip-Hop", "Rock") and not corpus.multi_label
    assert by_id(corpus)["155000"].path == fma_root / "fma_small" / "155" / "155000.mp3"
    assert by_id(corpus)["10"].group == "6"
    everything = fma.read(fma_root, subset="large", labels="all")
    assert len(everything.tracks) == 5
    assert by_id(everything)["10"].labels == ("Rock", "Punk")  # the top genre first
    assert set(by_id(everything)["141"].labels) == {"Punk", "Rock", "Hip-Hop"}
    assert len(fma.read(fma_root, subset="large").tracks) == 4  # no top genre, no label


def test_fma_filters(fma_root):
    free = fma.read(fma_root, subset="large", labels="all", licenses="public_domain")
    assert {track.id for track in free.tracks} == {"5", "141", "155000"}
    assert {t.id for t in fma.read(fma_root, licenses=lambda name: "ShareAlike" in name).tracks} == {"2", "10"}
    assert {t.id for t in fma.read(fma_root, min_listens=1000, min_seconds=165).tracks} == {"2"}
    assert fma.read(fma_root, subset="large", labels="all", genres=["Punk"]).label_names == ("Punk",)
    assert fma.read(fma_root, genres="Rock") == fma.read(fma_root, genres=["Rock"])
    with pytest.raises(InputError, match="no genre Polka"):
        fma.read(fma_root, genres=["Polka"])
    with pytest.raises(InputError, match="no track is left"):
        fma.read(fma_root, min_seconds=1e9)
    track = next(iter(fma.read_metadata(fma_root)))
    assert (track.artist, track.album, track.title, track.genres_all) == ("Ärtist", "Album", "T", (21,))


def test_fma_says_what_is_missing(fma_root, tmp_path):
    with pytest.raises(InputError, match=r"4 of 4 audio files are missing.*unpack fma_medium\.zip(?!.*missing=skip)"):
        fma.read(fma_root, subset="medium")
    with pytest.raises(InputError, match=r"tracks\.csv \(from .*fma_metadata\.zip\); .*genres\.csv"):
        fma.read(tmp_path / "nowhere")
    put(fma_root / "fma_metadata" / "tracks.csv", "a,b\n1,2\n3,4\n")
    with pytest.raises(InputError, match=r"tracks\.csv, track 3: cannot be read"):
        fma.read(fma_root)


# --- the common shape


def make_corpus(*tracks):
    return Corpus("test", "own", tuple(Track(i, Path(i), s, ("a",), g) for i, s, g in tracks), ("a", "b"), False)


def test_the_artist_filter_leaves_train_whole():
    corpus = make_corpus(
        ("1", "train", "x"), ("2", "valid", "x"), ("3", "valid", "y"), ("4", "test", "y"), ("5", "test", "x")
    )
    assert [track.id for track in corpus.artist_filtered().tracks] == ["1", "4"]


def test_targets_follow_a_models_order_by_name():
    corpus = make_corpus(("1", "train", "x"))
    assert corpus.targets(corpus.tracks).tolist() == [[1, 0]]
    assert corpus.targets(corpus.tracks, ["b", "a"]).tolist() == [[0, 1]]
    with pytest.raises(InputError, match="differ in: b, c"):
        corpus.targets(corpus.tracks, ["a", "c"])
    with pytest.raises(InputError, match="no split 'dev'"):
        corpus.split("dev")
