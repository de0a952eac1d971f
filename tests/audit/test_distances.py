"""audio_mu.audit.distances against scipy's Jensen-Shannon distance and hand numbers."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.special import softmax as scipy_softmax

from audio_mu.audit.distances import activation_distance, distances, js_divergence, tug_of_war


@pytest.fixture
def networks() -> dict[int, np.ndarray]:
    generator = np.random.default_rng(5)
    return {seed: (3 * generator.normal(size=(60, 6))).astype(np.float32) for seed in (40, 41, 42)}


def test_js_is_the_square_of_scipys_distance(networks):
    """Would catch the root left on, a division by the class count and KL(m, p) in place of KL(p, m)."""
    p, q = (scipy_softmax(networks[seed].astype(np.float64), axis=1) for seed in (40, 41))
    expected = jensenshannon(p, q, axis=1) ** 2
    found = js_divergence(networks[40], networks[41])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    middle = (p + q) / 2
    swapped = (rel_entr(middle, p) + rel_entr(middle, q)).sum(axis=1) / 2
    assert np.abs(found - swapped).min() > 1e-6
    np.testing.assert_allclose(js_divergence(networks[41], networks[40]), found, rtol=1e-12)


def test_js_by_hand():
    """Would catch base 2: p = (3/4, 1/4), q = (1/4, 3/4) gives ln 2 - H(3/4) = 0.130812 nats."""
    a, b = np.log([[0.75, 0.25]]), np.log([[0.25, 0.75]])
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert js_divergence(a, b)[0] == pytest.approx(expected, abs=1e-12)


def test_js_stays_in_its_bounds():
    """Would catch NaN from 0 log 0, values above ln 2 and values below 0 by rounding."""
    a = np.array([[1000.0, 0.0, 0.0], [5.0, 1.0, 2.0], [5.0, 1.0, 2.0]])
    b = np.array([[0.0, 1000.0, 0.0], [5.0, 1.0, 2.0], [5.0, 1.0, 2.0 + 1e-9]])
    found = js_divergence(a, b)
    assert found[0] == pytest.approx(np.log(2), abs=1e-12)
    assert found[1] == 0
    assert 0 <= found[2] < 1e-12
    assert (found <= np.log(2)).all()


def test_distances_ignore_a_shift_of_logits(networks):
    """Would catch distances of raw logits: softmax does not see a constant added to every class."""
    shifted = networks[40] + np.arange(60)[:, None]
    assert distances(shifted, networks[40])["activation"] < 1e-5
    assert distances(shifted, networks[40])["js"] < 1e-9


def test_activation_distance_by_hand():
    """Would catch a squared norm, a mean over classes or a norm over the whole set."""
    a, b = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.8, 0.2], [0.9, 0.1]])
    np.testing.assert_allclose(activation_distance(a, b), [np.sqrt(0.09 + 0.09), 0.0], atol=1e-12)
    assert distances(a, b)["activation"] == pytest.approx(np.sqrt(0.18) / 2)


def test_a_network_lies_at_zero_from_itself(networks):
    """Would catch a distance with an offset."""
    assert distances(networks[40], networks[40]) == {"activation": 0.0, "js": 0.0}


def test_undefined_distances_are_absent():
    """Would catch a distance of 0 or NaN from no clips."""
    assert distances(np.zeros((0, 3)), np.zeros((0, 3))) == {}


def test_other_clips_are_refused(networks):
    """Would catch broadcasting of one clip against many."""
    with pytest.raises(ValueError, match="one shape"):
        distances(networks[40], networks[41][:1])


def test_tug_of_war_by_hand():
    """Would catch a sum, a mean or signed gaps: 0.8 x 0.9 x 0.95."""
    unlearned = {"forget": 0.7, "remain": 0.8, "test": 0.9}
    retrained = {"forget": 0.5, "remain": 0.9, "test": 0.85}
    assert tug_of_war(unlearned, retrained) == pytest.approx(0.684)
    assert tug_of_war(retrained, retrained) == 1.0


def test_tug_of_war_without_reference_is_absent():
    """Would catch a missing retrained network counted as accuracy 0, and percentages."""
    whole = {"forget": 0.5, "remain": 0.9, "test": 0.85}
    assert tug_of_war(whole, {}) is None
    assert tug_of_war({"forget": 0.5}, whole) is None
    with pytest.raises(ValueError, match="fractions"):
        tug_of_war(whole | {"test": 85.0}, whole)
