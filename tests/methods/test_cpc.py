import math

import numpy as np
import pytest
import torch
from helpers import TESTS
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio import encoders, frontends, heads
from ssl_audio.errors import InputError
from ssl_audio.losses import cpc_loss, sample_negatives
from ssl_audio.methods import CPC


def reference(predictions, latents, negatives, divide, exclude):
    """One candidate after the other, in float64."""
    steps, batch, positions, dim = predictions.shape
    frames = latents.shape[1]
    p, z = predictions.double().numpy(), latents.double().numpy().reshape(batch * frames, dim)
    losses, accuracies = [], []
    for k in range(1, steps + 1):
        loss, right = 0.0, 0
        for b in range(batch):
            for t in range(positions):
                positive = b * frames + t + k
                others = [j for j in negatives[b, t].tolist() if not (exclude and j == positive)]
                scores = [p[k - 1, b, t] @ z[j] / (dim if divide else 1) for j in (positive, *others)]
                loss += np.log(np.sum(np.exp(scores))) - scores[0]
                right += all(scores[0] > s for s, j in zip(scores[1:], others, strict=True) if j != positive)
        losses.append(loss / (batch * positions))
        accuracies.append(right / (batch * positions))
    return losses, accuracies


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans(),
    st.booleans(), st.integers(0, 999),
)  # fmt: skip
def test_equals_the_loop_over_steps_and_negatives(steps, batch, positions, count, divide, exclude, within, seed):
    g = torch.Generator().manual_seed(seed)
    frames = positions + steps
    predictions = torch.randn(steps, batch, positions, 4, generator=g, dtype=torch.float64)
    latents = torch.randn(batch, frames, 4, generator=g, dtype=torch.float64)
    negatives = sample_negatives(batch, frames, positions, count, within, generator=g)
    losses, accuracies = cpc_loss(predictions, latents, negatives, divide, exclude)
    expected, expected_accuracies = reference(predictions, latents, negatives, divide, exclude)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(accuracies.numpy(), expected_accuracies, rtol=1e-6)


