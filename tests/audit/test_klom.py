"""audio_mu.audit.klom against histograms of numpy and divergences of scipy, and on margins whose answer is known."""

import numpy as np
import pytest
from scipy.stats import entropy

from audio_mu.audit.klom import gaussian_klom, halves, klom, spread

NETWORKS, CLIPS = 32, 200


def margins(centre: float, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, scale, (NETWORKS, CLIPS))


def test_klom_is_the_published_definition() -> None:
    """Catches the divergence the other way round, bins of one side, and an upper end outside of the last."""
    ours, theirs = margins(1.0, 0), margins(0.0, 1)
    ours[0, 0], theirs[3, 1] = 500.0, -np.inf  # cut at 100 and -100
    found = klom(ours, theirs)
    for clip in range(CLIPS):
        p, q = np.clip(ours[:, clip], -100, 100), np.clip(theirs[:, clip], -100, 100)
        edges = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 21)
        shares = [np.histogram(side, edges)[0] / NETWORKS for side in (p, q)]
        floored = np.where(shares[0] > 0, np.maximum(shares[1], 1e-5), shares[1])
        # scipy scales its second argument to a sum of 1, which the floor exceeds.
        assert found[clip] == pytest.approx(entropy(shares[0], floored) - np.log(floored.sum()), abs=1e-9)


def test_networks_that_agree_differ_by_nothing() -> None:
    """Catches a division by the width of no range."""
    assert klom(np.ones((NETWORKS, 3)), np.ones((NETWORKS, 3))).tolist() == [0.0, 0.0, 0.0]


def test_the_gaussian_divergence_is_the_textbook_one() -> None:
    """Catches variances swapped, ddof 0 and the factor of a half: KL between N(1, 4) and N(0, 1) is 1.3069."""
    ours = 2 * (side := margins(0.0, 2)) / side.std(axis=0, ddof=1)
    ours += 1 - ours.mean(axis=0)
    theirs = (other := margins(0.0, 3)) / other.std(axis=0, ddof=1)
    theirs -= theirs.mean(axis=0)
    assert gaussian_klom(ours, theirs) == pytest.approx(np.log(1 / 2) + (4 + 1) / 2 - 1 / 2, abs=1e-9)


def test_halves_of_retrained_networks_are_the_null_of_a_method_that_retrains() -> None:
    """Catches halves that share seeds: of the same networks on both sides they would show nothing, or too little."""
    naive, other, original = margins(0.0, 4), margins(0.0, 5), margins(2.0, 6)
    null = spread(halves(naive, naive))
    assert spread(halves(other, naive)).mean == pytest.approx(null.mean, rel=0.1)
    assert spread(halves(original, naive)).mean > 1.3 * null.mean
    assert spread(klom(naive, naive)).mean == 0  # what independent halves are for


def test_a_planted_leak_of_one_clip_in_twenty_shows_in_the_percentile() -> None:
    """Catches a percentile over networks instead of clips."""
    leaky = margins(0.0, 7)
    leaky[:, ::18] += 6.0
    clean, found = spread(halves(margins(0.0, 8), margins(0.0, 9))), spread(halves(leaky, margins(0.0, 9)))
    assert found.high > clean.high + 1 > found.mean


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_what_are_no_margins_is_refused(bad: np.ndarray) -> None:
    """Catches a figure of nothing."""
    with pytest.raises(ValueError, match="margins"):
        klom(bad, np.zeros((2, 3)))
