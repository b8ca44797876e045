"""Compiled sums of what draws say of classes, against decimal arithmetic; exactness; bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from bprune_hpc import compiled
from bprune_hpc.accumulators.classification import MAX_NLL, GroupSums, Predictions
from bprune_hpc.accumulators.classification_compiled import add_logits
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.posterior.draws import MEAN, Draw

pytestmark = pytest.mark.usefixtures("compiled_instructions")


def random_logits(
    n_draws: int, n_classes: int, n: int, spread: float = 4.0, seed: int = 0
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(0, spread, (n_draws, n_classes, n)).astype(np.float32)


def labels(n_classes: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_classes, n).astype(np.int32)


def added(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of some draws, shape (n_classes + 5, n_examples), and of each draw."""
    sums = GroupSums(1, len(label), logits.shape[1])
    of_draws = add_logits(sums, 0, slice(0, len(label)), logits, label)
    return sums.buffer[0], of_draws


def softmax(logits: Sequence[float]) -> tuple[list[Decimal], Decimal]:
    """Probabilities of one example's classes and the logarithm of what they were divided by."""
    largest = max(map(Decimal, logits))
    weights = [(Decimal(logit) - largest).exp() for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights], total.ln() + largest


def assert_right(logits: np.ndarray, label: np.ndarray) -> None:
    """Check the sums of one draw, to the last unit or two, with 60 digits."""
    sums, ((n_correct,), (nll,)) = added(logits[None], label)
    n_classes = len(logits)
    rounding = n_classes // 300  # of sums over the classes, in units of the last place
    all_nll, all_correct = Decimal(0), 0
    with localcontext() as context:
        context.prec = 60
        for example, true in enumerate(label.tolist()):
            of_classes = logits[:, example].astype(float).tolist()
            probability, log_total = softmax(of_classes)
            column = [Decimal(int(units)) for units in sums[:, example]]
            for found, expected in zip(column[:n_classes], probability, strict=True):
                assert abs(found - expected * 2**50) <= 1 + rounding
            whole = (column[true] * 2**100 + column[-5] * 2**50 + column[-4]) / 2**150
            error = Decimal(2) ** -150 + probability[true] * (2 + rounding) * Decimal(2) ** -50
            assert abs(whole - probability[true]) <= error
            squares = sum(p * p for p in probability)
            assert abs(column[-3] - squares * 2**50) <= 2 + rounding
            entropy = log_total - sum(
                p * Decimal(logit) for p, logit in zip(probability, of_classes, strict=True)
            )
            assert abs(column[-2] - entropy * 2**46) <= 2 + rounding
            is_correct = of_classes.index(max(of_classes)) == true
            assert column[-1] == is_correct
            all_correct += is_correct
            all_nll += min(log_total - Decimal(of_classes[true]), Decimal(MAX_NLL))
        assert abs(Decimal(int(nll)) - all_nll * 2**30) <= len(label)
    assert n_correct == all_correct


@pytest.mark.parametrize("spread", [0.01, 1.0, 12.0, 60.0, 400.0])
@pytest.mark.parametrize(("n_classes", "n"), [(1, 17), (2, 40), (3, 16), (10, 33), (1000, 3)])
def test_a_prediction_in_decimal_arithmetic(n_classes: int, n: int, spread: float) -> None:
    seed = n_classes
    assert_right(random_logits(1, n_classes, n, spread, seed)[0], labels(n_classes, n))


def test_every_number_of_classes_and_examples() -> None:
    for n in (*range(1, 20), 31, 32, 33, 47, 48, 49, 63, 64, 65, 70):
        for n_classes in (1, 2, 5):
            logits, label = random_logits(1, n_classes, n, seed=n)[0], labels(n_classes, n, n)
            assert_right(logits, label)


def test_differences_near_where_exponentials_end() -> None:
    gaps = np.array(
        [0, 1e-30, 1e-8, 0.3, 0.34657, 0.34658, 87.3, 103.2, 103.97, 103.98, 104, 150, 699, 700,
         701, 708, 745, 746, 1e4, 1e30, 3e38],
        np.float32,
    )  # fmt: skip
    for label in (0, 1):
        logits = np.stack([np.zeros_like(gaps), -gaps])
        assert_right(logits, np.full(len(gaps), label, np.int32))


