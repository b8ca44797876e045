"""Metrics against numbers worked out from all draws at once, by scikit-learn and scipy."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from bprune_hpc.accumulators.classification import MAX_NLL, GroupSums, bytes_per_cell
from bprune_hpc.metrics.classification import Statistics
from bprune_hpc.metrics.definitions import CLASSIFICATION
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.half_samples import half_samples
from bprune_hpc.metrics.jackknife import jackknife
from bprune_hpc.posterior.draws import MEAN, group_of
from bprune_hpc.runner.work_split import Plan, make_plan
from tests.helpers.exact_sums import add_up

N_THRESHOLDS, N_EXAMPLES, N_CLASSES = 3, 53, 4


def plan_of(n_draws: int, pairing: str = "antithetic", batch_size: int = 10) -> Plan:
    return make_plan(
        n_draws=n_draws, pairing=pairing, n_thresholds=N_THRESHOLDS, n_examples=N_EXAMPLES,
        bytes_per_cell=bytes_per_cell(N_CLASSES), batch_size=batch_size,
        limit_bytes=1e9,
    )  # fmt: skip


class Case:
    """Random logits of every draw, and their statistics."""

    def __init__(self, plan: Plan, blocks: list[range] | None = None, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.plan = plan
        self.label = generator.integers(0, N_CLASSES, N_EXAMPLES)
        shape = (N_THRESHOLDS, N_EXAMPLES, N_CLASSES)
        centre = generator.normal(0, 1.5, shape)
        self.logits = centre + generator.normal(0, 1, (plan.n_draws, *shape))
        self.logits = self.logits.astype(np.float32)
        self.mean_logits = centre.astype(np.float32)
        self.statistics = Statistics(plan, keep_probabilities=True)
        for block in blocks or [range(N_EXAMPLES)]:
            rows = slice(block.start, block.stop)
            self.statistics.add_block(self._sums(rows), self.label[rows])
        self.probability = special.softmax(self.logits.astype(float), axis=3)

    def _sums(self, rows: slice) -> dict[int, GroupSums]:
        n = len(range(*rows.indices(N_EXAMPLES)))
        groups = [MEAN, *range(len(self.plan.group_sizes))]
        sums = {group: GroupSums(N_THRESHOLDS, n, N_CLASSES) for group in groups}
        label = self.label[rows]
        for t in range(N_THRESHOLDS):
            add_up(sums[MEAN], t, slice(0, n), self.mean_logits[t, rows].T[None], label)
            for unit, draws in enumerate(self.plan.replicates):
                for draw in draws:
                    one = self.logits[draw.index, t, rows].T[None]
                    add_up(sums[group_of(unit)], t, slice(0, n), one, label)
        return sums

    def oracle(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of some draws, from scikit-learn and scipy."""
        p = self.probability[draws]
        mean = p.mean(axis=0)
        log_p = np.log(mean[:, np.arange(N_EXAMPLES), self.label])
        classes = np.arange(N_CLASSES)
        wrong = mean.argmax(axis=2) != self.label
        confidence, entropy = mean.max(axis=2), stats.entropy(mean, axis=2)
        information = entropy - stats.entropy(p, axis=3).mean(axis=0)
        out = {
            "accuracy": [accuracy_score(self.label, m.argmax(axis=1)) for m in mean],
            "accuracy_single_draw": (p.argmax(axis=3) == self.label).mean(axis=(0, 2)),
            "accuracy_top_k": [
                top_k_accuracy_score(self.label, m, k=3, labels=classes) for m in mean
            ],
            "brier": ((mean - np.eye(N_CLASSES)[self.label]) ** 2).sum(axis=2).mean(axis=1),
            "nll": [log_loss(self.label, m, labels=classes) for m in mean],
            "predictive_entropy": stats.entropy(mean, axis=2).mean(axis=1),
            "expected_entropy": stats.entropy(p, axis=3).mean(axis=(0, 2)),
            "ece": [_loop_ece(c, ~w) for c, w in zip(confidence, wrong, strict=True)],
            "aurc": [_loop_aurc(c, w) for c, w in zip(confidence, wrong, strict=True)],
        }
        for name, score in (("entropy", entropy), ("mutual_information", information)):
            pairs = list(zip(wrong, score, strict=True))
            out[f"auroc_errors_{name}"] = [roc_auc_score(w, s) for w, s in pairs]
            out[f"aupr_errors_{name}"] = [average_precision_score(w, s) for w, s in pairs]
        np.testing.assert_allclose(out["nll"], -log_p.mean(axis=1))
        found = {name: np.asarray(value, float) for name, value in out.items()}
        found["mutual_information"] = found["predictive_entropy"] - found["expected_entropy"]
        found["probability_variance"] = p.var(axis=0).sum(axis=2).mean(axis=1)
        for name in ("brier", "ece", "aurc"):
            found[f"{name}_change"] = found[name] - found[name][0]
        found["accuracy_drop"] = found["accuracy"][0] - found["accuracy"]
        found["nll_rise"] = found["nll"] - found["nll"][0]
        return found


