"""audio_mu.audit.statistics against scipy.stats called differently, published tables and enumeration."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audio_mu.audit.statistics import (
    balanced_accuracy_interval,
    clopper_pearson,
    friedman,
    holm,
    paired_differences,
    sign_flip_p,
    t_interval,
    wilcoxon_p,
)

VALUES = [0.91, 0.93, 0.90, 0.95, 0.92]


def test_t_interval_matches_scipy():
    """Would catch ddof 0, a normal quantile and n in place of n - 1 degrees of freedom."""
    found = t_interval(VALUES)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.std == pytest.approx(math.sqrt(sum((v - 0.922) ** 2 for v in VALUES) / 4))
    assert (found.high - found.mean) / found.std == pytest.approx(1.24, abs=0.005)


def test_one_value_has_no_interval():
    """Would catch NaN or an interval of width 0."""
    found = t_interval([0.5])
    assert (found.mean, found.n, found.std, found.low, found.high) == (0.5, 1, None, None, None)
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="values"):
            t_interval(bad)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 20), (20, 20)])
def test_clopper_pearson_by_its_definition(k, n):
    """Would catch another interval: at each limit the tail beyond k has probability 0.025."""
    low, high = clopper_pearson(k, n)
    assert low == 0 if k == 0 else stats.binom.sf(k - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if k == n else stats.binom.cdf(k, n, high) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="0 <= k <= n"):
        clopper_pearson(n + 1, n)


@pytest.mark.parametrize("differences", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, -0.1, 0.2, 0.4, -0.6], [0.0, 0.0, 1.0]])
def test_sign_flips_are_counted_out(differences):
    """Would catch a one-sided p and a drawn one: all sign patterns are enumerated here."""
    flipped = [
        abs(sum(s * d for s, d in zip(signs, differences))) for signs in product((1, -1), repeat=len(differences))
    ]
    expected = np.mean([total >= abs(sum(differences)) - 1e-12 for total in flipped])
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_five_seeds_cannot_be_significant():
    """Would catch a p below its floor: five equal signs give 2 / 32 = 0.0625, not less."""
    assert sign_flip_p(VALUES) == pytest.approx(0.0625)
    assert wilcoxon_p(VALUES) == pytest.approx(0.0625)
    assert sign_flip_p([1.0]) == 1.0
    assert wilcoxon_p([0.0, 0.0]) == 1.0


def test_wilcoxon_matches_scipys_exact_table():
    """Would catch sign flips of the values in place of the ranks."""
    differences = np.array([0.3, -0.1, 0.25, 0.4, -0.6, 0.7, 0.9])
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon_p(differences) == pytest.approx(expected)
    assert sign_flip_p(differences) != pytest.approx(expected)


def test_wilcoxon_leaves_zeros_out():
    """Would catch zeros that take the lowest ranks, which gives 0.1875 here."""
    differences = [0.1, -0.2, -0.3, 0.4, 0.5, 0.6, 0.7]
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon_p([0.0, 0.0, 0.0, *differences]) == pytest.approx(expected)


def test_paired_difference_uses_common_seeds():
    """Would catch pairing by position, the reversed sign and an interval of unpaired values."""
    a = {44: 0.5, 40: 0.9, 41: 0.8, 42: 0.7}
    b = {40: 0.8, 42: 0.65, 41: 0.6, 50: 0.1}
    (found,) = paired_differences([(a, b)])
    differences = [0.1, 0.2, 0.05]
    assert found.seeds == (40, 41, 42)
    assert found.interval.mean == pytest.approx(np.mean(differences))
    assert found.interval.std == pytest.approx(np.std(differences, ddof=1))
    assert found.p_floor == 0.25
    assert found.p_sign_flip == pytest.approx(0.25)
    with pytest.raises(ValueError, match="no common seeds"):
        paired_differences([({40: 1.0}, {41: 1.0})])


def test_pairs_together_are_as_each_alone():
    """Would catch p values that land at another pair, zeros that shift another row's ranks, lengths that are mixed."""
    draws = np.random.default_rng(0)
    base = {seed: 0.0 for seed in range(40, 46)}
    pairs = [({seed: float(draws.integers(-3, 4)) for seed in range(40, 40 + n)}, base) for n in (5, 3, 5, 1, 6, 3, 5)]
    assert paired_differences(pairs) == [paired_differences([pair])[0] for pair in pairs]
    for (values, _), found in zip(pairs, paired_differences(pairs), strict=True):
        kept = [value for value in values.values() if value]
        assert found.p_wilcoxon == pytest.approx(wilcoxon_p(kept) if kept else 1.0)


def test_same_values_differ_by_nothing():
    """Would catch an offset: naive against itself has difference 0 and p 1."""
    values = dict(zip(range(40, 45), VALUES))
    (found,) = paired_differences([(values, values)])
    assert (found.interval.mean, found.p_sign_flip, found.p_wilcoxon) == (0.0, 1.0, 1.0)


