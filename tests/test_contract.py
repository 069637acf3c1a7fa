"""The contract of codec.bottleneck, for every method on a 1-D and a 2-D grid.

A new method adds one line to METHODS.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from codec.bottleneck import Bottleneck, BottleneckOutput, straight_through
from codec.bottlenecks import BOTTLENECKS, FSP, GMVQ, VP, GumbelVQ, NoiseFSQ, TokenBridge, _sync

SIZES = (16, 64)
LEVELS = {16: (4, 2, 2), 64: (4, 4, 4)}


def registered(name: str, **options: Any) -> Callable[[], Bottleneck]:
    return lambda: BOTTLENECKS[name](**options)


METHODS: dict[str, Callable[[], Bottleneck]] = {
    "fsp": lambda: FSP(LEVELS),
    "fsp-vector": lambda: FSP(LEVELS, activation="laplace", accept="vector"),
    "gmvq": lambda: GMVQ(dim=8, codebook_sizes=SIZES),
    "gmvq-posterior": lambda: GMVQ(dim=8, codebook_sizes=SIZES, latent_term="posterior"),
    "gmvq-literal": lambda: GMVQ(dim=8, codebook_sizes=SIZES, latent_term="literal"),
    "vp": lambda: VP(dim=3, codebook_sizes=SIZES, reference_size=64, rows_per_code=4, neighbours=2),
    "vp-nested": lambda: VP(
        3, SIZES, reference_size=64, rows_per_code=4, neighbours=2, nested=True
    ),
    **{
        name: registered(name, dim=8, codebook_sizes=SIZES)
        for name in BOTTLENECKS
        if name.startswith("vq") or name in ("simvq", "sqvae", "gumbelvq")
    },
    "gumbelvq-hard": lambda: GumbelVQ(dim=8, codebook_sizes=SIZES, in_dim=11, hard=True),
    "fsq": registered("fsq", levels=LEVELS),
    "fsq-odd": registered("fsq", levels={16: (5, 3, 3), 64: (5, 5, 3)}),
    "fsq-noise": lambda: NoiseFSQ(LEVELS),
    "tokenbridge": lambda: TokenBridge(LEVELS),
    "grouped": registered("grouped", method="vq-ema", num_groups=3, dim=3, codebook_sizes=SIZES),
    "grouped-gmvq": registered("grouped", method="gmvq", dim=3, codebook_sizes=SIZES),
    "grouped-fsp": registered("grouped", method="fsp", levels=LEVELS),
    "residual": registered(
        "residual", method="vq-replace", num_stages=3, dim=5, codebook_sizes=SIZES
    ),
    "residual-vp": registered(
        "residual", method="vp", dim=3, codebook_sizes=SIZES, rows_per_code=4, neighbours=2
    ),
}
GRIDS = {"1-D": (37,), "2-D": (5, 7)}


@cache
def fitted(name: str) -> Bottleneck:
    torch.manual_seed(0)
    method = METHODS[name]()
    method.fit(torch.randn(2000, method.in_dim))
    return method.eval()


@pytest.fixture(params=sorted(METHODS))
def bottleneck(request: pytest.FixtureRequest) -> Bottleneck:
    torch.manual_seed(0)
    return copy.deepcopy(fitted(request.param))


@pytest.fixture(params=sorted(GRIDS))
def z(request: pytest.FixtureRequest, bottleneck: Bottleneck) -> Tensor:
    return torch.randn(
        3, bottleneck.in_dim, *GRIDS[request.param], generator=torch.Generator().manual_seed(1)
    )


def test_every_registered_method_is_tested() -> None:
    assert set(BOTTLENECKS) <= set(METHODS)


def test_losses_are_those_that_the_method_declares(bottleneck: Bottleneck, z: Tensor) -> None:
    assert tuple(bottleneck.train()(z, SIZES[0]).losses) == bottleneck.loss_names


@pytest.mark.parametrize("size", SIZES)
def test_the_law(bottleneck: Bottleneck, z: Tensor, size: int) -> None:
    out = bottleneck(z, size)
    indices = bottleneck.encode(z, size)
    assert torch.equal(out.indices, indices)
    assert torch.equal(out.z_q, bottleneck.decode(indices, size))


def test_the_law_refuses_a_rounded_straight_through() -> None:
    """Negative control: the usual z + (z_q - z) is not bit for bit the decoded value."""
    z, value = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(z + (value - z), value)
    assert torch.equal(straight_through(value, z), value)


@pytest.mark.parametrize("size", SIZES)
def test_indices_and_latents_have_their_shapes_and_ranges(
    bottleneck: Bottleneck, z: Tensor, size: int
) -> None:
    indices = bottleneck.encode(z, size)
    assert indices.dtype == torch.int64
    assert indices.shape == (z.shape[0], bottleneck.num_codebooks, *z.shape[2:])
    assert int(indices.min()) >= 0
    assert int(indices.max()) < bottleneck.num_codes(size)
    z_q = bottleneck.decode(indices, size)
    assert z_q.shape == (z.shape[0], bottleneck.dim, *z.shape[2:])
    assert z_q.dtype == torch.float32
    assert len(indices.unique()) > 4  # not collapsed, or most of this file tests nothing


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_reaches_z(bottleneck: Bottleneck, z: Tensor, training: bool) -> None:
    z.requires_grad_(True)
    out = bottleneck.train(training)(z, 64)
    (gradient,) = torch.autograd.grad((out.z_q * torch.randn_like(out.z_q)).sum(), z)
    reached = gradient.flatten(2).abs().sum(2)[:, : bottleneck.dim]
    assert torch.isfinite(gradient).all()
    assert (reached > 0).all()


def test_losses_are_finite_named_scalars_that_the_graph_reaches(
    bottleneck: Bottleneck, z: Tensor
) -> None:
    """Each pulls z or the codebook; FSQ has none."""
    z.requires_grad_(True)
    out = bottleneck.train()(z, 64)
    for name, value in out.losses.items():
        assert value.shape == (), name
        assert torch.isfinite(value), name
        inputs = [z, *(p for p in bottleneck.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0, name
    assert not any(value.requires_grad for value in out.stats.values())


def test_modes_leave_state_alone(bottleneck: Bottleneck, z: Tensor) -> None:
    before = copy.deepcopy(bottleneck.state_dict())
    for _ in range(2):
        bottleneck.train().eval()
        bottleneck(z, 64)
        bottleneck.encode(z, 64)
    after = bottleneck.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_saved_and_loaded_keeps_indices(
    bottleneck: Bottleneck, z: Tensor, request: pytest.FixtureRequest
) -> None:
    fresh = METHODS[request.node.callspec.params["bottleneck"]]().eval()
    fresh.load_state_dict(bottleneck.state_dict())
    for size in SIZES:
        assert torch.equal(fresh.encode(z, size), bottleneck.encode(z, size))


def test_eval_is_deterministic_and_draws_nothing(bottleneck: Bottleneck, z: Tensor) -> None:
    state = torch.get_rng_state()
    first = bottleneck(z, 64)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(bottleneck(z, 64).z_q, first.z_q)


def test_encode_and_decode_do_not_depend_on_the_mode(bottleneck: Bottleneck, z: Tensor) -> None:
    indices = bottleneck.eval().encode(z, 64)
    assert torch.equal(bottleneck.train().encode(z, 64), indices)
    assert torch.equal(
        bottleneck.train().decode(indices, 64), bottleneck.eval().decode(indices, 64)
    )


def test_a_sample_does_not_depend_on_its_batch(bottleneck: Bottleneck, z: Tensor) -> None:
    many = torch.cat([z, z.flip(0), z])
    whole = bottleneck.encode(many, 64)
    assert torch.equal(torch.cat([bottleneck.encode(row[None], 64) for row in many]), whole)


def test_half_precision_is_taken_and_computed_in_float32(bottleneck: Bottleneck, z: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = bottleneck(z.bfloat16(), 64)
    assert out.z_q.dtype == torch.float32
    assert torch.equal(out.indices, bottleneck.encode(z.bfloat16().float(), 64))


def test_fit_is_idempotent(bottleneck: Bottleneck) -> None:
    latents = torch.randn(2000, bottleneck.in_dim, generator=torch.Generator().manual_seed(5))
    bottleneck.fit(latents)
    once = copy.deepcopy(bottleneck.state_dict())
    bottleneck.fit(latents)
    assert all(torch.equal(once[key], value) for key, value in bottleneck.state_dict().items())


def test_unknown_sizes_are_refused_and_none_means_the_default(
    bottleneck: Bottleneck, z: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"17.*\[16, 64\]"):
        bottleneck.encode(z, 17)
    assert torch.equal(bottleneck.encode(z), bottleneck.encode(z, bottleneck.default_size))


def test_a_size_for_each_sample_is_for_training_without_a_codebook(
    bottleneck: Bottleneck, z: Tensor
) -> None:
    sizes = torch.tensor([16, 64, 16])
    with pytest.raises(ValueError):
        bottleneck.eval()(z, sizes)
    if bottleneck.coupled:
        with pytest.raises(ValueError):
            bottleneck.train()(z, sizes)
    else:
        out: BottleneckOutput = bottleneck.train()(z, sizes)
        assert out.indices is None  # never an invented value
        assert out.z_q.shape == (z.shape[0], bottleneck.dim, *z.shape[2:])
        for bad in (sizes.float(), sizes + 0.5, sizes > 20, sizes[:2], sizes[None], sizes[0]):
            with pytest.raises(ValueError, match=r"one (offered|codebook) size per sample"):
                bottleneck.train()(z, bad)


def test_the_shared_state_of_a_codec_survives_a_step(bottleneck: Bottleneck, z: Tensor) -> None:
    """anneal takes the whole range, and a training step right after it is finite."""
    for progress in (0.0, 0.5, 1.0):
        bottleneck.anneal(progress)
        out = bottleneck.train()(z, 64)
        assert torch.isfinite(out.z_q).all()


def test_a_schedule_may_move_on_before_the_gradients_are_asked_for(
    bottleneck: Bottleneck, z: Tensor
) -> None:
    """Losses that are added up over steps have the temperatures of their own steps."""
    bottleneck.train()
    gradients = []
    for moves in (False, True):
        latents = z.clone().requires_grad_()
        method = copy.deepcopy(bottleneck)
        method.anneal(0.2)
        torch.manual_seed(3)
        out = method(latents, 64)
        if moves:
            method.anneal(0.9)
        sum(out.losses.values(), out.z_q.square().sum()).backward()
        gradients.append(latents.grad)
    assert torch.equal(*gradients)


# -- arguments, refused once for all methods


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_latents_that_are_not_finite_are_refused(
    bottleneck: Bottleneck, z: Tensor, bad: float
) -> None:
    z.view(-1)[z.numel() // 2] = bad
    for call in (bottleneck.encode, bottleneck.eval().forward):
        with pytest.raises(ValueError, match="not finite"):
            call(z, 64)


def test_latents_of_another_shape_or_type_are_refused(bottleneck: Bottleneck, z: Tensor) -> None:
    for bad in (z[:, :1], torch.cat([z, z], 1), z[0, 0, 0], z.int()):
        for call in (bottleneck.encode, bottleneck.eval().forward, bottleneck.train().forward):
            with pytest.raises(ValueError, match=f"want floats .B, {bottleneck.in_dim}, "):
                call(bad, 64)


@pytest.mark.parametrize("make", [Tensor.numpy, Tensor.tolist, lambda _: None])
def test_what_is_no_tensor_is_refused_with_advice(
    bottleneck: Bottleneck, z: Tensor, make: Callable[[Tensor], Any]
) -> None:
    advice = "as a tensor, not .*; torch.as_tensor makes one"
    for call in (bottleneck.encode, bottleneck.unquantised, bottleneck.eval().forward):
        with pytest.raises(TypeError, match=f"want latents {advice}"):
            call(make(z), 64)
    with pytest.raises(TypeError, match=f"want indices {advice}"):
        bottleneck.decode(make(bottleneck.encode(z, 64)), 64)
    if type(bottleneck).fit is not Bottleneck.fit:
        with pytest.raises(TypeError, match=f"want latents {advice}"):
            bottleneck.fit(make(torch.randn(30, bottleneck.in_dim)))


def test_latents_that_nothing_can_be_fitted_to_are_refused(bottleneck: Bottleneck) -> None:
    if type(bottleneck).fit is Bottleneck.fit:
        return
    before = copy.deepcopy(bottleneck.state_dict())
    good = torch.randn(30, bottleneck.in_dim)
    for bad in (good.to(torch.complex64), good.long(), good > 0, good[:0], good[:, 1:], good[None]):
        with pytest.raises(ValueError, match=f"fit needs floats .N, {bottleneck.in_dim}., got"):
            bottleneck.fit(bad)
    for value in (torch.nan, torch.inf, 1e300):  # the last is infinite in float32
        with pytest.raises(ValueError, match="fit needs finite latents; look for"):
            bottleneck.fit(torch.cat([good.double(), good.double() * 0 + value]))
    assert all(torch.equal(before[key], value) for key, value in bottleneck.state_dict().items())


def test_indices_that_no_code_has_are_refused(bottleneck: Bottleneck, z: Tensor) -> None:
    indices, number = bottleneck.encode(z, 16), bottleneck.num_codes(16)
    for value in (number, -1, 2**40, -(2**63)):
        bad = indices.contiguous().clone()
        bad.view(-1)[3] = value
        with pytest.raises(ValueError, match=f"indices must lie in .0, {number}"):
            bottleneck.decode(bad, 16)
    for dtype in (torch.float32, torch.float64, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match="integers"):
            bottleneck.decode(indices.to(dtype), 16)
    for bad in (torch.cat([indices, indices], 1), indices[:, :0], indices[0, 0, 0]):
        with pytest.raises(ValueError, match=f"(B, |or ){bottleneck.num_codebooks}, "):
            bottleneck.decode(bad, 16)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(bottleneck.decode(indices.to(dtype), 16), bottleneck.decode(indices, 16))


@pytest.mark.parametrize("size", [16.5, 16.0, "16", [16]])
def test_a_size_is_a_whole_number(bottleneck: Bottleneck, z: Tensor, size: Any) -> None:
    for call in (lambda: bottleneck.encode(z, size), lambda: bottleneck.eval()(z, size)):
        with pytest.raises(ValueError, match="whole number"):
            call()


# -- modes, nothing


def test_eval_has_no_losses_and_talks_to_no_other_process(
    bottleneck: Bottleneck, z: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that evaluates alone, say the one that writes the log, would wait for the others
    for ever.
    """

    def waits(*_: object, **__: object) -> None:
        raise AssertionError("a collective")

    expected = bottleneck(z, 64)
    monkeypatch.setattr(_sync, "parallel", lambda: True)
    for name in ("all_reduce", "all_gather", "broadcast", "get_world_size"):
        monkeypatch.setattr(_sync.dist, name, waits)
    out = bottleneck.eval()(z, 64)
    assert not out.losses
    assert torch.equal(out.z_q, expected.z_q)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 3, 4), (2, 0, 4)])
