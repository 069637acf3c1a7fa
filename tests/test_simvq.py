"""SimVQ: one map moves all codes, the decode goes through it, and the library agrees."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.bottleneck import to_tokens
from codec.bottlenecks.simvq import SimVQ
from codec.bottlenecks.vq import VQ

DIM, SIZE = 4, 12


def small() -> SimVQ:
    torch.manual_seed(0)
    return SimVQ(DIM, (SIZE,)).train()


def latents(count: int = 200) -> Tensor:
    return 0.5 * torch.randn(1, DIM, count, generator=torch.Generator().manual_seed(1))


def test_the_frozen_codes_have_variance_one_over_l() -> None:
    method = SimVQ(64, (4096,))
    assert float(method.frozen_4096.var()) == pytest.approx(1 / 64, rel=0.02)


def moved_by_one_token(method: SimVQ | VQ) -> int:
    before = method.codebook().detach().clone()
    state = {k: v.clone() for k, v in method.named_buffers()}
    optimiser = torch.optim.SGD(method.parameters(), 0.1)
    out = method(latents(1))
    (out.losses["codebook"] + 0.25 * out.losses["commitment"]).backward()
    optimiser.step()
    assert all(torch.equal(v, state[k]) for k, v in method.named_buffers())  # C stays as it was
    return int((method.codebook() != before).all(1).sum())


def test_one_used_code_moves_them_all() -> None:
    assert moved_by_one_token(small()) == SIZE
    assert moved_by_one_token(VQ(DIM, (SIZE,)).train()) == 1


def decodes_what_was_searched(rows: Tensor) -> bool:
    method = small()
    indices = method.encode(latents())
    chosen = F.embedding(indices.flatten(), rows)
    distance = (chosen - to_tokens(latents())).square().sum(1)
    best = torch.cdist(to_tokens(latents()), method.codebook()).square().min(1).values
    return torch.allclose(distance, best, atol=1e-5)


def test_the_decode_goes_through_the_map() -> None:
    method = small()
    assert decodes_what_was_searched(method.codebook())
    assert not decodes_what_was_searched(method.frozen_12)  # the published get_codebook_entry
    assert torch.equal(method.decode(torch.arange(SIZE)[None, None])[0].T, method.codebook())
    assert torch.allclose(method.codebook(), method.maps["12"](method.frozen_12))


def test_straight_through() -> None:
    method, z = small(), latents().requires_grad_()
    (gradient,) = torch.autograd.grad(method(z).z_q.sum(), z)
    assert gradient.eq(1).all()


def test_oracle() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    method = small()
    other = library.SimVQ(DIM, SIZE, codebook_transform=method.maps["12"], rotation_trick=False)
    other.frozen_codebook.copy_(method.frozen_12)
    z, x = latents().requires_grad_(), latents().mT.requires_grad_()
    out, (value, indices, loss) = method(z), other(x)
    assert torch.equal(out.indices[:, 0], indices)
    assert torch.allclose(out.z_q.mT, value, atol=1e-6)
    ours = out.losses["codebook"] + 0.25 * out.losses["commitment"]
    assert torch.allclose(ours, loss)
    parameters = list(method.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(loss, parameters), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)
