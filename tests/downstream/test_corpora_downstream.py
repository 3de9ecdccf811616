"""Readers of the corpora of sounds and speech, on small trees in their true format."""

import json
from collections import Counter

import pytest

from ssl_audio.data.corpora import (
    CORPORA,
    esc,
    fsd50k,
    iemocap,
    load,
    nsynth,
    ravdess,
    speech_commands,
    urbansound8k,
    voxceleb,
    voxforge,
)
from ssl_audio.errors import InputError
from ssl_audio.training.config import load_config
from ssl_audio.utils.packaged import packaged


def put(path, content="audio"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def splits(corpus):
    return {track.id: track.split for track in corpus.tracks}


def by_id(corpus):
    return {track.id: track for track in corpus.tracks}


ESC = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
1-100032-B-0.wav,1,0,dog,True,100032,B
2-100038-A-14.wav,2,14,chirping_birds,False,100038,A
3-100210-A-36.wav,3,36,vacuum_cleaner,False,100210,A
4-101296-A-10.wav,4,10,rain,True,101296,A
5-101404-A-10.wav,5,10,rain,True,101404,A
"""


def test_esc_in_its_own_layout(tmp_path):
    put(tmp_path / "meta" / "esc50.csv", ESC)
    for line in ESC.splitlines()[1:]:
        put(tmp_path / "audio" / line.split(",")[0])
    corpus = esc.read(tmp_path)
    assert len(corpus.tracks) == 6 and len(corpus.label_names) == 4
    track = by_id(corpus)["1-100032-B-0"]
    assert (track.labels, track.group, track.fold) == (("dog",), "100032", "1")
    assert splits(corpus)["5-101404-A-10"] == "test" and splits(corpus)["4-101296-A-10"] == "valid"
    first = splits(esc.read(tmp_path, fold=1))
    assert (
        first["1-100032-A-0"] == "test" and first["5-101404-A-10"] == "valid"
    )  # the fold before the first is the last
    ten = load("esc10", tmp_path)
    assert ten.label_names == ("dog", "rain") and len(ten.tracks) == 4
    with pytest.raises(InputError, match="no fold '6' to test; there are 1, 2, 3, 4, 5"):
        esc.read(tmp_path, fold=6)
    (tmp_path / "audio" / "3-100210-A-36.wav").unlink()
    with pytest.raises(InputError, match=r"ESC-50: 1 of 6 audio files.*3-100210-A-36\.wav"):
        esc.read(tmp_path)
    assert esc.read(tmp_path, missing="skip").left_out == ("3-100210-A-36",)
    with pytest.raises(InputError, match=r"meta/esc50\.csv \(from https.*; .*audio \(from"):
        esc.read(tmp_path / "nowhere")


def test_urbansound8k(tmp_path):
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    rows = [
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
        "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing",
    ]
    put(tmp_path / "metadata" / "UrbanSound8K.csv", header + "\n".join(rows))
    put(tmp_path / "audio" / "fold5" / "100032-3-0-0.wav")
    put(tmp_path / "audio" / "fold10" / "100263-2-0-117.wav")
    corpus = urbansound8k.read(tmp_path)
    assert by_id(corpus)["100263-2-0-117"].split == "test" and by_id(corpus)["100032-3-0-0"].fold == "5"
    assert corpus.label_names == ("children_playing", "dog_bark") and by_id(corpus)["100032-3-0-0"].group == "100032"
    put(tmp_path / "metadata" / "UrbanSound8K.csv", header + "100032-3-0-0.wav,100032\n")
    with pytest.raises(InputError, match="line 2: is cut short"):
        urbansound8k.read(tmp_path)
    put(tmp_path / "metadata" / "UrbanSound8K.csv", "file,fold\n")
    with pytest.raises(InputError, match="no column slice_file_name, fsID, class"):
        urbansound8k.read(tmp_path)


def test_nsynth(tmp_path):
    names = {
        "train": "bass_synthetic_033-022-050",
        "valid": "guitar_acoustic_001-082-050",
        "test": "vocal_acoustic_000-060-025",
    }
    for split, name in names.items():
        family = name.split("_")[0]
        note = {
            "instrument_family_str": family,
            "instrument_str": name.split("-")[0],
            "pitch": 22,
            "instrument_family": 0,
        }
        put(tmp_path / f"nsynth-{split}" / "examples.json", json.dumps({name: note}))
        put(tmp_path / f"nsynth-{split}" / "audio" / f"{name}.wav")
    corpus = nsynth.read(tmp_path)
    assert {split: next(t.id for t in corpus.split(split)) for split in names} == names
    assert len(corpus.label_names) == 11 and by_id(corpus)[names["valid"]].group == "guitar_acoustic_001"
    put(tmp_path / "nsynth-test" / "examples.json", json.dumps({"a": {"pitch": 1}}))
    with pytest.raises(InputError, match="is not NSynth's list of notes"):
        nsynth.read(tmp_path)


def test_ravdess_parts_actors(tmp_path):
    for actor in range(1, 25):
        for emotion in range(1, 9):
            put(tmp_path / f"Actor_{actor:02d}" / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav")
        put(tmp_path / f"Actor_{actor:02d}" / f"03-02-03-01-01-01-{actor:02d}.wav")
    corpus = ravdess.read(tmp_path)
    assert len(corpus.tracks) == 192 and set(corpus.label_names) == set(ravdess.EMOTIONS)
    assert by_id(corpus)["03-01-06-01-01-01-12"].labels == ("fearful",)
    homes = {}
    for track in corpus.tracks:
        assert homes.setdefault(track.group, track.fold) == track.fold
    assert sorted(Counter(homes.values()).values()) == [4, 5, 5, 5, 5]  # each actor in one fold
    assert ravdess.read(tmp_path, channel="song").label_names == ("happy",)
    put(tmp_path / "Actor_01" / "take.wav")
    with pytest.raises(InputError, match=r"take\.wav: is not named"):
        ravdess.read(tmp_path)


def test_speech_commands(tmp_path):
    for name in ("yes/0a7c2a8d_nohash_0", "yes/0a7c2a8d_nohash_1", "no/1b4c9b89_nohash_0", "no/ff21fb59_nohash_0"):
        put(tmp_path / f"{name}.wav")
    put(tmp_path / "_background_noise_" / "white_noise.wav")
    put(tmp_path / "validation_list.txt", "no/1b4c9b89_nohash_0.wav\n")
    put(tmp_path / "testing_list.txt", "no/ff21fb59_nohash_0.wav\n")
    corpus = speech_commands.read(tmp_path)
    assert corpus.label_names == ("no", "yes") and len(corpus.tracks) == 4
    assert [len(corpus.split(name)) for name in ("train", "valid", "test")] == [2, 1, 1]
    assert {track.group for track in corpus.split("train")} == {"0a7c2a8d"}
    put(tmp_path / "testing_list.txt", "no/gone_nohash_0.wav\n")
    with pytest.raises(InputError, match=r"names no/gone_nohash_0\.wav, which is not there"):
        speech_commands.read(tmp_path)


def test_voxceleb1_identification(tmp_path):
    lines = ["1 id10001/1zcIwhmdeo4/00001.wav", "2 id10001/utrA-v8pPm4/00001.wav", "3 id10002/0_laIeN-Q44/00001.wav"]
    put(tmp_path / "iden_split.txt", "\n".join(lines))
    for line in lines:
        put(tmp_path / "wav" / line[2:])
    corpus = voxceleb.read(tmp_path)
    assert list(splits(corpus).values()) == ["train", "valid", "test"] and corpus.label_names == ("id10001", "id10002")
    assert corpus.tracks[0].group == "id10001/1zcIwhmdeo4"
    put(tmp_path / "iden_split.txt", "4 id10001/a/b.wav")
    with pytest.raises(InputError, match="line 1: '4 id10001"):
        voxceleb.read(tmp_path)


def test_voxceleb1_verification_tests_the_40_speakers_of_the_list_o(tmp_path):
    for name in ("id10001/1zcIwhmdeo4/00001.wav", "id10270/x6uYqmx31kE/00001.wav", "id10310/a/1.wav"):
        put(tmp_path / "wav" / name)
    corpus = voxceleb.read(tmp_path, split="verification")
    assert [track.group for track in corpus.split("test")] == ["id10270"] and len(corpus.split("train")) == 2
    assert len(voxceleb.TESTED) == 40
    with pytest.raises(InputError, match="no split"):
        voxceleb.read(tmp_path, split="e")


def test_trees_of_speakers(tmp_path):
    names = ("dev/wav/id00012/video/00001.wav", "dev/wav/id00013/v/1.wav", "test/wav/id00017/v/00001.flac")
    for name in names:
        put(tmp_path / "vox2" / name)
    corpus = load("voxceleb2", tmp_path / "vox2")
    assert list(splits(corpus).values()) == ["train", "train", "test"] and corpus.name == "VoxCeleb2"
    assert corpus.label_names == ("id00012", "id00013", "id00017")
    for speaker in range(10):
        put(tmp_path / "blink" / f"s{speaker}" / "video" / "a.wav")
    corpus = load("speakers", tmp_path / "blink", fractions=[0.5, 0.5, 0])
    assert len(corpus.split("train")) == len(corpus.split("valid")) == 5
    put(tmp_path / "blink" / "loose.wav")
    with pytest.raises(InputError, match=r"loose.wav: lies in no speaker's folder"):
        load("speakers", tmp_path / "blink")


def test_cn_celeb_trains_on_the_listed_speakers(tmp_path):
    put(tmp_path / "dev" / "dev.lst", "id00000\n")
    for name in ("id00000/singing-01-001.flac", "id00001/live_broadcast-02-003.flac"):
        put(tmp_path / "data" / name)
    corpus = load("cnceleb", tmp_path)
    assert [(t.group, t.split) for t in corpus.tracks] == [("id00000", "train"), ("id00001", "test")]
    assert load("cnceleb", tmp_path, label="genre").label_names == ("live_broadcast", "singing")
    put(tmp_path / "data" / "id00001" / "song.flac")
    with pytest.raises(InputError, match=r"song.flac: is not data"):
        load("cnceleb", tmp_path)


def test_voxforge_parts_speakers(tmp_path):
    for language in ("de", "en"):
        for speaker in range(10):
            for session in ("20080320-abc", "20090101-xyz"):
                put(tmp_path / language / f"user{speaker}-{session}" / "wav" / f"{language}5-01.wav")
        for code in ("aaa", "bbb"):
            put(tmp_path / language / f"anonymous-20080320-{code}" / "wav" / "a.wav")
    corpus = voxforge.read(tmp_path, languages=["de", "en"])
    assert len(corpus.tracks) == 44 and corpus == voxforge.read(tmp_path, languages=["de", "en"])
    assert {track.labels for track in voxforge.read(tmp_path, languages="de").tracks} == {("de",)}
    assert corpus.artist_filtered() == corpus and len({track.group for track in corpus.tracks}) == 24
    counts = {name: Counter(t.labels[0] for t in corpus.split(name)) for name in ("train", "valid", "test")}
    assert all(count["de"] and count["en"] for count in counts.values())
    with pytest.raises(InputError, match=r"es \(from .*; .*fr \(from .*; .*it \(from .*; .*ru \(from"):
        voxforge.read(tmp_path)


def test_iemocap(tmp_path):
    for session in range(1, 6):
        dialog, base = f"Ses0{session}F_impro01", tmp_path / f"Session{session}"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for turn, emotion in (("F000", "neu"), ("M000", "exc"), ("F001", "xxx")):
            lines.append(f"[6.2901 - 8.2357]\t{dialog}_{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]")
            lines.append("C-E2:\tNeutral;\t()")
            put(base / "sentences" / "wav" / dialog / f"{dialog}_{turn}.wav")
        put(base / "dialog" / "EmoEvaluation" / f"{dialog}.txt", "\n".join(lines))
    corpus = iemocap.read(tmp_path)
    assert len(corpus.tracks) == 10 and corpus.label_names == ("angry", "happy", "neutral", "sad")
    track = by_id(corpus)["Ses03F_impro01_M000"]
    assert (track.labels, track.group, track.fold) == (("happy",), "Session3M", "3")
    everything = iemocap.read(tmp_path, emotions="all", fold=1)
    assert len(everything.label_names) == 11 and len(everything.split("test")) == 3
    with pytest.raises(InputError, match="emotions four and all"):
        iemocap.read(tmp_path, emotions="five")


def test_fsd50k(tmp_path):
    truth = tmp_path / "FSD50K.ground_truth"
    put(truth / "vocabulary.csv", "0,Accordion,/m/0mkg\n1,Acoustic_guitar,/m/042v_gx\n2,Music,/m/04rlf\n")
    dev = ["fname,labels,mids,split", '64760,"Accordion,Music","/m/0mkg,/m/04rlf",train', "16399,Music,/m/04rlf,val"]
    put(truth / "dev.csv", "\n".join(dev))
    put(truth / "eval.csv", 'fname,labels,mids\n37199,"Acoustic_guitar,Music","/m/042v_gx,/m/04rlf"\n')
    for name in ("dev_audio/64760", "dev_audio/16399", "eval_audio/37199"):
        put(tmp_path / f"FSD50K.{name}.wav")
    corpus = fsd50k.read(tmp_path)
    assert splits(corpus) == {"64760": "train", "16399": "valid", "37199": "test"} and corpus.multi_label
    assert corpus.targets(corpus.split("test")).tolist() == [[0, 1, 1]]
    put(truth / "eval.csv", "fname,labels,mids\n37199,Bagpipe,/m/x\n")
    with pytest.raises(InputError, match=r"37199: vocabulary\.csv has no Bagpipe"):
        fsd50k.read(tmp_path)


def test_a_random_split_is_stratified_seeded_and_says_so(tmp_path):
    for label in ("a", "b"):
        for i in range(20):
            put(tmp_path / label / f"{i}.wav")
    corpus = load("folder", tmp_path, random_split=777)
    assert corpus.split_name == "random 75%/25%, seed 777"
    assert Counter(track.labels[0] for track in corpus.split("test")) == {"a": 5, "b": 5}
    assert not corpus.split("valid") and load("folder", tmp_path, random_split=777) == corpus
    assert splits(load("folder", tmp_path, random_split=1)) != splits(corpus)


def test_every_corpus_has_a_config_that_names_its_files_and_where_to_get_them():
    folder = packaged("train_configs")
    for name in CORPORA:
        if name in ("folder", "musicnet"):  # musicnet has windows of its own
            continue
        path = folder / "data" / f"{name}.yaml"
        comments = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert "Files in the folder" in comments and ("http" in comments or name == "msd"), name
        data = load_config(["common", "clmr", f"data/{name}"])["data"]["init_args"]
        assert data["corpus"]["name"] == name and data["sample_rate"] == 22050  # the method's rate stays
        options = {key: value for key, value in data["corpus"].items() if key != "name"}
        with pytest.raises(InputError) as missing:
            load(name, "nowhere", **options)
        assert "nowhere" in str(missing.value) and "\n" not in str(missing.value)