def test_negatives_are_uniform_over_clips_and_other_times():
    batch, frames, positions, count = 4, 6, 3, 20000
    negatives = sample_negatives(batch, frames, positions, count, generator=torch.Generator().manual_seed(0))
    for t in range(positions):
        share = negatives[1, t].bincount(minlength=batch * frames).view(batch, frames) / count
        assert (share[:, t] == 0).all()
        others = [s for s in range(frames) if s != t]
        np.testing.assert_allclose(share[:, others].numpy(), 1 / (batch * (frames - 1)), rtol=0.15)
    within = sample_negatives(batch, frames, positions, 50, within=True)
    assert torch.equal(within // frames, torch.arange(batch).view(-1, 1, 1).expand_as(within))


@pytest.mark.parametrize(("batch", "within"), [(1, False), (4, False), (8, False), (4, True)])
def test_a_perfect_prediction_has_an_accuracy_of_one_whatever_the_batch(batch, within):
    """A negative that is the true frame itself, drawn by chance, is no other frame that scores as high."""
    g = torch.Generator().manual_seed(0)
    latents = torch.nn.functional.normalize(torch.randn(batch, 128, 32, generator=g), dim=-1)
    negatives = sample_negatives(batch, 128, 116, 128, within, generator=g)
    assert (negatives == torch.arange(1, 117).view(1, -1, 1) + 128 * torch.arange(batch).view(-1, 1, 1)).any()
    _, accuracies = cpc_loss(latents[None, :, 1:117], latents, negatives)
    assert accuracies.tolist() == [1.0]


def test_loss_and_accuracy_are_those_of_the_original():
    """JTM's own criterion; it takes the first maximum, so that a positive among the negatives is right there, too."""
    with np.load(TESTS / "data" / "others" / "jtm_cpc_criterion.npz") as file:
        theirs = {name: torch.from_numpy(values) for name, values in file.items()}
    heads = theirs["heads"].view(3, 64, 64)
    predictions = torch.einsum("kij,btj->kbti", heads, theirs["context"][:, :57])
    losses, accuracies = cpc_loss(predictions, theirs["latents"], theirs["negatives"].long())
    torch.testing.assert_close(losses, theirs["loss"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(accuracies, theirs["accuracy"], rtol=1e-5, atol=1e-6)


def test_representations_that_are_all_alike_are_at_chance_and_never_right():
    latents = torch.ones(2, 8, 4)
    losses, accuracies = cpc_loss(torch.ones(3, 2, 5, 4), latents, sample_negatives(2, 8, 5, 9))
    np.testing.assert_allclose(losses.numpy(), math.log(10), rtol=1e-5)
    assert (accuracies == 0).all()


def test_the_negatives_are_never_copied_together():
    steps, batch, frames, dim, count = 3, 4, 40, 64, 64
    latents = torch.randn(batch, frames, dim, requires_grad=True)
    predictions = torch.randn(steps, batch, frames - steps, dim, requires_grad=True)
    largest = 0

    def keep(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        losses, _ = cpc_loss(predictions, latents, sample_negatives(batch, frames, frames - steps, count))
    losses.sum().backward()
    assert largest < batch * (frames - steps) * count * dim / 10


@pytest.mark.parametrize("shapes", [((2, 3, 5, 4), (3, 6, 4)), ((2, 3, 5, 4), (2, 7, 4)), ((2, 3, 5, 4), (3, 7, 5))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="latents"):
        cpc_loss(torch.randn(shapes[0]), torch.randn(shapes[1]), torch.zeros(3, 5, 2, dtype=torch.int64))


def test_negatives_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="2 frames"):
        sample_negatives(2, 1, 1, 5)


def method(reverse: bool = False, context: str = "gru", **arguments) -> CPC:
    torch.manual_seed(0)
    encoder = encoders.CPC(16, context=context, heads=2, feedforward=32, dropout=0.0, reverse=reverse)
    return CPC(
        steps=3, num_negatives=10, frontend=frontends.Waveform(), encoder=encoder, sample_rate=16000, **arguments
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_the_objective_is_one_linear_head_a_step_on_the_context(reverse):
    model = method(reverse)
    clips = torch.randn(2, 160 * 9)
    torch.manual_seed(5)
    terms = model.objective(clips)[0].terms
    latents, context = model.encoder.latents(clips), model.encoder.frames(clips)
    if reverse:
        latents, context = latents.flip(1), context.flip(1)
    weights = model.heads[0].weight.view(3, 16, 16)
    torch.manual_seed(5)
    negatives = sample_negatives(2, 9, 6, 10)
    predictions = torch.stack([context[:, :6] @ w.T for w in weights]).detach()
    losses, accuracies = reference(predictions, latents.detach(), negatives, True, False)
    assert terms["loss"].item() == pytest.approx(sum(losses), rel=1e-4)
    assert terms["loss_2"].item() == pytest.approx(losses[1], rel=1e-4)
    assert terms["accuracy"].item() == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert terms["chance"].item() == pytest.approx(3 * math.log(11)) and terms["accuracy_chance"] == 1 / 11


def test_the_heads_have_the_published_size():
    with torch.device("meta"):
        for arguments, size in (({}, 3_145_728), ({"context": "gru", "context_dim": 256}, 1_572_864)):
            model = CPC(frontend=frontends.Waveform(), encoder=encoders.CPC(**arguments))
            assert sum(p.numel() for p in model.heads.parameters()) == size


def test_what_cannot_be_predicted_is_refused():
    without_frames = encoders.SampleCNN([4, 4])
    without_frames.frame_dim = None
    with pytest.raises(InputError, match="predicts frames, which SampleCNN does not have"):
        CPC(frontend=frontends.Waveform(), encoder=without_frames)
    with pytest.raises(InputError, match="projection"):
        method(projection=lambda dim: heads.Projection(dim, 4))
    with pytest.raises(InputError, match="nr_samples"):
        method().objective(torch.randn(2, 480))


@pytest.mark.parametrize("counts", [{"steps": 0}, {"num_negatives": 0}])
def test_counts_below_one_are_refused_by_name(counts):
    with pytest.raises(InputError, match=rf"model\.{next(iter(counts))} is 0; it must be at least 1"):
        CPC(frontend=frontends.Waveform(), encoder=encoders.CPC(16, context="gru"), **counts)


@pytest.mark.parametrize("encoder", [{"context": "transformer"}, {"context": "none"}, {"reverse": True}])
def test_a_state_that_cannot_be_carried_is_refused(encoder):
    with pytest.raises(InputError, match=r"model\.carry_state needs a recurrent context that runs forward"):
        method(carry_state=True, **encoder)


def batches(count: int, groups=("a", "b", "c", "d")):
    """Rising tones whose next frame follows from the ones before."""
    g = torch.Generator().manual_seed(0)
    time = torch.arange(160 * 20) / 16000
    for _ in range(count):
        start = 100 + 400 * torch.rand(len(groups), 1, generator=g)
        clips = torch.sin(6.28 * (start + 4000 * time) * time)
        yield {"clip1": clips, "clip2": clips, "group_name": list(groups), "index": torch.arange(len(groups))}


@pytest.mark.parametrize("context", ["gru", "transformer"])
def test_step_accuracy_rises_above_chance(context):
    model = method(context=context)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for batch in batches(120):
        terms = model.batch_objective(batch).terms
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["accuracy"] > 4 * terms["accuracy_chance"] and terms["loss"] < 0.85 * terms["chance"]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("context", ["gru", "lstm"])
def test_the_state_is_carried_for_the_rows_that_play_on(context):
    model = method(context=context, carry_state=True)
    whole = torch.randn(2, 160 * 20)
    first, second = whole.chunk(2, dim=1)
    model.training_step({"clip1": first, "group_name": ["a", "b"]}, 0)
    model.training_step({"clip1": second, "group_name": ["a", "c"]}, 1)
    state = model.state if context == "gru" else model.state[0]
    latents = torch.cat([model.encoder.latents(part) for part in (first, second)], dim=1)
    contexts = model.encoder.contextualize(latents)[0]
    alone = model.encoder.contextualize(model.encoder.latents(second))[0]
    assert not state.requires_grad
    torch.testing.assert_close(state[0, 0], contexts[0, -1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state[0, 1], alone[1, -1], rtol=1e-4, atol=1e-5)
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    resumed = method(context=context, carry_state=True)
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.state_groups == ["a", "c"]
    torch.testing.assert_close(resumed.state, model.state)
    model.on_train_epoch_start()
    assert model.state is None


def test_validation_draws_the_same_negatives_each_time():
    clips = torch.randn(2, 160 * 20)
    model = method()
    trained = {model.objective(clips)[0].terms["loss"].item() for _ in range(3)}
    model.eval()
    validated = {model.objective(clips)[0].terms["loss"].item() for _ in range(3)}
    assert len(trained) == 3 and len(validated) == 1
