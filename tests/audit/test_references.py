"""LiRA, online RMIA and a person's attack on drawn confidences: known answers, and formulas written as loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, norm
from sklearn.metrics import roc_auc_score

from audio_mu.audit.references import (
    References,
    gaussians,
    lira_attack,
    online_rmia_attack,
    people_of,
    person_attack,
    references_of,
    unseen_statistics,
)
from tests.audit.drawn import Drawn, drawn

PUBLISHED = {(128, False): 0.812625, (128, True): 0.798925, (32, True): 0.820625}
"""(models, one variance) → AUC of `generate_ours` of google's mi_lira_2021/plot.py (tensorflow/privacy at 03035d5) on
`drawn(400, models, 7)`; it takes medians, and deviations from one mean of all recordings."""


@pytest.mark.parametrize("shared", [False, True])
def test_the_likelihood_ratio_is_that_of_the_paper(shared: bool) -> None:
    """Catches sides exchanged, a variance of the wrong side or of all recordings, a lost log of a deviation."""
    known = drawn(12, 8, 1)
    target, found = known.target(np.arange(12) < 6), []
    phi, member = known.phi, known.member

    def deviation(side: np.ndarray, clip: int) -> float:
        if not shared:
            return np.std(phi[side[:, clip], clip], ddof=1)
        own = [[x - np.mean(phi[side[:, i], i]) for x in phi[side[:, i], i]] for i in range(12)]
        return np.sqrt(sum(x * x for clip_ in own for x in clip_) / sum(len(clip_) - 1 for clip_ in own))

    for clip in range(12):
        own_in, own_out = phi[member[:, clip], clip], phi[~member[:, clip], clip]
        found.append(
            norm.logpdf(target[clip], np.mean(own_in), deviation(member, clip))
            - norm.logpdf(target[clip], np.mean(own_out), deviation(~member, clip))
        )
    np.testing.assert_allclose(gaussians(phi, member, shared).log_ratio(target), found, atol=1e-9)


@pytest.mark.parametrize(("models", "shared"), PUBLISHED)
def test_the_auc_is_near_that_of_the_published_code(models: int, shared: bool) -> None:
    """Catches an attack of another power than the published one on the same confidences."""
    known = drawn(400, models, 7)
    is_member = np.arange(400) < 200
    scores = gaussians(known.phi, known.member, shared).log_ratio(known.target(is_member))
    assert roc_auc_score(is_member, scores) == pytest.approx(PUBLISHED[models, shared], abs=0.01)


def test_few_references_share_the_variance() -> None:
    """Catches variances of two models each, which make a rare recording certain."""
    assert drawn(10, 62, 0).references().shared and not drawn(10, 64, 0).references().shared


def test_lira_finds_nothing_in_a_model_that_never_saw_the_recordings_and_much_in_the_original() -> None:
    """Catches an attack that finds members anywhere, or nowhere."""
    known = drawn(2_000, 64, 3, gap=2.0)
    references, rows = known.references(), np.arange(2_000)
    learnt = np.arange(2_000) < 1_000
    _, unseen = lira_attack(references, known.target(np.zeros(2_000, bool)), rows, 1_000)
    scores, original = lira_attack(references, known.target(learnt), rows, 1_000)
    assert unseen.auc is not None and original.auc is not None
    assert abs(unseen.auc - 0.5) < 0.03 and unseen.tpr_at_fpr_1pct.value < 0.03
    assert original.auc > 0.9 and scores[:1_000].mean() > scores[1_000:].mean()
    assert unseen.tpr_at_fpr_01pct.value is not None and unseen.tpr_at_fpr_01pct.low <= unseen.tpr_at_fpr_01pct.value


def test_a_planted_leak_is_found_at_few_false_positives() -> None:
    """Catches a figure of averages alone: 5 % of the recordings are in the model, and 95 % are not."""
    known = drawn(4_000, 64, 4)
    raised = np.full(4_000, 12.0)  # loud enough for each of them to be seen
    phi = known.hard + raised * known.member + known.scatter * known.draw.normal(size=known.member.shape)
    loud = Drawn(known.hard, raised, known.scatter, known.member, phi, known.draw)
    leaked = np.arange(4_000) < 100  # of 2,000 that were asked for
    _, found = lira_attack(loud.references(), loud.target(leaked), np.arange(4_000), 2_000)
    rate = found.tpr_at_fpr_1pct
    assert rate.value == pytest.approx(0.05 + 0.95 * 0.01, abs=0.01) and rate.low < 0.0595 < rate.high
    assert found.auc is not None and found.auc < 0.56


def test_rates_refuse_themselves_without_negatives() -> None:
    """Catches a true-positive rate at 1 % of 40 non-members."""
    known = drawn(100, 8, 5)
    _, found = lira_attack(known.references(), known.target(np.arange(100) < 60), np.arange(100), 60)
    assert found.tpr_at_fpr_1pct.value is None and "n too small" in found.tpr_at_fpr_1pct.note


def test_online_rmia_matches_its_definition() -> None:
    """Catches p(x) of the models that have not learnt x alone, a population among the negatives, a > for a >=."""
    known = drawn(60, 8, 6)
    target, population = known.target(np.arange(60) < 20), np.arange(0, 40, 2)
    scores, _ = online_rmia_attack(known.references(), target, np.arange(60), 20, population)

    def p(phi: float) -> float:
        return 1 / (1 + np.exp(-phi))

    def ratio(clip: int) -> float:
        own_in = np.mean([p(known.phi[m, clip]) for m in range(8) if known.member[m, clip]])
        own_out = np.mean([p(known.phi[m, clip]) for m in range(8) if not known.member[m, clip]])
        return p(target[clip]) / ((own_in + own_out) / 2)

    asked = [*range(20), *(20 + i for i in range(40) if i not in population)]
    expected = [np.mean([ratio(x) / ratio(20 + z) >= 1 for z in population]) for x in asked]
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_online_rmia_finds_nothing_where_nothing_was_learnt() -> None:
    """Catches ratios that favour the members' side."""
    known, population = drawn(2_000, 64, 8, gap=2.0), np.arange(0, 1_000, 2)
    for learnt, low, high in ((np.zeros(2_000, bool), 0.46, 0.54), (np.arange(2_000) < 1_000, 0.75, 1.0)):
        target = known.target(learnt)
        _, found = online_rmia_attack(known.references(), target, np.arange(2_000), 1_000, population)
        assert found.auc is not None and low < found.auc < high


