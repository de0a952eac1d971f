"""audio_mu.audit.population against scikit-learn, pair counting and resampling."""

import math

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from audio_mu.audit.population import auc_interval, population_attack


def groups(n: int, m: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return np.exp(generator.normal(-shift, 1, n)), np.exp(generator.normal(0, 1, m))


def as_problem(members: np.ndarray, nonmembers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat([1, 0], [len(members), len(nonmembers)])
    return truth, -np.concatenate([members, nonmembers])


@pytest.mark.parametrize("decimals", [12, 0])
def test_auc_matches_sklearn(decimals):
    """Would catch the wrong direction (members have the lower losses) and ties that count 0 or 1."""
    members, nonmembers = (np.round(group, decimals) for group in groups(150, 220, 0.7))
    found = population_attack(members, nonmembers)
    assert found.auc == pytest.approx(roc_auc_score(*as_problem(members, nonmembers)), abs=1e-12)
    assert found.auc > 0.6


def test_standard_error_is_delongs():
    """Would catch swapped group sizes: DeLong's components are counted here pair by pair."""
    members, nonmembers = groups(12, 30, 0.5)
    wins = [[(a < b) + 0.5 * (a == b) for b in nonmembers] for a in members]
    by_member = [sum(row) / 30 for row in wins]
    by_nonmember = [sum(column) / 12 for column in zip(*wins)]
    expected = math.sqrt(np.var(by_member, ddof=1) / 12 + np.var(by_nonmember, ddof=1) / 30)
    assert population_attack(members, nonmembers).auc_standard_error == pytest.approx(expected, rel=1e-9)


def test_standard_error_at_the_sizes_of_small_data():
    """Would catch an error off by a root: 144 clips against 360 have .029 without leakage (known value)."""
    errors = [population_attack(*groups(144, 360, 0.0, seed)).auc_standard_error for seed in range(20)]
    assert np.mean(errors) == pytest.approx(0.029, abs=0.001)


def test_interval_covers_chance():
    """Would catch intervals too narrow: without leakage 95 % of them contain 0.5."""
    covered = 0
    for seed in range(400):
        _, _, low, high = auc_interval(*groups(30, 50, 0.0, seed))
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_interval_of_complete_separation_is_not_a_point():
    """Would catch an interval of width 0 from a vanishing variance: three clips against four prove little."""
    found = population_attack([1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0])
    assert (found.auc, found.auc_high, found.auc_standard_error) == (1.0, 1.0, None)
    assert 0.4 < found.auc_low < 0.9
    mirrored = population_attack([4.0, 5.0, 6.0, 7.0], [1.0, 2.0, 3.0])
    assert mirrored.auc_high == pytest.approx(1 - found.auc_low, abs=1e-9)


def test_newcombe_limit_solves_its_equation():
    """Would catch a wrong variance: at the limit t of AUC 1, (1 - t)^2 is z^2 times Hanley and McNeil's V(t)."""
    n, m = 20, 35
    _, _, t, _ = auc_interval(np.arange(n), np.arange(m) + n)
    q1, q2 = t / (2 - t), 2 * t * t / (1 + t)
    mean_size = (n + m) / 2
    # Newcombe's method 5 puts the mean size in place of each of the two sizes.
    variance = (t * (1 - t) + (mean_size - 1) * (q1 - t * t + q2 - t * t)) / (n * m)
    assert (1 - t) ** 2 == pytest.approx(1.959964**2 * variance, rel=1e-5)


def test_same_losses_are_exactly_at_the_null():
    """Would catch ties decided for one side: a naive network against itself must give 0.5."""
    losses = groups(80, 1, 0.0)[0]
    found = population_attack(losses, losses)
    assert found.auc == 0.5
    assert found.balanced_accuracy == 0.5
    assert found.auc_low + found.auc_high == pytest.approx(1.0)
    assert not found.over_unlearned
    constant = population_attack(np.ones(5), np.ones(9))
    assert (constant.auc, constant.balanced_accuracy) == (0.5, 0.5)
    assert constant.auc_low < 0.5 < constant.auc_high


def test_balanced_accuracy_matches_sklearn_at_the_count_threshold():
    """Would catch plain accuracy: the 60 lowest losses are called members."""
    members, nonmembers = groups(60, 300, 1.0)
    truth, scores = as_problem(members, nonmembers)
    called = scores >= np.sort(scores)[::-1][59]
    expected = balanced_accuracy_score(truth, called)
    assert population_attack(members, nonmembers).balanced_accuracy == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_is_not_optimistic():
    """Would catch a threshold chosen on the labels, which gives 0.56 here without any leakage."""
    found = [population_attack(*groups(30, 60, 0.0, seed)).balanced_accuracy for seed in range(400)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("m", "decimals"), [(100, 12), (1000, 12), (2999, 12), (2999, 1)])
def test_rates_match_sklearn(m, decimals):
    """Would catch a false-positive rate above the limit, an index off by one and floor(0.01 n) rounded down."""
    members, nonmembers = (np.round(group, decimals) for group in groups(500, m, 1.5))
    fpr, tpr, _ = roc_curve(*as_problem(members, nonmembers), drop_intermediate=False)
    found = population_attack(members, nonmembers)
    for rate, limit, needed in ((found.tpr_at_fpr_1pct, 0.01, 100), (found.tpr_at_fpr_01pct, 0.001, 1000)):
        if m < needed:
            assert rate.value is None
            continue
        expected = tpr[fpr <= limit + 1e-12].max()
        assert rate.value == pytest.approx(expected, abs=1e-12)
        k = round(expected * 500)
        low, high = beta.ppf(0.025, k, 500 - k + 1), beta.ppf(0.975, k + 1, 500 - k)
        assert rate.low == pytest.approx(0.0 if k == 0 else low, abs=1e-9)
        assert rate.high == pytest.approx(high, abs=1e-9)


def test_rates_below_their_power_are_refused_in_words():
    """Would catch a rate printed from 999 or 99 negatives."""
    found = population_attack(*groups(50, 999, 1.0))
    assert found.tpr_at_fpr_01pct.value is None
    assert found.tpr_at_fpr_01pct.note == "n too small: needs >= 1,000 negatives, has 999"
    assert found.tpr_at_fpr_1pct.value is not None
    small = population_attack(*groups(50, 99, 1.0))
    assert small.tpr_at_fpr_1pct.note == "n too small: needs >= 100 negatives, has 99"
    assert set(small.as_metrics()) == {"auc", "auc_low", "auc_high", "balanced_accuracy"}


def test_metrics_hold_defined_numbers_only():
    """Would catch None, NaN or 0 logged for what is not known."""
    full = population_attack(*groups(50, 1000, 1.0)).as_metrics()
    rates = ("tpr_at_fpr_1pct", "tpr_at_fpr_0.1pct")
    assert {f"{name}{end}" for name in rates for end in ("", "_low", "_high")} < set(full)
    assert all(isinstance(value, float) and math.isfinite(value) for value in full.values())
    for sides in (([], [1.0]), ([1.0], [])):
        assert population_attack(*sides).as_metrics() == {}
        assert population_attack(*sides).reading.startswith("no attack")


def test_over_unlearned_is_said():
    """Would catch an AUC near 0 read as well forgotten."""
    found = population_attack(*groups(200, 200, -1.0))
    assert found.auc < 0.5
    assert found.over_unlearned
    assert "below 0.5: worse fits" in found.reading
    undecided = population_attack(*groups(20, 20, -0.2, seed=1))
    assert undecided.auc < 0.5
    assert not undecided.over_unlearned
    assert "contains 0.5" in undecided.reading
    leaking = population_attack(*groups(200, 200, 1.0))
    assert not leaking.over_unlearned
    assert "above 0.5: better fits" in leaking.reading


def test_nan_losses_are_refused():
    """Would catch NaN ranked as the largest loss."""
    with pytest.raises(ValueError, match="NaN"):
        population_attack([1.0, np.nan], [1.0])
