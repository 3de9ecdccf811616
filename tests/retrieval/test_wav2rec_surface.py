"""wav2rec's own program, with the import changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model

from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.frontends import DecibelMelSpectrogram
from ssl_audio.hub.saved import save_model
from ssl_audio.wav2rec import Wav2Rec, Wav2RecDataset


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    frontend = DecibelMelSpectrogram(sample_rate=22050, n_mels=48)
    save_model(tiny_model(24, (8, 16), frontend=frontend, sample_rate=22050), folder)
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory, write_tone):
    """wav2rec's fixture, three tones of 4 s, in two folders, and what must not be found or cannot be read."""
    folder = tmp_path_factory.mktemp("music")
    for name, pitch in {"a/440.wav": 440, "a/480.WAV": 480, "b/520.wav": 520}.items():
        write_tone(folder / name, seconds=4, sample_rate=22050, frequency=pitch)
    (folder / "notes.txt").write_text("not audio")
    return folder


def make_dataset(music, **options):
    return Wav2RecDataset(music, **({"ext": "wav", "duration": 2, "verbose": False} | options)).scan()


def test_the_readme_runs(music, model_path):
    MUSIC_PATH, MODEL_PATH = music, model_path
    my_dataset = Wav2RecDataset(MUSIC_PATH, ext="wav").scan()
    model = Wav2Rec(MODEL_PATH, verbose=False)
    model.fit(my_dataset)
    waveform = my_dataset.load_audio(Path(music / "a" / "440.wav"))
    metrics, paths = model.recommend(waveform, n=3)
    assert metrics.shape == paths.shape == (1, 3)
    assert Path(paths[0, 0]).name == "440.wav" and metrics[0, 0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(metrics[0]) <= 0).all() and set(paths[0]) == {str(path) for path in my_dataset.files}


def test_the_dataset(music):
    dataset = make_dataset(music, offset=0.5, duration=1.25)
    assert len(dataset) == 3 and dataset.n_features == round(1.25 * 22050)
    assert [Path(path).name for path, _ in dataset] == ["440.wav", "480.WAV", "520.wav"]
    path, clip = dataset[2]
    assert path.endswith("b/520.wav") and clip.dtype == torch.float32
    np.testing.assert_array_equal(clip, audio.read(path)[11025 : 11025 + dataset.n_features])

    long = make_dataset(music, duration=5)
    assert long[0][1].shape == (5 * 22050,) and (long[0][1][4 * 22050 :] == 0).all()
    assert make_dataset(music, duration=5, zero_pad=False)[0][1].shape == (4 * 22050,)
    assert len(make_dataset(music, ext=("mp3", ".wav"))) == 3
    with pytest.raises(OSError, match="mp3"):
        Wav2RecDataset(music).scan()


def test_get_audio_files_can_be_overridden(music):
    class OneArtist(Wav2RecDataset):
        def get_audio_files(self):
            return (path for path in super().get_audio_files() if path.parent.name == "a")

    assert len(OneArtist(music, ext="wav").scan()) == 2


def test_recommendations_equal_brute_force_for_batches_metrics_and_distances(music, model_path):
    dataset = make_dataset(music)
    batch = torch.stack([clip for _, clip in dataset])
    model = Wav2Rec(model_path, similarity_metric=None, verbose=False, batch_size=2, num_workers=1).fit(dataset)
    embeddings = model.get_projection(batch)
    assert embeddings.shape == (3, 24) and np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    distances, paths = model.recommend(batch, n=2)
    true = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    np.testing.assert_allclose(distances, np.sort(true, axis=1)[:, :2], atol=1e-3)
    assert paths[:, 0].tolist() == [str(path) for path in dataset.files]

    raw = Wav2Rec(model_path, normalize=False, similarity_metric=lambda a, b: float(np.abs(a - b).max()), verbose=False)
    values = raw.fit(dataset).get_projection(batch)
    metrics, paths = raw.recommend(batch[0], n=3)
    order = [[str(path) for path in dataset.files].index(path) for path in paths[0]]
    np.testing.assert_allclose(metrics[0], [np.abs(values[0] - values[i]).max() for i in order], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        ({"metric": "manhattan", "n_jobs": -1}, 1),
        ({"distance_metric": "cityblock", "algorithm": "ball_tree", "leaf_size": 2}, 1),
        ({"metric": "minkowski", "p": 3}, 3),
        ({"metric": "chebyshev"}, np.inf),
    ],
)
def test_arguments_of_nearest_neighbors_are_passed_on(music, model_path, arguments, order):
    dataset = make_dataset(music)
    model = Wav2Rec(model_path, similarity_metric=None, verbose=False, **arguments)
    assert not model.fitted and len(model.paths) == 0
    assert model.fit(dataset).fitted
    batch = torch.stack([clip for _, clip in dataset])
    embeddings = model.get_projection(batch)
    true = np.linalg.norm(embeddings[:, None] - embeddings[None], ord=order, axis=2)
    distances, paths = model.recommend(batch, n=3)
    np.testing.assert_allclose(distances, np.sort(true, axis=1), atol=1e-5)
    assert paths[:, 0].tolist() == [str(path) for path in dataset.files]


def test_a_dataset_of_another_rate_is_heard_right(music, model_path):
    full, low = (make_dataset(music, sr=rate) for rate in (22050, 16000))
    model = Wav2Rec(model_path, verbose=False).fit(low)
    _, paths = model.recommend(low[1][1], n=1)
    assert paths[0, 0].endswith("480.WAV")
    same = model.get_projection(low[1][1]) @ model.get_projection(full[1][1], sr=22050).T
    assert same[0, 0] > 0.99


def test_errors_are_those_of_the_original(music, model_path, tmp_path):
    model = Wav2Rec(model_path, verbose=False)
    clip = make_dataset(music)[0][1]
    with pytest.raises(AttributeError, match="not fitted"):
        model.recommend(clip)
    with pytest.raises(IndexError, match="shape"):
        model.get_projection(clip[None, None])
    model.fit(make_dataset(music))
    with pytest.raises(ValueError, match="between 1 and 3"):
        model.recommend(clip, n=4)
    with pytest.raises(InputError, match="distance_metric is 'nope'; it must be euclidean, cosine, or a metric"):
        Wav2Rec(model_path, distance_metric="nope")
    with pytest.raises(InputError, match="'p' parameter"):
        Wav2Rec(model_path, p=-1)
    with pytest.raises(TypeError, match="no argument neighbors"):
        Wav2Rec(model_path, neighbors=3)
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="left out.*broken"),
        pytest.raises(InputError, match="file of the data set"),
    ):
        model.fit(make_dataset(tmp_path))
