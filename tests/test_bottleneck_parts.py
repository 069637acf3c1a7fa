"""Parts of VQ, FSP, VP and GM-VQ that only other values than the usual ones, or more than one
dimension, show.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.bottleneck import to_tokens
from codec.bottlenecks._mixture import factors
from codec.bottlenecks.fsp import FSP, UNIFORM_STD
from codec.bottlenecks.gmvq import GMVQ
from codec.bottlenecks.vp import VP
from codec.bottlenecks.vq import VQ, Alternating, Codebook, unit


def latents(seed: int = 1, channels: int = 4, count: int = 200) -> Tensor:
    return torch.randn(1, channels, count, generator=torch.Generator().manual_seed(seed))


# -- VQ


def test_inner_steps_are_as_many_as_asked_for() -> None:
    """Three are three of SGD with momentum on one choice of codes."""

    def after(steps: int) -> Tensor:
        torch.manual_seed(0)
        method = VQ(4, (12,), update=partial(Alternating, steps=steps)).train()
        book = method.books["12"]
        assert isinstance(book, Codebook)
        book.start(torch.randn(12, 4))
        table = book.table.clone().requires_grad_()
        optimiser = torch.optim.SGD([table], 50 / 64 * 4, momentum=0.9)
        chosen = method.encode(latents()).flatten()
        method(latents())
        for _ in range(3):
            optimiser.zero_grad()
            (table[chosen] - to_tokens(latents())).square().mean().backward()
            optimiser.step()
        return (book.table - table.detach()).abs().max()

    assert float(after(3)) < 1e-5
    assert float(after(1)) > 1e-2  # negative control


def test_k_means_starts_codes_where_points_are_compared() -> None:
    """On the sphere: latents of one direction are one cluster, however long they are."""
    torch.manual_seed(0)
    directions = F.normalize(torch.randn(8, 4), dim=1).repeat(50, 1)
    long = directions * (0.1 + 20 * torch.rand(400, 1) ** 4)
    method = VQ(4, (8,), geometry=unit)
    method.fit(long)

    def error(codes: Tensor) -> float:
        return float(torch.cdist(directions, codes).min(1).values.max())

    assert error(method.codebook().detach()) < 1e-3
    raw = VQ(4, (8,))
    raw.fit(long)  # negative control: clusters of raw points split the long and join the short
    assert error(unit(raw.codebook().detach())) > 0.1


# -- FSP


def test_a_token_is_quantised_in_all_dimensions_or_in_none() -> None:
    """Eq. 18 is of a token: a mask for each element would give mixed ones, half of all at d = 2."""
    torch.manual_seed(7)
    z_q = FSP({64: (4, 4, 4)}).train()(latents(channels=3, count=4000)).z_q
    cells = (z_q * UNIFORM_STD + 0.5) * 4 - 0.5
    on_grid = ((cells - cells.round()).abs() < 1e-4)[0].sum(0)
    assert float((on_grid == 3).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(((on_grid > 0) & (on_grid < 3)).float().mean()) < 0.02


@pytest.mark.parametrize("accept", ["element", "vector"])
def test_noise_is_refused_by_element_or_by_token(accept: str) -> None:
    """At the border of two dimensions of three: "vector" then moves all or nothing."""
    torch.manual_seed(7)
    fsp = FSP({64: (4, 4, 4)}, quantise_probability=0.0, accept=accept).train()  # type: ignore[arg-type]
    z = torch.atanh(2 * torch.tensor([0.02, 0.98, 0.5]) - 1)[None, :, None].expand(1, 3, 4000)
    moved = ((fsp(z).z_q - fsp.target(z)).abs() > 1e-6)[0].sum(0)
    shares = [float((moved == count).float().mean()) for count in range(4)]
    # Noise is half a cell, .125, to either side: .02 from the border it stays inside with .58.
    inside = (0.125 + 0.02) / 0.25
    if accept == "vector":
        assert shares == pytest.approx([1 - inside**2, 0, 0, inside**2], abs=0.03)
    else:
        assert shares[3] == pytest.approx(inside**2, abs=0.03)
        assert shares[2] == pytest.approx(2 * inside * (1 - inside), abs=0.03)
        assert shares[0] < 0.01


# -- VP


def test_the_rows_of_the_queue_are_a_random_part_of_the_batch() -> None:
    """Not its first tokens, which are all of one sample."""
    torch.manual_seed(0)
    method = VP(1, (8,), reference_size=8, rows_per_code=8, neighbours=2, refresh_steps=4).train()
    method.queue_count.fill_(64)
    z = torch.arange(4096.0).view(16, 1, 256)
    method(z)
    written = method.queue[: int(method.queue_position), 0]
    assert len(written) == 16
    assert len((written // 256).unique()) > 6  # samples; 10 are expected
    assert len(written.unique()) == 16


# -- GM-VQ


def test_gradients_of_the_noise_reach_point_and_code() -> None:
    """z_q = mu_j + sigma eps, and sigma = |z^ - mu_j| / sqrt(L 2 sigma^2) moves with both (eq. 18):
    where no draw depends on the weights, its slope along z^ is that of a finite difference.
    """
    torch.manual_seed(0)
    method = GMVQ(2, (1,)).train()
    code = method.codebook()
    z = torch.randn(1, 4, 1, requires_grad=True)

    def value() -> Tensor:
        torch.manual_seed(3)
        return method(z).z_q.sum()

    to_z, to_code = torch.autograd.grad(value(), [z, code])
    with torch.no_grad():
        for tensor, gradient in ((z, to_z[0, :2, 0]), (code, to_code[0])):
            for i in range(2):
                where = (0, i, 0) if tensor is z else (0, i)
                before = float(tensor[where])
                ends = []
                for step in (1e-3, -1e-3):
                    tensor[where] = before + step
                    ends.append(float(value()))
                tensor[where] = before
                assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / 2e-3, abs=5e-3)
    assert float(to_z[0, :2].abs().max()) > 0.05


def test_the_literal_reading_is_of_the_noisy_point_and_the_mean_posterior() -> None:
    """Eq. 14 as it is written: z ~ q(z|x) and c ~ q_B, independent."""
    torch.manual_seed(0)
    method = GMVQ(3, (8,), two_sigma2=0.25, latent_term="literal").train()
    z = torch.randn(1, 6, 4000)
    out = method(z)
    z_hat, weights = method.points(z)
    codebook = method.codebook().detach()
    features, table = factors(z_hat, weights, codebook)
    q = (features @ table).softmax(1).mean(0)

    def reading(points: Tensor) -> float:
        squared = torch.cdist(points, codebook).square()
        return float((squared @ q).mean()) / 3

    found = float(out.losses["latent"].detach())
    assert found == pytest.approx(reading(to_tokens(out.z_q.detach())), rel=1e-3)
    assert found != pytest.approx(reading(z_hat), rel=1e-2)  # without the noise