def test_the_largest_logits() -> None:
    rows = [
        [1e38, -1e38, 0],
        [-1e38, -1e38, 1e38],
        [3.4e38, -3.4e38, 3.4e38],
        [-1e38, -1e38, -1e38],
    ]
    logits = np.array(rows, np.float32).T
    for label in range(3):
        assert_right(logits, np.full(4, label, np.int32))
    sums, of_draws = added(logits[None], np.array([0, 0, 2, 2], np.int32))
    assert sums[:3].T.tolist() == [
        [2**50, 0, 0],
        [0, 0, 2**50],
        [2**49, 0, 2**49],
        [round(2**50 / 3)] * 3,
    ]
    assert of_draws[0].tolist() == [1]


def test_what_is_certain_is_exact() -> None:
    for n_classes in (1, 2, 10, 1000):
        logits = np.zeros((1, n_classes, 20), np.float32)
        logits[0, n_classes - 1] = 2000
        sums, of_draws = added(logits, np.full(20, n_classes - 1, np.int32))
        expected = np.zeros((n_classes + 5, 20), int)
        expected[n_classes - 1] = expected[-3] = 2**50
        expected[-1] = 1
        assert sums.tolist() == expected.tolist()
        assert of_draws.tolist() == [[20], [0]]


@pytest.mark.parametrize("n", [5, 16, 21])
def test_the_first_of_equals_wins(n: int) -> None:
    logits = np.full((1, 7, n), -1.0, np.float32)
    first, second = np.arange(n) % 6, np.arange(n) % 6 + 1
    logits[0, first, np.arange(n)] = logits[0, second, np.arange(n)] = 2
    assert added(logits, first.astype(np.int32))[0][-1].tolist() == [1] * n
    assert added(logits, second.astype(np.int32))[0][-1].tolist() == [0] * n
    zeros = np.zeros((1, 2, n), np.float32)
    zeros[0, 0] = -0.0  # equal to the other
    assert added(zeros, np.zeros(n, np.int32))[0][-1].tolist() == [1] * n


@pytest.mark.parametrize("spread", [0.1, 5.0, 60.0])
def test_as_numpy_to_a_few_units(spread: float) -> None:
    logits, label = random_logits(9, 10, 70, spread), labels(10, 70)
    sums, of_draws = added(logits, label)
    theirs = Predictions.from_logits(logits, label.astype(np.int64))
    packed = theirs.packed.sum(axis=0)
    apart = np.abs(sums - packed)
    assert (apart[:10] <= 9).all() and (apart[-3:-1] <= 18).all() and (apart[-1] == 0).all()
    assert of_draws[0].tolist() == theirs.correct.sum(axis=1).tolist()
    assert (np.abs(of_draws[1] - theirs.nll_in_units.sum(axis=1)) <= 70).all()


@pytest.mark.parametrize(("n_classes", "n_draws"), [(1, 3), (2, 40), (10, 25), (1000, 3)])
def test_sums_are_those_of_the_draws(n_classes: int, n_draws: int) -> None:
    logits, label = random_logits(n_draws, n_classes, 37, 9.0), labels(n_classes, 37)
    alone = [added(logits[k : k + 1], label) for k in range(n_draws)]
    sums, of_draws = added(logits, label)
    assert sums.tobytes() == sum(one for one, _ in alone).tobytes()
    assert of_draws.tolist() == np.concatenate([one for _, one in alone], axis=1).tolist()
    tails = sum(abs(int(tail)) for one, _ in alone for tail in one[n_classes, :])
    assert tails > 0 or n_classes == 1


