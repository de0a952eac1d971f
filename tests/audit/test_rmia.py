"""audio_mu.audit.rmia against the definition written as loops."""

import numpy as np
import pytest

from audio_mu.audit.rmia import halve, likelihood_ratio, rmia_attack, rmia_scores
from audio_mu.errors import UserError


def probabilities(n: int, seed: int, references: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.uniform(0.05, 1, n), generator.uniform(0.05, 1, (references, n))


@pytest.mark.parametrize(("a", "gamma"), [(0.3, 1.0), (0.0, 1.0), (0.7, 2.0)])
def test_scores_match_the_definition(a, gamma):
    """Would catch a and 1 - a exchanged, a lost factor one half (with gamma) or > in place of >=."""
    (target, references), (target_z, references_z) = probabilities(30, 0), probabilities(41, 1)

    def ratio(p: float, p_references: np.ndarray) -> float:
        p_out = sum(p_references) / len(p_references)
        return p / (0.5 * ((1 + a) * p_out + (1 - a)))

    ratios_z = [ratio(p, column) for p, column in zip(target_z, references_z.T)]
    expected = [sum(ratio(p, column) / z >= gamma for z in ratios_z) / 41 for p, column in zip(target, references.T)]
    members = np.arange(30) < 12
    scores, _ = rmia_attack(target, references, members, target_z, references_z, a=a, gamma=gamma)
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_ratio_by_hand():
    """Would catch another default of a: 0.9 / (0.5 (1.3 x 0.5 + 0.7)) = 1.3333."""
    assert likelihood_ratio([0.9], [[0.4], [0.6]])[0] == pytest.approx(4 / 3)


def test_ties_count_as_reached():
    """Would catch > in place of >=, and 0 / 0 turned into NaN."""
    np.testing.assert_array_equal(rmia_scores([1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 3.0]), [0.75, 0.25, 0.75])


def test_members_score_above_negatives():
    """Would catch a reversed direction: the audited network is surer of members than its references are."""
    generator = np.random.default_rng(2)
    difficulty = generator.uniform(0.1, 0.6, 400)
    references = np.tile(difficulty, (4, 1))
    members = np.arange(400) < 100
    target = np.where(members, np.minimum(1, 1.5 * difficulty), difficulty)
    population = generator.uniform(0.1, 0.6, 150)
    _, found = rmia_attack(target, references, members, population, np.tile(population, (4, 1)))
    assert found.auc > 0.75
    assert (found.n_members, found.n_nonmembers) == (100, 300)


def test_a_reference_against_itself_is_at_the_null():
    """Would catch scores that depend on membership alone: the same clips on both sides give 0.5."""
    target, references = probabilities(50, 3)
    members = np.arange(100) < 50
    _, found = rmia_attack(np.tile(target, 2), np.tile(references, 2), members, *probabilities(60, 4))
    assert found.auc == 0.5


def test_memory_is_bounded():
    """Would catch a matrix of clips x population: 200,000 x 200,000 booleans are 40 GB."""
    (target, references), (target_z, references_z) = probabilities(200_000, 5, 2), probabilities(200_000, 6, 2)
    scores = rmia_scores(likelihood_ratio(target, references), likelihood_ratio(target_z, references_z))
    assert scores.shape == (200_000,)
    assert scores.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("n", [2, 7, 100])
def test_halves_are_disjoint_and_whole(n):
    """Would catch a clip in both halves, a clip lost, and halves by position instead of by seed."""
    population, negatives = halve(n, seed=40)
    assert sorted([*population, *negatives]) == list(range(n))
    assert len(negatives) - len(population) == n % 2
    np.testing.assert_array_equal(population, halve(n, seed=40)[0])


def test_halves_depend_on_the_seed():
    """Would catch a seed that is not used."""
    assert not np.array_equal(halve(100, 40)[0], halve(100, 41)[0])
    assert not np.array_equal(halve(100, 40)[0], np.arange(50))


def test_too_few_held_out_clips_are_refused():
    """Would catch an empty population, for which every score is 0 / 0."""
    with pytest.raises(UserError, match="leaves 1"):
        halve(1, 40)
    with pytest.raises(ValueError, match="population"):
        rmia_scores([1.0], [])


def test_logs_and_wrong_shapes_are_refused():
    """Would catch log-probabilities passed as probabilities, and references laid out as [n, references]."""
    target, references = probabilities(6, 7)
    with pytest.raises(ValueError, match="probabilities"):
        likelihood_ratio(np.log(target), references)
    with pytest.raises(ValueError, match="p_references"):
        likelihood_ratio(target, references.T)
    with pytest.raises(ValueError, match="bool"):
        rmia_attack(target, references, np.arange(3), target, references)
