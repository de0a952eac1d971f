"""Standard errors over recordings against other ways of computing them, and the group that has lost the most."""

from __future__ import annotations

import numpy as np
import pytest

from audio_mu.audit.certainty import auc_error, majority_share, paired_error, worst_group
from audio_mu.audit.population import auc_interval, placements
from audio_mu.audit.statistics import clopper_pearson, pooled, t_interval


def test_paired_errors_are_those_of_agresti_and_min() -> None:
    """Catches unpaired errors, and one that is 0 where two models agree on a handful of recordings."""
    draw = np.random.default_rng(0)
    first, second = (draw.random((2, 200)) < 0.8).astype(float)
    b, c = (first > second).sum() + 0.5, (first < second).sum() + 0.5  # their cells, half a recording more in each
    expected = np.sqrt(b + c - (b - c) ** 2 / 202) / 202
    assert paired_error(first - second) == pytest.approx(expected, rel=1e-3)
    assert paired_error(np.zeros(8)) == pytest.approx(0.1)
    assert paired_error(np.zeros(40)) * 1.96 < clopper_pearson(0, 40)[1]


def test_errors_of_auc_differences_are_those_of_a_bootstrap() -> None:
    """Catches errors of two AUCs added as if the models had other recordings, or a weight that is lost."""
    draw = np.random.default_rng(1)
    common_in, common_out = draw.normal(0, 1, 120), draw.normal(0.5, 1, 80)
    models = [(common_in + draw.normal(0, 0.5, 120), common_out + draw.normal(0, 0.5, 80)) for _ in range(3)]
    for weights in ((1.0, -1.0, 0.0), (1.0, -0.5, -0.5)):
        sums = []
        for _ in range(800):
            members, nonmembers = draw.integers(0, 120, 120), draw.integers(0, 80, 80)
            aucs = [auc_interval(low[members], high[nonmembers])[0] for low, high in models]
            sums.append(np.dot(weights, aucs))
        found = auc_error([(weight, *placements(*model)) for weight, model in zip(weights, models)])
        assert found == pytest.approx(np.std(sums), rel=0.12)
    assert auc_error([(1.0, np.ones(8), np.ones(8)), (-1.0, np.ones(8), np.ones(8))]) == pytest.approx(0.5 / 9)


def test_placements_are_shares_of_the_other_side() -> None:
    """Catches ties that count whole, and the two groups exchanged."""
    above, below = placements([1.0, 3.0], [2.0, 3.0, 4.0])
    np.testing.assert_allclose(above, [1, 0.5])
    np.testing.assert_allclose(below, [0.5, 0.75, 1])
    assert above.mean() == below.mean() == auc_interval([1.0, 3.0], [2.0, 3.0, 4.0])[0]


def test_the_worst_group_is_the_one_that_has_surely_lost() -> None:
    """Catches a handful of recordings, or the unlucky one of many groups, told as a group that was wrecked."""
    differences = np.zeros(300)
    groups = ["a"] * 100 + ["b"] * 100 + ["few"] * 9 + [""] * 91
    differences[:50] = -1  # half of a
    differences[200:] = -1  # all of the few, and of nobody
    found = worst_group(differences, groups)
    assert found is not None
    assert (found.name, found.gap, found.n, found.of) == ("a", -0.5, 100, 2)
    assert -0.42 < found.high < -0.35
    many = worst_group(differences, [*groups[:200], *(f"g{i % 10}" for i in range(100))])
    assert many is not None and many.of == 12
    assert worst_group(differences, [""] * 300) is None
    lucky = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], (200, 400), p=[0.1, 0.8, 0.1])
    names = [f"g{i % 20}" for i in range(400)]
    surely = sum(found.high < 0 for row in lucky if (found := worst_group(row, names)) is not None)
    assert surely <= 14  # 5 of 200 are expected, one-sided


def test_the_largest_class_is_what_guessing_gives() -> None:
    """Catches one part in the number of classes, which says little of uneven ones."""
    assert majority_share([0, 0, 0, 1]) == 0.75
    assert majority_share([2] * 5) == 1.0


def test_pooled_differences_hold_both_samplings() -> None:
    """Catches seeds that agree by luck taken for certainty, recordings counted twice, and another t interval."""
    values = [0.01, 0.03, -0.02, 0.0, 0.02]
    plain = pooled(values)
    assert plain.half == pytest.approx((t_interval(values).high - t_interval(values).low) / 2)
    assert plain.sampling is None
    equal = pooled([0.01] * 5, [0.05] * 5)
    assert equal.half == pytest.approx(1.96 * 0.05 / 5**0.5, rel=1e-3)
    assert (equal.between, equal.scattered) == (0.0, False)
    apart = pooled([0.2, -0.2, 0.2, -0.2, 0.0], [0.03] * 5)
    assert apart.scattered
    assert apart.between == pytest.approx(0.04 - 0.03**2)
    assert apart.half > 2 * apart.sampling
    single = pooled([0.1], [0.05])
    assert (single.mean, single.half, single.between) == (0.1, single.sampling, 0.0)
    assert pooled([0.1]).half is None


def test_the_clips_of_a_recording_stand_or_fall_together() -> None:
    """Catches windows counted as so many recordings, which made an error several times too small."""
    draw = np.random.default_rng(4)
    of_recording = draw.integers(-1, 2, 60).astype(float)
    recordings = np.repeat(np.arange(60), 5)
    assert paired_error(np.repeat(of_recording, 5), recordings) == pytest.approx(paired_error(of_recording))
    assert paired_error(of_recording, np.arange(60)) == pytest.approx(paired_error(of_recording))
    members, nonmembers = draw.normal(0, 1, 60), draw.normal(0.5, 1, 60)
    one = auc_error([(1.0, *placements(members, nonmembers))])
    of = np.repeat(np.arange(60), 5)
    five = auc_error([(1.0, *placements(np.repeat(members, 5), np.repeat(nonmembers, 5)))], (of, of))
    assert five == pytest.approx(one)
    groups = np.repeat(["a", "b"], 30)
    single = worst_group(of_recording, groups)
    many = worst_group(np.repeat(of_recording, 5), np.repeat(groups, 5), recordings=recordings)
    assert single is not None and many is not None
    assert (many.name, many.n, many.gap) == (single.name, single.n, pytest.approx(single.gap))
    assert many.high == pytest.approx(single.high)
    sums = [auc_interval(members[i], nonmembers[j])[0] for i, j in draw.integers(0, 60, (800, 2, 60))]
    assert five == pytest.approx(np.std(sums), rel=0.12)