def test_a_batch_without_tokens_changes_nothing(
    bottleneck: Bottleneck, shape: tuple[int, ...]
) -> None:
    before = copy.deepcopy(bottleneck.state_dict())
    z = torch.zeros(shape[0], bottleneck.in_dim, *shape[1:], requires_grad=True)
    random_state = torch.get_rng_state()
    out = bottleneck.train()(z, 64)
    assert tuple(out.losses) == bottleneck.loss_names
    assert all(float(value.detach()) == 0 for value in out.losses.values())
    assert out.z_q.shape == (shape[0], bottleneck.dim, *shape[1:])
    sum(out.losses.values(), out.z_q.sum()).backward()
    assert not any(p.grad is not None and p.grad.any() for p in bottleneck.parameters())
    after = bottleneck.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), random_state)
    out = bottleneck.eval()(z, 64)
    assert out.indices is not None
    assert out.indices.shape == (shape[0], bottleneck.num_codebooks, *shape[1:])
    assert torch.equal(out.z_q, bottleneck.decode(out.indices, 64))
    with pytest.raises(ValueError, match="not offered"):
        bottleneck.train()(z, 17)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_gradients_stay_finite_where_latents_are_alike(
    bottleneck: Bottleneck, value: float, training: bool
) -> None:
    z = torch.randn(2, bottleneck.in_dim, 20)
    z[..., :7] = value
    z.requires_grad_()
    for _ in range(2):
        out = bottleneck.train(training)(z, 64)
        sum(out.losses.values(), out.z_q.square().sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in bottleneck.parameters() if p.grad is not None)


