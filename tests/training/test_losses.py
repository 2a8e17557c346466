"""Every loss against its equation in plain double precision, its gradient against finite differences, its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from study.training.losses import Distance, dpo, feature_distance, kl, nll, npo, satimp, simnpo, steering, undial

Rows = list[list[float]]
LOGPS = st.lists(st.floats(-60, 0), min_size=1, max_size=6)
BETAS = st.floats(0.01, 2)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: Sequence[float]) -> list[float]:
    total = sum(math.exp(value - max(row)) for value in row)
    return [math.exp(value - max(row)) / total for value in row]


def kl_by_hand(logits: Rows, reference: Rows) -> float:
    """Sum of p_ref ln(p_ref / p), the mean over rows."""
    pairs = [(softmax(ours), softmax(theirs)) for ours, theirs in zip(logits, reference, strict=True)]
    return sum(sum(q * math.log(q / p) for p, q in zip(ps, qs, strict=True)) for ps, qs in pairs) / len(pairs)


def npo_by_hand(logps: Sequence[float], references: Sequence[float], beta: float) -> float:
    """2/beta E[ln(1 + (p / p_ref)^beta)]."""
    ratios = [math.exp(ours - theirs) for ours, theirs in zip(logps, references, strict=True)]
    return 2 / beta * sum(math.log(1 + ratio**beta) for ratio in ratios) / len(ratios)


def test_nll_is_the_mean_surprise() -> None:
    probabilities = [0.5, 0.1, 0.9]
    expected = -sum(math.log(p) for p in probabilities) / 3
    assert float(nll(double(probabilities).log())) == pytest.approx(expected, rel=1e-12)


def test_kl_is_its_sum() -> None:
    ours, theirs = normal(4, 7), 2 * normal(4, 7, seed=1)
    assert float(kl(ours, theirs)) == pytest.approx(kl_by_hand(ours.tolist(), theirs.tolist()), rel=1e-12)


def test_kl_weighs_by_the_reference() -> None:
    ours, theirs = normal(4, 7), 2 * normal(4, 7, seed=1)
    assert float(kl(ours, theirs)) != pytest.approx(float(kl(theirs, ours)), rel=1e-3)


def test_kl_of_equals_is_zero_and_flat() -> None:
    ours = normal(3, 5).requires_grad_()
    value = kl(ours, ours.detach() + 7)  # logits that differ by a constant are the same distribution
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-15)
    assert ours.grad is not None
    assert ours.grad.abs().max() < 1e-15


@given(
    st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=4),
    st.lists(st.floats(-30, 30), min_size=4, max_size=4),
)
def test_kl_is_never_negative(ours: Rows, theirs: list[float]) -> None:
    value = float(kl(double(ours), double([theirs] * len(ours))))
    assert math.isfinite(value)
    assert value >= -1e-12


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 3.0])
def test_npo_is_its_equation(beta: float) -> None:
    ours, theirs = [-1.0, -7.5, -0.2, -3.0], [-2.0, -7.5, -4.0, -1.0]
    assert float(npo(double(ours), double(theirs), beta)) == pytest.approx(npo_by_hand(ours, theirs, beta), rel=1e-12)


def test_npo_gradient_tends_to_that_of_ascent() -> None:
    ours, theirs = normal(5).requires_grad_(), normal(5, seed=1)
    (ascent,) = torch.autograd.grad(-nll(ours), ours)
    (small,) = torch.autograd.grad(npo(ours, theirs, 1e-9), ours)
    (large,) = torch.autograd.grad(npo(ours, theirs, 1.0), ours)
    torch.testing.assert_close(small, ascent, rtol=1e-8, atol=0)
    assert not torch.allclose(large, ascent, rtol=0.05)


def test_npo_lets_go_of_what_is_forgotten() -> None:
    ours = double([-200.0, -1.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(npo(ours, double([-1.0, -1.0]), 0.5), ours)
    assert float(gradient[0]) < 1e-20  # ascent would still push with 1/2
    assert float(gradient[1]) == pytest.approx(0.5)  # 2 sigmoid(0), the mean over two answers


@given(LOGPS, BETAS, st.floats(-5, 5))
def test_npo_is_bounded_below_and_grows_with_the_likelihood(logps: list[float], beta: float, shift: float) -> None:
    ours = double(logps)
    value = float(npo(ours, ours + shift, beta))
    assert 0 < value <= 2 / beta * math.log(2) + 2 * max(0.0, -shift) + 1e-9
    assert float(npo(ours + 1, ours + shift, beta)) > value


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_dpo_is_its_equation(beta: float) -> None:
    """2/beta E[-ln s(beta ln(ratio of the preferred / ratio of the other))]."""
    preferred, other = [0.3, -1.0, 2.0], [-0.4, 1.5, 2.0]
    margins = [beta * (ours - theirs) for ours, theirs in zip(preferred, other, strict=True)]
    expected = 2 / beta * sum(-math.log(sigmoid(margin)) for margin in margins) / 3
    assert float(dpo(double(preferred), double(other), beta)) == pytest.approx(expected, rel=1e-12)


@given(LOGPS, BETAS, st.floats(-5, 5))
def test_dpo_is_antisymmetric(ratios: list[float], beta: float, shift: float) -> None:
    """-log s(x) + log s(-x) = -x: exchanging the answers changes the loss by twice the margin, whatever beta is."""
    preferred, other = double(ratios), double(ratios).flip(0) / 3 + shift
    difference = dpo(preferred, other, beta) - dpo(other, preferred, beta)
    assert float(difference) == pytest.approx(-2 * float((preferred - other).mean()), rel=1e-9, abs=1e-9)


def test_dpo_without_a_preferred_answer_is_npo() -> None:
    ours, before = normal(4), normal(4, seed=1)
    assert float(dpo(torch.zeros_like(ours), ours - before, 0.3)) == pytest.approx(float(npo(ours, before, 0.3)))


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (2.5, 0.7), (0.3, 2.0)])
def test_simnpo_is_its_equation(beta: float, delta: float) -> None:
    """-2/beta E[ln s(-beta/|y| ln p - delta)], the mean over answers."""
    logps, lengths = [-1.0, -7.5, -0.2], [3, 5, 1]
    inner = [-beta / n * logp - delta for logp, n in zip(logps, lengths, strict=True)]
    expected = -2 / beta * sum(math.log(sigmoid(value)) for value in inner) / 3
    assert float(simnpo(double(logps), torch.tensor(lengths), beta, delta)) == pytest.approx(expected, rel=1e-12)


@given(st.floats(-20, 0), st.floats(0.1, 5))
def test_simnpo_of_one_token_without_a_margin_has_a_closed_form(logp: float, beta: float) -> None:
    """-2/beta ln s(-beta ln p) = 2/beta ln(1 + p^beta): NPO against a reference that is certain."""
    expected = 2 / beta * math.log1p(math.exp(logp) ** beta)
    found = float(simnpo(double([logp]), torch.tensor([1]), beta, 0.0))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found == pytest.approx(float(npo(double([logp]), double([0.0]), beta)), rel=1e-9, abs=1e-12)


@given(LOGPS, st.integers(2, 9))
def test_simnpo_does_not_depend_on_how_long_an_answer_is(logps: list[float], times: int) -> None:
    once = simnpo(double(logps), torch.ones(len(logps)), 2.5, 0.4)
    more = simnpo(times * double(logps), torch.full((len(logps),), times), 2.5, 0.4)
    assert float(once) == pytest.approx(float(more), rel=1e-9)


def test_a_margin_keeps_up_the_force_of_simnpo() -> None:
    ours, ones = double([-3.0]).requires_grad_(), torch.ones(1)
    forces = [float(torch.autograd.grad(simnpo(ours, ones, 2.5, delta), ours)[0]) for delta in (0.0, 1.0, 4.0)]
    assert forces == sorted(forces)
    assert forces[0] < forces[2] / 10


def undial_by_hand(logits: Rows, before: Rows, targets: Sequence[int], gamma: float) -> float:
    """-sum softmax(z_0 - gamma 1[y]) ln softmax(z), the mean over tokens."""
    total = 0.0
    for ours, theirs, target in zip(logits, before, targets, strict=True):
        wanted = softmax([value - gamma * (i == target) for i, value in enumerate(theirs)])
        total -= sum(q * math.log(p) for q, p in zip(wanted, softmax(ours), strict=True))
    return total / len(logits)


@pytest.mark.parametrize("gamma", [0.0, 3.0, 10.0])
def test_undial_is_its_equation(gamma: float) -> None:
    ours, before, targets = normal(4, 7), 2 * normal(4, 7, seed=1), [0, 6, 3, 3]
    expected = undial_by_hand(ours.tolist(), before.tolist(), targets, gamma)
    assert float(undial(ours, before, torch.tensor(targets), gamma)) == pytest.approx(expected, rel=1e-12)


def test_undial_without_an_adjustment_is_the_entropy_and_the_divergence() -> None:
    """CE(q, p) = H(q) + KL(q || p), and nothing moves where the model is its own teacher."""
    ours, before, targets = normal(4, 7).requires_grad_(), 2 * normal(4, 7, seed=1), torch.tensor([0, 6, 3, 3])
    entropy = -(before.softmax(-1) * before.log_softmax(-1)).sum(-1).mean()
    value = undial(ours, before, targets, 0.0)
    assert float(value.detach()) == pytest.approx(float((entropy + kl(ours, before)).detach()), rel=1e-12)
    (flat,) = torch.autograd.grad(undial(ours, ours.detach(), targets, 0.0), ours)
    assert flat.abs().max() < 1e-15


def test_undial_lowers_the_taught_token_and_no_other() -> None:
    ours, targets = normal(4, 7).requires_grad_(), torch.tensor([0, 6, 3, 3])
    before = ours.detach().clone()
    (gradient,) = torch.autograd.grad(undial(ours, before, targets, 10.0), ours)
    taught = torch.nn.functional.one_hot(targets, 7).bool()
    assert bool((gradient[taught] > 0).all())
    assert bool((gradient[~taught] < 0).all())
    assert torch.equal(before, ours)  # the teacher's logits are not written to


@pytest.mark.parametrize(("saturation", "importance"), [(1.0, 0.0), (5.0, 1.0), (0.5, 0.5)])
def test_satimp_is_its_equation(saturation: float, importance: float) -> None:
    """E[p^b1 (1 - p)^b2 ln p], and a gradient in which the weight is a constant."""
    probabilities = [0.9, 0.01, 0.5, 0.3]
    weights = [p**saturation * (1 - p) ** importance for p in probabilities]
    logp = double(probabilities).log().requires_grad_()
    value = satimp(logp, saturation, importance)
    (gradient,) = torch.autograd.grad(value, logp)
    expected = sum(w * math.log(p) for w, p in zip(weights, probabilities, strict=True)) / 4
    assert float(value.detach()) == pytest.approx(expected, rel=1e-12)
    assert gradient.tolist() == pytest.approx([w / 4 for w in weights], rel=1e-12)


@given(LOGPS)
def test_satimp_without_powers_is_ascent(logps: list[float]) -> None:
    ours = double(logps).requires_grad_()
    value, ascent = satimp(ours, 0.0, 0.0), -nll(ours)
    assert float(value.detach()) == float(ascent.detach())
    assert torch.autograd.grad(value, ours)[0].tolist() == torch.autograd.grad(ascent, ours)[0].tolist()


@given(LOGPS, st.floats(0, 5), st.floats(0, 5))
def test_satimp_pushes_no_token_harder_than_ascent(logps: list[float], saturation: float, importance: float) -> None:
    """Nor does it push up, or lose its numbers where a token is certain or impossible."""
    ours = double([*logps, 0.0, -800.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(satimp(ours, saturation, importance), ours)
    assert bool((gradient >= 0).all())
    assert bool((gradient * len(ours) <= 1).all())


def test_steering_is_the_mean_squared_distance() -> None:
    states, target = normal(4, 5), normal(4, 5, seed=1)
    assert float(steering(states, target)) == pytest.approx(((states - target).numpy() ** 2).sum() / 20, rel=1e-12)
    expected = sum((row.numpy() - target[0].numpy()) ** 2 for row in states).mean() / 4
    assert float(steering(states, target[:1])) == pytest.approx(expected, rel=1e-12)
    assert float(steering(states, states)) == 0


@pytest.mark.parametrize("batch", [3, 1])
def test_mse_is_the_squared_error_over_the_teachers_variance(batch: int) -> None:
    student, teacher = normal(3, 4, 5), 3 * normal(batch, 4, 5, seed=1) + 1
    ours, theirs = student.numpy(), np.broadcast_to(teacher.numpy(), (3, 4, 5))
    expected = ((ours - theirs) ** 2).mean() / theirs.var(ddof=1)
    assert float(feature_distance(student, teacher, "mse")) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch", [3, 1])
def test_cosine_is_one_less_the_mean_cosine_of_tokens(batch: int) -> None:
    student, teacher = normal(3, 4, 5), normal(batch, 4, 5, seed=1)
    ours, theirs = student.numpy(), np.broadcast_to(teacher.numpy(), (3, 4, 5))
    cosines = (ours * theirs).sum(-1) / np.sqrt((ours**2).sum(-1) * (theirs**2).sum(-1))
    assert float(feature_distance(student, teacher, "cosine")) == pytest.approx(1 - cosines.mean(), rel=1e-12)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@given(scale=st.floats(0.01, 1000))
def test_feature_distance_does_not_depend_on_the_scale(distance: Distance, scale: float) -> None:
    student, teacher = normal(2, 3, 4), normal(2, 3, 4, seed=1)
    plain = float(feature_distance(student, teacher, distance))
    assert float(feature_distance(scale * student, scale * teacher, distance)) == pytest.approx(plain, rel=1e-9)
    assert plain > 0.1


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_feature_distance_of_equals_is_zero(distance: Distance) -> None:
    features = normal(2, 3, 4)
    assert float(feature_distance(features, features, distance)) == pytest.approx(0, abs=1e-15)


def test_a_teacher_without_variance_gives_a_finite_distance() -> None:
    assert math.isfinite(float(feature_distance(normal(2, 3, 4), torch.ones(1, 3, 4, dtype=torch.float64), "mse")))


OTHER = normal(3, 4, 5, seed=1)
DIFFERENTIABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "nll": lambda x: nll(x.flatten()),
    "kl": lambda x: kl(x[0], OTHER[0]),
    "npo": lambda x: npo(x.flatten(), OTHER.flatten(), 0.3),
    "dpo": lambda x: dpo(x[0], x[1] + OTHER[0], 0.3),
    "simnpo": lambda x: simnpo(x.flatten(), torch.arange(1, x.numel() + 1), 2.5, 0.3),
    "undial": lambda x: undial(x[0], OTHER[0], torch.tensor([0, 4, 2, 2]), 3.0),
    "steering": lambda x: steering(x[0], OTHER[0, :1]),
    "mse": lambda x: feature_distance(x, OTHER, "mse"),
    "cosine": lambda x: feature_distance(x, OTHER[:1], "cosine"),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss, at, step = DIFFERENTIABLE[name], normal(3, 4, 5, seed=2), 1e-6
    (gradient,) = torch.autograd.grad(loss(at.requires_grad_()), at)
    slopes = []
    with torch.no_grad():
        for i in range(at.numel()):
            nudge = torch.zeros(at.numel(), dtype=torch.float64).index_fill(0, torch.tensor(i), step).view_as(at)
            slopes.append(float(loss(at + nudge) - loss(at - nudge)) / (2 * step))
    assert max(map(abs, slopes)) > 1e-3
    torch.testing.assert_close(gradient.flatten(), double(slopes), rtol=1e-5, atol=1e-8)