def pieces(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@pytest.mark.parametrize("n_classes", [1, 2, 10, 300])
def test_neither_order_nor_batches_change_a_bit(n_classes: int) -> None:
    n = 70
    logits, label = random_logits(6, n_classes, n), labels(n_classes, n)
    whole, of_draws = added(logits, label)
    for size in (1, 3, 15, 16, 17, 32, 64):
        sums = GroupSums(1, n, n_classes)
        found = sum(
            add_logits(sums, 0, rows, logits[:, :, rows], label[rows]) for rows in pieces(n, size)
        )
        assert sums.buffer.tobytes() == whole.tobytes()
        assert found.tolist() == of_draws.tolist()
    order = np.random.default_rng(1).permutation(6)
    shuffled, of_shuffled = added(logits[order], label)
    assert shuffled.tobytes() == whole.tobytes()
    assert of_shuffled.tolist() == of_draws[:, order].tolist()
    order = np.random.default_rng(2).permutation(n)
    assert added(logits[:, :, order], label[order])[0].tobytes() == whole[:, order].tobytes()


@pytest.mark.parametrize("n", [1, 16, 19])
def test_rows_are_added_to_where_they_belong(n: int) -> None:
    n_classes, start = 5, 13
    logits, label = random_logits(2, n_classes, n), labels(n_classes, n)
    sums = GroupSums(3, 40, n_classes)
    sums.buffer[:] = np.arange(sums.buffer.size).reshape(sums.buffer.shape)
    before = sums.buffer.copy()
    add_logits(sums, 1, slice(start, start + n), logits, label)
    added_up = sums.buffer - before
    assert added_up[1, :, start : start + n].tobytes() == added(logits, label)[0].tobytes()
    added_up[1, :, start : start + n] = 0
    assert not added_up.any()
    last = slice(40 - n, 40)
    add_logits(sums, 2, last, logits, label)
    assert (sums.buffer[2, :, last] - before[2, :, last] == added(logits, label)[0]).all()


@pytest.mark.parametrize("n", [1, 7, 16, 50])
def test_logits_of_any_layout(n: int) -> None:
    logits, label = random_logits(3, 4, n), labels(4, n)
    whole, of_draws = added(logits, label)
    wide = np.full((3, 4, n + 30), np.nan, np.float32)
    wide[:, :, :n] = logits
    many = np.full((7, 9, n), np.nan, np.float32)
    many[1::2, 1::2] = logits
    views = {
        "of tiles": wide[:, :, :n],
        "every other draw and class": many[1::2, 1::2],
        "draws backwards": logits[::-1].copy()[::-1],
        "classes backwards": logits[:, ::-1].copy()[:, ::-1],
        "examples backwards": logits[:, :, ::-1].copy()[:, :, ::-1],
        "every other example": np.repeat(logits, 2, axis=2)[:, :, ::2],
        "examples first": logits.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "draws last": logits.transpose(1, 2, 0).copy().transpose(2, 0, 1),
        "as Fortran": np.asfortranarray(logits),
    }
    for name, view in views.items():
        view.flags.writeable = False
        found, of_found = added(view, label)
        assert found.tobytes() == whole.tobytes(), name
        assert of_found.tolist() == of_draws.tolist(), name
    one = np.broadcast_to(logits[:1], (3, 4, n))
    assert added(one, label)[0].tobytes() == (3 * added(logits[:1], label)[0]).tobytes()


def test_nothing_to_add() -> None:
    sums = GroupSums(1, 4, 3)
    assert add_logits(
        sums, 0, slice(2, 2), np.zeros((2, 3, 0), np.float32), labels(3, 0)
    ).shape == (
        2,
        2,
    )
    assert add_logits(sums, 0, slice(0, 4), np.zeros((0, 3, 4), np.float32), labels(3, 4)).size == 0
    assert not sums.buffer.any()


def test_a_task_adds_up_each_group_and_leaves_out_the_mean() -> None:
    n_classes, n = 6, 21
    task = Classification(n_classes)
    logits, label = random_logits(5, n_classes, n), labels(n_classes, n).astype(np.int64)
    draws = [
        (MEAN, Draw(MEAN, 0, MEAN)),
        *((k // 2, Draw(k, 1 - 2 * (k % 2), 0)) for k in range(4)),
    ]
    sums = {group: task.sums(2, 30, 2) for group in (MEAN, 0, 1)}
    draw_sums = task.draw_sums(2, 4)
    task.add_up(logits, label, draws, (1, slice(9, 30)), sums, draw_sums)
    narrow = label.astype(np.int32)
    for group, some in ((MEAN, slice(0, 1)), (0, slice(1, 3)), (1, slice(3, 5))):
        expected, _ = added(logits[some], narrow)
        assert sums[group].buffer[1, :, 9:].tobytes() == expected.tobytes()
        assert not sums[group].buffer[0].any() and not sums[group].buffer[1, :, :9].any()
    assert draw_sums.packed[:, 1].tolist() == added(logits[1:], narrow)[1].tolist()
    assert not draw_sums.packed[:, 0].any()
    # The mean alone.
    mean = {MEAN: task.sums(2, 30, 2)}
    task.add_up(logits[:1], label, draws[:1], (1, slice(9, 30)), mean, draw_sums)
    assert mean[MEAN].buffer.tobytes() == sums[MEAN].buffer.tobytes()


def test_probabilities_of_a_prediction_sum_to_one() -> None:
    for n_classes in (2, 10, 1000):
        sums, _ = added(random_logits(1, n_classes, 70, 3.0), labels(n_classes, 70))
        total = [Fraction(sum(map(int, column)), 2**50) for column in sums[:n_classes].T]
        assert max(abs(one - 1) for one in total) <= n_classes * Fraction(1, 2**50)


def test_examples_of_a_call_are_more_than_those_worked_on_together() -> None:
    assert 1 < compiled.module.EXAMPLES < 70  # or tests here see no remainder
