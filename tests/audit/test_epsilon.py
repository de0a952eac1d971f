"""audio_mu.audit.epsilon against the definition written as loops over thresholds and relabelings."""

import math
from itertools import combinations, product

import numpy as np
import pytest

from audio_mu.audit.epsilon import epsilon_bound

DELTA = 1e-5


def slow_bound(unlearned: list[float], retrained: list[float]) -> float:
    """The bound of one clip, by thresholds on the real line and by both directions."""
    best = 0.0
    values = sorted([*unlearned, *retrained])
    for threshold in [-1e9, *(np.add(values[1:], values[:-1]) / 2), 1e9]:
        for sign in (1, -1):
            fpr = np.mean([sign * r > sign * threshold for r in retrained])
            fnr = np.mean([sign * u <= sign * threshold for u in unlearned])
            if fpr == 0 and fnr == 0:
                return math.inf
            if fpr == 0 or fnr == 0:
                continue
            if fpr < 1 - DELTA:
                best = max(best, math.log(1 - DELTA - fpr) - math.log(fnr))
            if fnr < 1 - DELTA:
                best = max(best, math.log(1 - DELTA - fnr) - math.log(fpr))
    return best


def scores(n: int, shift: float = 0.0, seed: int = 0, n_seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, (n_seeds, n)), generator.normal(0, 1, (n_seeds, n))


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 6])
def test_bounds_match_the_definition(n_seeds):
    """Would catch one direction of the test only, rates exchanged, and thresholds kept with one rate at 0."""
    unlearned, retrained = scores(60, 0.8, n_seeds=n_seeds)
    expected = [slow_bound(list(u), list(r)) for u, r in zip(unlearned.T, retrained.T)]
    found = epsilon_bound(unlearned, retrained)
    np.testing.assert_allclose(found.bounds, expected, atol=1e-12)
    np.testing.assert_array_equal(found.separated, np.isinf(expected))


def test_largest_value_of_five_seeds_is_ln_4():
    """Would catch a dropped threshold counted as certain: FPR = FNR = 1/5 is the most that five seeds show."""
    unlearned, retrained = [[1.0], [6], [7], [8], [9]], [[0.0], [2], [3], [4], [6.5]]
    found = epsilon_bound(unlearned, retrained)
    expected = math.log((1 - DELTA - 0.2) / 0.2)
    assert found.bounds[0] == pytest.approx(expected)
    assert expected == pytest.approx(math.log(4), abs=1e-4)


def test_tied_scores_are_never_parted():
    """Would catch a threshold between two equal scores, which separates by the order of sorting."""
    unlearned, retrained = scores(40, 0.5)
    unlearned, retrained = np.round(unlearned), np.round(retrained)
    expected = [slow_bound(list(u), list(r)) for u, r in zip(unlearned.T, retrained.T)]
    np.testing.assert_allclose(epsilon_bound(unlearned, retrained).bounds, expected, atol=1e-12)


def test_naive_against_itself_is_at_the_null():
    """Would catch ties read as separation: the bound is 0 and every relabeling reaches it."""
    _, retrained = scores(30)
    found = epsilon_bound(retrained, retrained)
    assert (found.bounds == 0).all()
    assert found.separated_share == 0
    assert found.independent.mean_bound_p == 1
    assert found.paired.mean_bound == 0
    constant = epsilon_bound(np.ones((5, 4)), np.ones((5, 4)))
    assert (constant.mean_bound, constant.undecided_share) == (0, 1)


def test_perfect_separation_in_either_direction():
    """Would catch separation seen only where unlearned scores are the higher ones."""
    low, high = np.arange(5.0)[:, None], np.arange(5.0)[:, None] + 10
    for pair in ((low, high), (high, low)):
        found = epsilon_bound(*pair)
        assert found.separated.all()
        assert found.separated_share == 1
        assert found.mean_bound == found.separated_value == pytest.approx(math.log(5), abs=1e-4)


def test_relabelings_are_counted_out():
    """Would catch wrong nulls: 126 relabelings and 16 swaps, each computed here by the slow definition."""
    unlearned, retrained = scores(8, 1.0, seed=4)
    found = epsilon_bound(unlearned, retrained)
    pooled = np.vstack([unlearned, retrained])

    def summary(chosen: tuple[int, ...]) -> tuple[float, float]:
        rest = [i for i in range(10) if i not in chosen]
        bounds = [slow_bound(list(clip[list(chosen)]), list(clip[rest])) for clip in pooled.T]
        capped = [min(bound, math.log((1 - DELTA) / 0.2)) for bound in bounds]
        return float(np.mean(capped)), float(np.mean(np.isinf(bounds)))

    # All 252 choices and all 32 swaps: each distinct relabeling twice, since complements give the same bound.
    everything = np.array([summary(chosen) for chosen in combinations(range(10), 5)])
    swaps = np.array(
        [summary(tuple(s + 5 * side for s, side in enumerate(sides))) for sides in product((0, 1), repeat=5)]
    )
    observed = np.array([found.mean_bound, found.separated_share])
    np.testing.assert_allclose(observed, summary((0, 1, 2, 3, 4)), atol=1e-12)
    for null, expected in ((found.independent, everything[:, 0]), (found.paired, swaps[:, 0])):
        assert null.mean_bound == pytest.approx(expected.mean())
        assert null.mean_bound_p == pytest.approx((expected >= found.mean_bound - 1e-9).mean())
    assert found.separated_by_chance == pytest.approx(everything[:, 1].mean()) == pytest.approx(2 / 252)


def test_smallest_p_values_have_their_floors():
    """Would catch p = 0: the true labelling is one of 126 and one of 16."""
    unlearned, retrained = scores(20, 50.0)
    found = epsilon_bound(unlearned, retrained)
    assert found.independent.mean_bound_p == pytest.approx(1 / 126)
    assert found.paired.mean_bound_p == pytest.approx(1 / 16)


def test_many_seeds_are_drawn():
    """Would catch an enumeration of C(24, 12) relabelings, and draws that differ between calls."""
    first, second = (epsilon_bound(*scores(5, 0.3, n_seeds=12)) for _ in range(2))
    assert first.independent == second.independent
    assert (first.independent.mean_bound_p * 2000).is_integer()


def test_text_says_bound_and_promises_nothing():
    """Would catch a report that sells five networks as a guarantee."""
    text = epsilon_bound(*scores(5)).reading
    assert text.startswith("bound from 5 + 5 networks (no guarantee)")
    assert "epsilon" not in text.lower()
    assert "0.79%" in text


@pytest.mark.parametrize(
    "pair",
    [
        (np.zeros((5, 2)), np.zeros((4, 2))),
        (np.zeros((1, 2)), np.zeros((1, 2))),
        (np.zeros((5, 0)), np.zeros((5, 0))),
        (np.zeros(5), np.zeros(5)),
        (np.full((5, 2), np.nan), np.zeros((5, 2))),
    ],
)
def test_wrong_scores_are_refused(pair):
    """Would catch unpaired seeds, one network a side, no clips and NaN sorted to the end."""
    with pytest.raises(ValueError, match="scores"):
        epsilon_bound(*pair)