# -- copies


def test_pickled_saved_and_copied_it_is_the_same(bottleneck: Bottleneck, z: Tensor) -> None:
    file = io.BytesIO()
    torch.save(bottleneck, file)
    file.seek(0)
    copies = (
        pickle.loads(pickle.dumps(bottleneck)),
        copy.deepcopy(bottleneck),
        torch.load(file, weights_only=False),
    )
    indices = bottleneck.encode(z, 64)
    torch.manual_seed(3)
    expected = bottleneck.train()(z, 64).z_q
    for other in copies:
        assert torch.equal(other.encode(z, 64), indices)
        torch.manual_seed(3)
        assert torch.equal(other.train()(z, 64).z_q, expected)


# -- precision

REDUCED = (torch.bfloat16, torch.float16, torch.float64)


@pytest.mark.parametrize("assign", [True, False])
def test_state_that_is_loaded_becomes_float32(
    bottleneck: Bottleneck, z: Tensor, assign: bool
) -> None:
    before = bottleneck.state_dict()
    reduced = {k: v.half() if v.is_floating_point() else v for k, v in before.items()}
    net = torch.nn.Sequential(bottleneck)
    net.load_state_dict({f"0.{name}": value for name, value in reduced.items()}, assign=assign)
    assert [v.dtype for v in reduced.values()].count(torch.float32) == 0  # left as they were
    for name, value in bottleneck.state_dict().items():
        assert torch.equal(value, reduced[name].to(before[name].dtype))
        assert value.dtype == before[name].dtype
    out = bottleneck.eval()(z, 64)
    assert out.z_q.dtype == torch.float32
    assert torch.equal(out.z_q, bottleneck.decode(bottleneck.encode(z, 64), 64))