def _loop_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.ceil(confidence * 15)
    gaps = [
        abs(confidence[bins == b].mean() - correct[bins == b].mean()) * (bins == b).sum()
        for b in np.unique(bins)
    ]
    return sum(gaps) / len(confidence)


def _loop_aurc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    order = np.argsort(-confidence)
    return float(np.mean([wrong[order[: i + 1]].mean() for i in range(len(order))]))


CORRECTED = {
    "nll", "nll_rise", "brier", "predictive_entropy", "expected_entropy", "mutual_information",
    "probability_variance",
}  # fmt: skip


def is_corrected(name: str) -> bool:
    return name.removesuffix("_change") in CORRECTED


@pytest.fixture
def case(instructions: str) -> Case:
    return case_with(instructions)


@cache
def case_with(instructions: str) -> Case:
    """Made once for each set of instructions, which is in use already."""
    return Case(plan_of(100))


def test_values_are_those_of_all_draws_at_once(case: Case) -> None:
    metrics = case.statistics.metrics()
    for name, expected in case.oracle(np.arange(100)).items():
        if not is_corrected(name):
            np.testing.assert_allclose(metrics[name].value, expected, atol=1e-12, err_msg=name)


def test_errors_are_the_jackknife_over_groups_of_pairs(case: Case) -> None:
    whole = case.oracle(np.arange(100))
    group = (np.arange(100) // 2) % 20
    sizes = np.bincount(group) / 2
    left_out = [case.oracle(np.flatnonzero(group != g)) for g in range(20)]
    metrics = case.statistics.metrics()
    for name, estimate in whole.items():
        if CLASSIFICATION[name].has_halves:
            continue
        # Busing et al. 1999, eq. for unequal groups, written out term by term.
        h = 50 / sizes
        corrected = 20 * estimate - sum((1 - 1 / h[g]) * left_out[g][name] for g in range(20))
        variance = sum(
            (h[g] * estimate - (h[g] - 1) * left_out[g][name] - corrected) ** 2 / (h[g] - 1)
            for g in range(20)
        ) / 20  # fmt: skip
        if is_corrected(name):  # the correction counts as uncertain by its own size
            variance = variance + (corrected - estimate) ** 2
        np.testing.assert_allclose(
            metrics[name].se, np.sqrt(variance), rtol=1e-6, atol=1e-10, err_msg=name
        )
        if is_corrected(name):
            np.testing.assert_allclose(metrics[name].value, corrected, rtol=1e-7, atol=1e-12)


def test_errors_of_steps_are_those_of_balanced_half_samples(case: Case) -> None:
    whole = case.oracle(np.arange(100))
    group = (np.arange(100) // 2) % 20
    halves = [case.oracle(np.flatnonzero(half[group])) for half in half_samples(20)]
    share = [half[group].mean() for half in half_samples(20)]
    metrics = case.statistics.metrics()
    steps = [name for name in whole if CLASSIFICATION[name].has_halves]
    assert {"accuracy", "accuracy_drop", "ece", "aurc", "auroc_errors_entropy"} <= set(steps)
    for name in steps:
        squares = [
            w / (1 - w) * (half[name] - whole[name]) ** 2
            for w, half in zip(share, halves, strict=True)
        ]
        np.testing.assert_allclose(
            metrics[name].se, np.sqrt(np.mean(squares, axis=0)), atol=1e-12, err_msg=name
        )


def test_bias_of_order_one_over_draws_is_taken_off() -> None:
    case = Case(plan_of(1000, "none"))

    def information(draws: np.ndarray) -> np.ndarray:
        p = case.probability[draws]
        entropy = stats.entropy(p.mean(axis=0), axis=2) - stats.entropy(p, axis=3).mean(axis=0)
        return entropy.mean(axis=1)

    truth = information(np.arange(1000))
    corrected, plain = [], []
    for start in range(0, 1000, 20):
        draws = np.arange(start, start + 20)
        whole = information(draws)
        left_out = [information(np.delete(draws, k)) for k in range(20)]
        corrected.append(jackknife(whole, np.array(left_out), [1] * 20)[0])
        plain.append(whole)
    error = np.std(plain, axis=0) / np.sqrt(50)
    assert (np.abs(np.mean(corrected, axis=0) - truth) < 4 * error).all()
    assert (truth - np.mean(plain, axis=0) > 10 * error).all()


def test_data_errors_are_standard_errors_over_examples(case: Case) -> None:
    mean = case.probability.mean(axis=0)
    correct = (mean.argmax(axis=2) == case.label).astype(float)
    nll = -np.log(mean[:, np.arange(N_EXAMPLES), case.label])
    metrics = case.statistics.metrics()
    for name, values in (
        ("accuracy", correct),
        ("nll", nll),
        ("accuracy_drop", correct[0] - correct),
        ("nll_rise", nll - nll[0]),
        ("predictive_entropy", stats.entropy(mean, axis=2)),
    ):
        np.testing.assert_allclose(metrics[name].se_data, stats.sem(values, axis=1), atol=1e-12)


def test_data_errors_of_the_set_leave_groups_of_examples_out(case: Case) -> None:
    mean = case.probability.mean(axis=0)
    wrong = mean.argmax(axis=2) != case.label
    confidence, entropy = mean.max(axis=2), stats.entropy(mean, axis=2)
    metrics = case.statistics.metrics()
    groups = np.arange(N_EXAMPLES) % 50
    sizes = np.bincount(groups).tolist()
    for t in range(N_THRESHOLDS):
        for name, function, score, outcome in (
            ("auroc_errors_entropy", roc_auc_score, entropy[t], wrong[t]),
            ("aurc", lambda w, c: _loop_aurc(c, w), confidence[t], wrong[t]),
        ):
            left = [function(outcome[groups != g], score[groups != g]) for g in range(50)]
            _, se = jackknife(np.float64(function(outcome, score)), np.array(left), sizes)
            assert metrics[name].se_data[t] == pytest.approx(se, rel=1e-6), name


def test_the_mean_network_has_no_monte_carlo_error(case: Case) -> None:
    metric = case.statistics.metrics()["accuracy_mean_weights"]
    expected = (case.mean_logits.argmax(axis=2) == case.label).mean(axis=1)
    np.testing.assert_allclose(metric.value, expected)
    assert (metric.se == 0).all() and (metric.se_data > 0).all()


def test_the_reference_itself_has_no_difference(case: Case) -> None:
    for name in ("accuracy_drop", "nll_rise"):
        metric = case.statistics.metrics()[name]
        assert (metric.value[0], metric.se[0], metric.se_data[0]) == (0, 0, 0)


def test_blocks_of_examples_change_no_bit(case: Case) -> None:
    blocks = [range(0, 10), range(10, 40), range(40, N_EXAMPLES)]
    other = Case(plan_of(100), blocks)
    for name, metric in case.statistics.metrics().items():
        again = other.statistics.metrics()[name]
        for field in ("value", "se", "se_data", "low", "high"):
            assert getattr(metric, field).tobytes() == getattr(again, field).tobytes(), name
    one, two = case.statistics.mean_probability, other.statistics.mean_probability
    assert one is not None and two is not None and one.tobytes() == two.tobytes()


def test_per_example_values(case: Case) -> None:
    expected = stats.entropy(case.probability.mean(axis=0), axis=2)
    np.testing.assert_allclose(case.statistics.per_example("predictive_entropy"), expected)


def test_one_pair_has_no_error() -> None:
    metrics = Case(plan_of(2)).statistics.metrics()
    assert np.isnan(metrics["nll"].se).all()
    assert np.isfinite(metrics["nll"].se_data).all()
    assert np.isfinite(metrics["mutual_information"].value).all()


def test_three_draws_without_pairs_are_three_groups() -> None:
    case = Case(plan_of(3, "none"))
    single = case.oracle(np.arange(3))["accuracy_single_draw"]
    metric = case.statistics.metrics()["accuracy_single_draw"]
    draws = (case.probability.argmax(axis=3) == case.label).mean(axis=2)
    np.testing.assert_allclose(metric.value, single)
    np.testing.assert_allclose(metric.se, stats.sem(draws, axis=0), atol=1e-14)


@pytest.mark.usefixtures("instructions")
def test_one_example_and_an_impossible_class() -> None:
    plan = make_plan(
        n_draws=2, pairing="none", n_thresholds=1, n_examples=1, bytes_per_cell=64,
        batch_size=5, limit_bytes=1e9,
    )  # fmt: skip
    statistics = Statistics(plan)
    logits = np.array([[0, -1e5]], np.float32).T[None]
    sums = {group: GroupSums(1, 1, 2) for group in (MEAN, 0, 1)}
    for group in sums.values():
        add_up(group, 0, slice(0, 1), logits, np.array([1]))
    statistics.add_block(sums, np.array([1]))
    metrics = statistics.metrics()
    assert metrics["nll"].value == MAX_NLL and metrics["accuracy"].value == 0
    assert metrics["nll"].se == 0 and np.isnan(metrics["nll"].se_data)
    assert metrics["predictive_entropy"].value == 0


def test_both_errors_combine_in_squares() -> None:
    metric = Metric(np.zeros(1), np.array([3.0]), np.array([4.0]))
    assert metric.se_combined == 5


def test_names_are_those_of_the_metrics(case: Case) -> None:
    assert list(CLASSIFICATION) == list(case.statistics.metrics())
    steps = {name for name, definition in CLASSIFICATION.items() if definition.is_discrete}
    assert {"accuracy", "accuracy_drop", "ece_change"} <= steps
    assert not steps & {"nll", "nll_rise", "brier_change", "probability_variance"}
