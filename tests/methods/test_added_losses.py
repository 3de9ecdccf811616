"""Losses that a config adds to those of a method."""

import pytest
import torch
from test_methods import clips, clips_for, make

from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.losses import alignment_loss
from ssl_audio.methods import CPC


def terms(method, views):
    return method.batch_objective({"clip1": views[0], "clip2": views[1]}).terms


def test_a_sum_equals_the_method_that_has_the_same_terms():
    views = clips()
    added = {"variance": {"weight": 25.0}, "covariance": {"weight": 100.0}}
    summed = terms(make("contrastive", losses=added), views)
    whole = terms(make("contrastive", variance_weight=25.0, covariance_weight=100.0), views)
    torch.testing.assert_close(summed["loss"], whole["loss"])
    torch.testing.assert_close(summed["added_covariance"], whole["covariance"])
    method = make("vicreg", losses={"alignment": {"weight": 0.5}, "uniformity": None})
    with torch.no_grad():
        z1, z2 = (torch.nn.functional.normalize(z, dim=1) for z in method.project(*views)[1])
    torch.testing.assert_close(
        terms(method, views)["loss"], terms(make("vicreg"), views)["loss"] + 0.5 * alignment_loss(z1, z2)
    )


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_methods_with_a_predictor_take_further_losses_on_their_projections(name):
    views = clips()
    plain, more = make(name), make(name, losses={"nt_xent": {"temperature": 0.2, "weight": 2.0}})
    found = terms(more, views)
    torch.testing.assert_close(found["loss"], terms(plain, views)["loss"] + 2.0 * found["added_nt_xent"])


def test_an_own_loss_is_an_import_path():
    own = {"mine": {"loss": "ssl_audio.losses.simsiam_loss", "weight": 3}}
    found = terms(make("contrastive", losses=own), clips())
    torch.testing.assert_close(found["loss"], found["own"] + 3 * found["added_mine"])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"alinment": {}}, r"model\.losses\.alinment is no loss; did you mean 'alignment'\?"),
        ({"nt_xent": {"temprature": 1}}, r"nt_xent\.temprature is not a key; did you mean 'temperature'\?"),
        ({"nt_xent": {"weight": "much"}}, r"nt_xent\.weight is 'much'; expected a number"),
        ({"nt_xent": 1.0}, r"nt_xent is 1\.0; write \{weight: 1\.0\}"),
        ({"mine": {"loss": "ssl_audio.losses.nothing_loss"}}, "has no 'nothing_loss'"),
    ],
)
def test_what_is_no_loss_is_one_line(losses, message):
    with pytest.raises(InputError, match=message):
        make("contrastive", losses=losses)


def test_cpc_trains_the_frames_of_any_encoder_with_a_context_of_its_own():
    torch.manual_seed(0)
    encoder = CompactCNN([8, 8], n_mels=32)
    method = CPC(steps=2, num_negatives=4, frontend=LogMelSpectrogram(16000, 512, 160, 32), encoder=encoder)
    state = {"clip1": torch.randn(3, 16000)}
    terms(method, torch.randn(2, 3, 16000))["loss"].backward()
    assert all(parameter.grad is not None for parameter in method.context_network.parameters())
    assert "context_network" not in str([*method.embedding_model().state_dict()])
    # a context frame must not see later frames: the state carries what was before
    latents = encoder.frames(method.features(state["clip1"]))
    whole, _ = method.context_network(latents)
    part, _ = method.context_network(latents[:, :4])
    torch.testing.assert_close(whole[:, :4], part)


def test_features_are_not_augmented_where_there_are_none():
    from ssl_audio.augmentations.features import BandMask

    method = make("contrastive", feature_augmentation=BandMask())
    assert isinstance(method.frontend, Waveform)
    with pytest.raises(InputError, match=r"feature_augmentation changes spectrograms, and Waveform gives samples"):
        method.check(4, clips_for("contrastive").shape[2])
