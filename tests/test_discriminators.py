"""Discriminators: their shapes, what they may see, and that they learn to tell an original from an
imitation.
"""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("torchaudio")
from train.adversary import Adversary
from train.discriminators import (
    DISCRIMINATORS,
    ImageDiscriminator,
    PeriodDiscriminator,
    SpectrumDiscriminator,
    critic_loss,
    feature_loss,
    fooling_loss,
)
from train.recipe import AdversarySection

SHAPES = {"speech": (2, 1, 2400), "image": (2, 3, 64, 64)}


@pytest.fixture(params=["speech", "image"])
def medium(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_hinge_and_feature_losses_are_their_formulas() -> None:
    real = [
        (torch.tensor([2.0, 0.0]), [torch.tensor([1.0, 1.0])]),
        (torch.tensor([0.5]), [torch.tensor([3.0])]),
    ]
    fake = [
        (torch.tensor([-2.0, 0.5]), [torch.tensor([0.0, 1.0])]),
        (torch.tensor([-0.5]), [torch.tensor([1.0])]),
    ]
    assert float(critic_loss(real, fake)) == pytest.approx(((0.5 + 0.75) + (0.5 + 0.5)) / 2)
    assert float(fooling_loss(fake)) == pytest.approx(((3 + 0.5) / 2 + 1.5) / 2)
    assert float(feature_loss(real, fake)) == pytest.approx((0.5 + 2) / 2)
    undecided = [(torch.zeros(3), [])]
    assert float(critic_loss(undecided, undecided)) == 2


def test_a_judgement_is_of_one_sample_alone(medium: str) -> None:
    """No statistics over the batch: a sample's scores are the same alone."""
    torch.manual_seed(0)
    nets, x = DISCRIMINATORS[medium](4), torch.rand(SHAPES[medium])
    for (both, _), (alone, _) in zip(nets(x), nets(x[1:]), strict=True):
        assert torch.allclose(both[1:], alone, atol=1e-6)


def test_the_numbers_of_channels_are_those_of_the_papers() -> None:
    widths = [layer.out_channels for layer in PeriodDiscriminator(2, 16).judge.layers]
    assert widths == [16, 64, 256, 512, 512, 1]
    assert [layer.out_channels for layer in ImageDiscriminator(16).judge.layers] == [
        64,
        128,
        256,
        512,
        1,
    ]
    assert [layer.dilation for layer in SpectrumDiscriminator(128, 16).judge.layers][1:4] == [
        (1, 1),
        (2, 1),
        (4, 1),
    ]


def test_a_patch_score_sees_70_pixels() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    scores, _ = ImageDiscriminator(2)(x)[0]
    height, width = scores.shape[2:]
    (gradient,) = torch.autograd.grad(scores[0, 0, height // 2, width // 2], x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0]
    assert int(rows[-1] - rows[0]) + 1 == 70


def test_a_period_judge_compares_samples_one_period_apart() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 600, requires_grad=True)
    scores, _ = PeriodDiscriminator(5, 2)(x)
    (gradient,) = torch.autograd.grad(scores[0, 0, scores.shape[2] // 2, 3], x)
    assert set((gradient[0, 0].nonzero()[:, 0] % 5).tolist()) == {3}


def test_judging_leaves_the_discriminator_alone_and_reaches_the_reconstruction(medium: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(medium, AdversarySection(width=2, warmup_steps=4), "cpu")
    x, x_hat = torch.rand(SHAPES[medium]), torch.rand(SHAPES[medium], requires_grad=True)
    before = {name: value.clone() for name, value in adversary.nets.state_dict().items()}
    losses = adversary.judge(x, x_hat)
    assert set(losses) == {"adversarial", "features"}
    assert float(adversary.weigh(losses).detach()) == 0  # it knows nothing yet
    for _ in range(4):
        adversary.advance(1.0)
    adversary.weigh(losses).backward()
    assert x_hat.grad is not None
    assert x_hat.grad.abs().sum() > 0
    assert all(
        torch.equal(value, adversary.nets.state_dict()[name]) for name, value in before.items()
    )
    assert all(p.grad is None for p in adversary.nets.parameters())


def test_it_learns_to_tell_noise_from_smooth_originals(medium: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(medium, AdversarySection(width=4, learning_rate=2e-3), "cpu")
    smooth = torch.rand(4, *[1 for _ in SHAPES[medium][1:]]).expand(4, *SHAPES[medium][1:])
    noise = None
    losses = []
    for _ in range(25):
        noise = torch.rand(4, *SHAPES[medium][1:])
        adversary.advance(1.0)
        losses.append(float(adversary.learn(smooth, noise)["critic"]))
    assert losses[0] > 1.5
    assert losses[-1] < 1.0
    # Negative control: nothing to learn where both are of one kind.
    blind = Adversary(medium, AdversarySection(width=4, learning_rate=2e-3), "cpu")
    blind.advance(1.0)
    alike = [
        float(blind.learn(torch.rand_like(noise), torch.rand_like(noise))["critic"])
        for _ in range(25)
    ]
    assert alike[-1] > 1.5


def test_it_warms_up_and_goes_on_where_it_was() -> None:
    settings = AdversarySection(width=2, warmup_steps=10, learning_rate=0.5)
    first, second = Adversary("image", settings, "cpu"), Adversary("image", settings, "cpu")
    shares = []
    for step in range(1, 13):
        first.advance(0.5)
        shares.append(float(first.share))
        if step == 5:
            second.load_state_dict(first.state_dict())
    assert shares == pytest.approx([min(1, step / 10) for step in range(1, 13)])
    assert float(first.rate) == 0.25
    second.advance(0.5)
    assert float(second.share) == pytest.approx(0.6)


def test_its_gradient_is_clipped(medium: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(medium, AdversarySection(width=2, clip=1e-3), "cpu")
    adversary.advance(1.0)
    x = torch.rand(SHAPES[medium])
    assert float(adversary.learn(x, 1 - x)["critic_norm"]) > 2e-3
    gradients = [p.grad for p in adversary.nets.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert norm == pytest.approx(1e-3, rel=0.01)