@pytest.mark.parametrize("dtype", REDUCED, ids=str)
def test_state_and_codes_stay_float32(
    bottleneck: Bottleneck, z: Tensor, dtype: torch.dtype
) -> None:
    indices = bottleneck.encode(z, 64)
    codes, before = bottleneck.decode(indices, 64), copy.deepcopy(bottleneck.state_dict())
    for convert in (
        lambda: bottleneck.to(dtype),
        lambda: torch.nn.Sequential(bottleneck).to("cpu", dtype),
    ):
        convert()
        assert all(
            torch.equal(value, before[key]) for key, value in bottleneck.state_dict().items()
        )
    assert all(value.dtype == before[key].dtype for key, value in bottleneck.state_dict().items())
    assert torch.equal(bottleneck.encode(z, 64), indices)
    assert torch.equal(bottleneck.decode(indices, 64), codes)
    latents = torch.randn(2, bottleneck.in_dim, 50).to(dtype).requires_grad_()
    for _ in range(2):
        out = bottleneck.train()(latents, 64)
        assert out.z_q.dtype == torch.float32
        sum(out.losses.values(), out.z_q.sum()).backward()
    assert latents.grad is not None
    assert latents.grad.dtype == dtype


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def reduced_products() -> Iterator[None]:
    """bfloat16 inside products of float32, on CPUs that can."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    **{f"default {dtype}": (lambda dtype=dtype: default_dtype(dtype)) for dtype in REDUCED},
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "reduced products": reduced_products,
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_change_nothing(
    bottleneck: Bottleneck, z: Tensor, name: str, request: pytest.FixtureRequest
) -> None:
    """Eval, and a training step at one seed; and a method that is made and fitted there."""

    def all_of_it() -> list[Tensor]:
        torch.manual_seed(0)
        method = METHODS[request.node.callspec.params["bottleneck"]]()
        method.fit(torch.randn(300, method.in_dim, dtype=torch.float32))
        results = [*method.state_dict().values()]
        for one in (method.eval(), copy.deepcopy(bottleneck).eval()):
            indices = one.encode(z, 64)
            results += [indices, one.decode(indices, 64), one(z, 64).z_q]
        other = copy.deepcopy(bottleneck).train()
        out = other(z, 64)
        results += [out.z_q, *out.losses.values(), *other.state_dict().values()]
        results += [other(z, torch.tensor([16, 64, 16])).z_q] if not other.coupled else []
        return [result.detach() for result in results]

    expected = all_of_it()
    with SURROUNDINGS[name]():
        found = all_of_it()
    assert len(found) == len(expected)
    assert all(a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_float64_latent_beyond_float32_is_not_finite(name: str) -> None:
    method = fitted(name).eval()
    z = torch.full((1, method.in_dim, 4), 1e300, dtype=torch.float64)
    for call in (method, method.encode):
        with pytest.raises(ValueError, match="a latent is not finite"):
            call(z)