def test_balanced_accuracy_interval_covers():
    """Would catch a width off by a factor: 95 % of intervals contain the true (0.7 + 0.6) / 2."""
    generator = np.random.default_rng(0)
    members, nonmembers = generator.binomial(40, 0.7, 500), generator.binomial(90, 0.6, 500)
    found = [balanced_accuracy_interval(int(k), 40, int(m), 90) for k, m in zip(members, nonmembers)]
    assert 0.92 <= np.mean([f.low <= 0.65 <= f.high for f in found]) <= 0.98
    assert found[0].value == pytest.approx((members[0] / 40 + nonmembers[0] / 90) / 2)


def test_balanced_accuracy_width_near_the_normal_one():
    """Would catch limits joined by addition: for large n the half-width is 1.96 times the standard error."""
    found = balanced_accuracy_interval(6000, 10000, 7000, 10000)
    standard_error = math.sqrt(0.6 * 0.4 / 10000 + 0.7 * 0.3 / 10000) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * standard_error, rel=1e-3)


@pytest.mark.parametrize(
    ("counts", "at_chance"),
    [((100, 100, 0, 100), True), ((52, 100, 49, 100), True), ((90, 100, 80, 100), False), ((10, 100, 20, 100), False)],
)
def test_collapsed_attack_is_at_chance(counts, at_chance):
    """Would catch a collapsed attack (everything called member) that passes as sure of 0.5 with width 0."""
    found = balanced_accuracy_interval(*counts)
    assert found.at_chance is at_chance
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="both sides"):
        balanced_accuracy_interval(1, 0, 1, 1)


@pytest.fixture
def table() -> pd.DataFrame:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(12, 4)) + np.array([0.0, 0.3, 1.0, 2.0])
    return pd.DataFrame(values, columns=["one", "two", "three", "four"])


def test_friedman_matches_scipy_and_its_formula(table):
    """Would catch ranks over cells in place of methods, and the best method ranked last."""
    found = friedman(table, higher_is_better=True)
    expected = stats.friedmanchisquare(*(table[name] for name in table))
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    ranks = table.rank(axis=1, ascending=False).mean()
    assert found.average_ranks == pytest.approx(tuple(ranks))
    assert found.methods[int(np.argmin(found.average_ranks))] == "four"
    assert friedman(table, higher_is_better=False).average_ranks == pytest.approx(tuple(5 - ranks))
    assert "not independent" in found.note


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_matches_the_published_table(k, q):
    """Would catch a missing root of 2: q at 5 % as printed by Demsar (2006), Table 5."""
    values = np.random.default_rng(0).normal(size=(14, k))
    found = friedman(pd.DataFrame(values), higher_is_better=True)
    assert found.critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=1e-3)


def test_pairs_carry_holms_p(table):
    """Would catch Bonferroni, one-sided p values and a wrong standard error of a rank difference."""
    found = friedman(table, higher_is_better=True)
    assert len(found.pairs) == 6
    ranks = dict(zip(found.methods, found.average_ranks))
    raw = sorted(
        2 * (1 - stats.norm.cdf(abs(ranks[p.first] - ranks[p.second]) / math.sqrt(4 * 5 / 72))) for p in found.pairs
    )
    running, expected = 0.0, []
    for i, p in enumerate(raw):
        running = max(running, min(1.0, p * (6 - i)))
        expected.append(running)
    assert sorted(p.p_holm for p in found.pairs) == pytest.approx(expected)


def test_holm_by_hand():
    """Would catch adjusted values that fall: .01 x 4, .02 x 3, .03 x 2, then .04 not below .06."""
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])


def test_friedman_leaves_out_incomplete_cells(table):
    """Would catch a missing value ranked worst."""
    with_gap = table.copy()
    with_gap.iloc[3, 1] = np.nan
    found = friedman(with_gap, higher_is_better=True)
    assert found.n_cells == 11
    assert "1 incomplete cells" in found.note
    assert found.statistic == pytest.approx(friedman(table.drop(index=3), higher_is_better=True).statistic)


@pytest.mark.parametrize("shape", [(1, 4), (5, 2)])
def test_too_small_a_table_has_ranks_but_no_test(shape):
    """Would catch NaN or a traceback where there is nothing to test; ties everywhere are the same case."""
    found = friedman(pd.DataFrame(np.arange(np.prod(shape)).reshape(shape)), higher_is_better=True)
    assert (found.statistic, found.p_value, found.critical_difference, found.pairs) == (None, None, None, ())
    assert found.average_ranks[-1] == 1
    assert "no test" in found.note
    tied = friedman(pd.DataFrame(np.ones((4, 3))), higher_is_better=True)
    assert tied.statistic is None
    assert tied.average_ranks == (2, 2, 2)
    assert friedman(pd.DataFrame(np.full((2, 3), np.nan)), higher_is_better=True).n_cells == 0