def test_a_person_in_the_original_has_the_smallest_p_and_one_that_was_never_there_any() -> None:
    """Catches Gaussians that know the model they judge, a p of 0, and negatives that had seen the person."""
    known = drawn(200, 16, 9, people=20, gap=1.5)
    references = known.references(people=20)
    asked = {"p3": np.flatnonzero(references.speakers == "p3")}
    unseen = unseen_statistics(references, people_of(references, asked))
    assert len(unseen) == 16 * 10  # half of the people under each model

    def p_of(learnt: np.ndarray) -> float:
        phi = {"p3": known.target(learnt)[asked["p3"]]}
        result = person_attack(references, phi, asked, unseen, 20)
        assert result.found is None  # of one person no rate
        assert result.smallest == pytest.approx(1 / 161)
        return float(result.p_values[0])

    assert p_of(references.speakers == "p3") == pytest.approx(1 / 161)
    assert p_of(np.zeros(200, bool)) > 1 / 161


def test_the_p_value_of_a_person_who_was_never_learnt_is_about_uniform() -> None:
    """Catches p-values that are small for nobody's fault: 300 people of 15 worlds, none of whom is in the model."""
    p_values = []
    for world in range(15):
        known = drawn(100, 32, 100 + world, people=20, gap=1.0)
        references = known.references(people=20)
        for person in range(20):
            asked = {f"p{person}": np.flatnonzero(references.speakers == f"p{person}")}
            if not person:
                unseen = unseen_statistics(references, people_of(references, asked))
            target = known.target(np.zeros(100, bool))
            phi = {name: target[rows] for name, rows in asked.items()}
            p_values.append(person_attack(references, phi, asked, unseen, 20).p_values[0])
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_the_statistic_of_a_person_under_a_reference_leaves_that_model_out() -> None:
    """Catches a negative judged by Gaussians that have its own confidences, and sums over the wrong recordings."""
    known = drawn(24, 8, 11, people=6)
    references = known.references(people=6)
    expected = []
    for model in range(8):
        others = [m for m in range(8) if m != model]
        left = gaussians(known.phi[others], known.member[others], shared=True)
        ratios = left.log_ratio(known.phi[model])
        for person in sorted({*references.speakers}):
            rows = [i for i in range(24) if references.speakers[i] == person]
            if not any(known.member[model, i] for i in rows):
                expected.append(sum(ratios[i] for i in rows))
    found = unseen_statistics(references, people_of(references, {}))
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-9)


def test_several_people_have_a_rate() -> None:
    """Catches a rate of people that is left out although several were asked for."""
    known = drawn(200, 32, 12, people=20, gap=1.5)
    references = known.references(people=20)
    asked = {name: np.flatnonzero(references.speakers == name) for name in ("p1", "p2", "p3")}
    unseen = unseen_statistics(references, people_of(references, asked))
    target = known.target(np.isin(references.speakers, list(asked)))
    result = person_attack(references, {n: target[rows] for n, rows in asked.items()}, asked, unseen, 20)
    assert result.found is not None and result.found.auc == pytest.approx(1.0, abs=0.01)
    assert result.found.tpr_at_fpr_1pct.value == 1.0


def test_other_people_count_with_the_recordings_of_the_side_that_was_asked_for() -> None:
    """Catches sums over more recordings of others, held-out ones among them, than of the person asked for."""
    trained = np.array([True, True, False, False, False])
    names = np.array(["a", "b", "b", "c", ""])
    references = References(
        "speaker", np.array(list("12345")), names, trained, np.zeros((4, 5)), np.zeros((4, 5), bool)
    )
    found = people_of(references, {"a": np.array([0])})
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [0], "b": [1], "c": [3]}


def test_files_are_read_by_the_recordings_that_all_of_them_have() -> None:
    """Catches rows of files that are out of step once an erasure that was killed has cut one of them."""

    def file(ids: str, member: list[bool], phi: list[float]) -> dict[str, np.ndarray]:
        n = len(ids)
        return {
            "clip_id": np.array(list(ids)), "speaker": np.array(["x"] * n), "trained": np.ones(n, bool),
            "member": np.array(member), "phi": np.array(phi, np.float32),
        }  # fmt: skip

    files = [file("abc", [True, True, False], [1, 2, 3]), file("ab", [True, False], [4, 5]),
             file("ba", [True, False], [6, 7]), file("acb", [False, False, False], [8, 9, 10])]  # fmt: skip
    (found,) = references_of({"clip": files, "speaker": []})
    assert found.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found.phi, [[1, 2], [4, 5], [7, 6], [8, 10]])
    assert found.rows(["b", "a"]).tolist() == [1, 0] and found.rows(["c"]) is None


def test_recordings_without_models_of_both_sides_are_refused() -> None:
    """Catches a Gaussian of nothing."""
    with pytest.raises(ValueError, match="have learnt it and others"):
        gaussians(np.zeros((2, 3)), np.ones((2, 3), bool), shared=True)
