"""audio_mu.audit.equivalence against a bootstrap, scipy's t test, and how often it errs where the truth is known."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from audio_mu.audit.equivalence import Gap, auc_gap, mean_gap, p_beyond, p_within
from audio_mu.audit.population import placements

SEEDS, PEOPLE, EACH = 24, 30, 6
NAMES = [f"p{person}" for person in range(PEOPLE) for _ in range(EACH)]


def differences(rng: np.random.Generator, mean: float = 0.0, n_seeds: int = SEEDS) -> np.ndarray:
    """Differences [seeds, recordings] with chance from seeds, people, recordings, and each answer."""
    parts = rng.normal(0, 0.05, (n_seeds, 1)), np.repeat(rng.normal(0, 0.1, PEOPLE), EACH)
    return mean + parts[0] + parts[1] + rng.normal(0, 0.1, PEOPLE * EACH) + rng.normal(0, 0.3, (n_seeds, len(NAMES)))


def test_the_error_is_that_of_a_bootstrap_over_seeds_and_people() -> None:
    """Catches chance that is left out: with people the error is 1.3 times that of seeds and recordings alone."""
    rng = np.random.default_rng(0)
    values = differences(rng)
    by_person = values.reshape(SEEDS, PEOPLE, EACH)
    drawn = [
        by_person[rng.integers(SEEDS, size=SEEDS)][:, rng.integers(PEOPLE, size=PEOPLE)].mean() for _ in range(4000)
    ]
    found = mean_gap(values, NAMES)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(np.std(drawn), rel=0.08)
    assert found.error > 1.25 * mean_gap(values, [""] * len(NAMES)).error
    assert found.degrees == SEEDS - 1


def test_an_auc_has_the_error_of_a_bootstrap_of_both_sides() -> None:
    """Catches an error of one side, and one of a single network."""
    rng = np.random.default_rng(1)
    m, n = 60, 45

    def losses(shift: float) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(-shift, 1, (SEEDS, m)) + hard[:m], rng.normal(0, 1, (SEEDS, n)) + hard[m:]

    hard = rng.normal(0, 1, m + n)
    ours, naive = losses(0.4), losses(0.0)

    def gap(seeds: np.ndarray, of_members: np.ndarray, of_others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = []
        for members, others in (ours, naive):
            placed = [placements(members[s][of_members], others[s][of_others]) for s in seeds]
            sides.append([np.stack(side) for side in zip(*placed, strict=True)])
        return sides[0][0] - sides[1][0], sides[0][1] - sides[1][1]

    found = auc_gap(*gap(np.arange(SEEDS), np.arange(m), np.arange(n)), [""] * m, [""] * n)
    drawn = [gap(*(rng.integers(size, size=size) for size in (SEEDS, m, n)))[0].mean() for _ in range(300)]
    assert found.error == pytest.approx(np.std(drawn), rel=0.2)
    assert found.mean == pytest.approx(np.mean(drawn), abs=2 * found.error)


def test_each_side_is_a_one_sided_t_test() -> None:
    """Catches the tails swapped, and the smaller of two p values taken for equivalence."""
    values = np.random.default_rng(2).normal(0.03, 0.1, 20)
    gap = Gap(float(values.mean()), float(values.std(ddof=1) / 20**0.5), 19)
    low, high = (ttest_1samp(values, end, alternative=side).pvalue for end, side in ((-0.1, "greater"), (0.1, "less")))
    assert p_within(gap, -0.1, 0.1) == pytest.approx(max(low, high))
    assert p_within(gap, -0.1, np.inf) == pytest.approx(low)
    assert p_beyond(gap, -0.01, np.inf) > 0.5
    above = ttest_1samp(values, -0.2, alternative="greater").pvalue
    assert p_beyond(gap, -np.inf, -0.2) == pytest.approx(2 * above)


def test_a_method_on_the_limit_is_called_equivalent_seldom_and_one_within_often() -> None:
    """Catches tests that promise more than 5 %, and tests that never find anything."""
    rng = np.random.default_rng(3)
    at, within = (
        np.mean([p_within(mean_gap(differences(rng, mean), NAMES), -0.1, 0.1) < 0.05 for _ in range(400)])
        for mean in (0.1, 0.0)
    )
    assert at <= 0.07
    assert within > 0.9
    beyond = np.mean([p_beyond(mean_gap(differences(rng, 0.1), NAMES), -0.1, 0.1) < 0.05 for _ in range(400)])
    assert beyond <= 0.07


def test_recordings_of_one_person_count_one_by_one() -> None:
    """Catches a request for one person, whom no other person could replace, refused or known to nothing."""
    values = differences(np.random.default_rng(4))
    assert mean_gap(values, ["p1"] * len(NAMES)) == mean_gap(values, [""] * len(NAMES))
    with pytest.raises(ValueError, match="two seeds and two recordings"):
        mean_gap(values[:1], NAMES)


def test_recordings_of_both_sides_are_not_one_by_their_places() -> None:
    """Catches the first member counted as one with the first non-member: their differences would cancel, or add up."""
    rng = np.random.default_rng(5)
    members = rng.normal(0, 0.1, (SEEDS, 40)) + rng.normal(0, 0.2, 40)
    names = [""] * 40
    found = auc_gap(members, -members, names, names)
    assert found.error == pytest.approx(auc_gap(members, -members[:, ::-1], names, names).error)
    assert found.error > mean_gap(members, names).error
