"""Audits across seeds against known answers: what must be caught, at the null, or refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from audio_mu.audit.across_seeds import AuditInput, CellAudit, StoredLogits, audit_cell
from audio_mu.audit.performance import cross_entropy
from audio_mu.audit.population import population_attack
from audio_mu.names import FLOOR
from audio_mu.training import Examples, OptimizerSettings, predict, train_from_scratch

SEEDS = (40, 41, 42, 43, 44)
N_CLASSES = 4
FORGET, REMAIN, UNSEEN = np.arange(80), np.arange(80, 240), np.arange(240, 400)
Networks = Mapping[tuple[str, int], StoredLogits]


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, N_CLASSES))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, N_CLASSES, 400)


@pytest.fixture(scope="module")
def overfitted(labels: np.ndarray) -> Networks:
    """Networks that have learnt noise by heart: the original all of it, naive all but the forget set."""
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 16)).astype(np.float32))
    found = {}
    for seed in SEEDS:
        for method, trained in (("original", np.concatenate([FORGET, REMAIN])), ("naive", REMAIN)):
            examples = Examples(features, torch.from_numpy(labels), torch.from_numpy(trained))
            recipe = OptimizerSettings("adam", 0.01)
            learnt = train_from_scratch(network, examples, recipe, epochs=60, batch_size=40, seed=seed)
            found[method, seed] = StoredLogits(predict(learnt, features, FORGET), predict(learnt, features, UNSEEN))
    return found


def audited(networks: Networks, labels: np.ndarray) -> CellAudit:
    seeds: dict[str, list[int]] = {}
    for method, seed in networks:
        seeds.setdefault(method, []).append(seed)
    ids = [f"{i}.wav" for i in FORGET]
    given = AuditInput(
        ids, labels[FORGET], labels[UNSEEN], seeds, lambda method, seed: networks[method, seed],
        lambda method, seed, name: (networks[method, seed].forget, labels[FORGET]), lambda name: [""] * len(ids),
    )  # fmt: skip
    return audit_cell(given)


def by_seed(audit: CellAudit, method: str, metric: str) -> np.ndarray:
    rows = audit.by_seed
    return rows[(rows["method"] == method) & (rows["metric"] == metric)]["value"].to_numpy(float)


def whole(audit: CellAudit, method: str, metric: str) -> float:
    rows = audit.whole
    return float(rows[(rows["method"] == method) & (rows["metric"] == metric)]["value"].item())


def test_overfitted_base_is_caught_and_naive_is_not(overfitted: Networks, labels: np.ndarray) -> None:
    """Catches members and non-members swapped, references that saw the clips, and an attack that sees nothing."""
    for seed in SEEDS:
        attacks = {
            method: population_attack(
                cross_entropy(overfitted[method, seed].forget, labels[FORGET]),
                cross_entropy(overfitted[method, seed].nonmembers, labels[UNSEEN]),
            )
            for method in ("original", "naive")
        }
        assert attacks["original"].auc_low > 0.55
        assert attacks["naive"].auc_low < 0.5
    audit = audited(overfitted, labels)
    assert by_seed(audit, "original", "audit/rmia_auc").min() > 0.7
    assert abs(by_seed(audit, "naive", "audit/rmia_auc").mean() - 0.5) < 0.08
    assert by_seed(audit, "original", "audit/ulira_auc").min() > 0.7
    assert whole(audit, "original", "audit/epsilon_separated_share") > 10 * 2 / 252
    assert whole(audit, "original", "audit/epsilon_p_relabelled") == pytest.approx(1 / 126)
    assert whole(audit, "original", "audit/epsilon_p_paired") == pytest.approx(1 / 16)


def test_rmia_is_the_definition_written_out(overfitted: Networks, labels: np.ndarray) -> None:
    """Catches the audited seed among its own references, population clips among the negatives, another formula."""
    audit = audited(overfitted, labels)
    seed = 42

    def probability(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        powers = np.exp(logits.astype(np.float64))
        return powers[np.arange(len(truth)), truth] / powers.sum(axis=1)

    def ratio(side: str, truth: np.ndarray) -> np.ndarray:
        others = [probability(getattr(overfitted["naive", s], side), truth) for s in SEEDS if s != seed]
        target = probability(getattr(overfitted["original", seed], side), truth)
        return target / (0.5 * (1.3 * np.mean(others, axis=0) + 0.7))

    forget, unseen = ratio("forget", labels[FORGET]), ratio("nonmembers", labels[UNSEEN])
    order = np.random.default_rng(seed).permutation(len(UNSEEN))
    population, negatives = unseen[order[:80]], unseen[order[80:]]
    scores = [(x / population >= 1).mean() for x in [*forget, *negatives]]
    expected = roc_auc_score(np.arange(160) < 80, scores)
    assert by_seed(audit, "original", "audit/rmia_auc")[SEEDS.index(seed)] == pytest.approx(expected, abs=1e-9)


def test_naive_against_itself_is_at_the_null(overfitted: Networks, labels: np.ndarray) -> None:
    """Catches an audit that finds something where unlearned and retrained networks are the same."""
    same = {("naive", s): overfitted["naive", s] for s in SEEDS}
    copies = {("copy", s): overfitted["naive", s] for s in SEEDS}
    # The same five networks under other seeds: as a set nothing differs, but the pairs do.
    turned = {("turned", s): overfitted["naive", SEEDS[i - 1]] for i, s in enumerate(SEEDS)}
    audit = audited(same | copies | turned, labels)
    assert by_seed(audit, "copy", "audit/ulira_auc").tolist() == [0.5] * 5
    for method in ("copy", "turned"):
        assert whole(audit, method, "audit/epsilon_bound") == 0
        assert whole(audit, method, "audit/epsilon_separated_share") == 0
        assert whole(audit, method, "audit/epsilon_p_relabelled") == 1
    clips = audit.per_clip.set_index("method")
    assert clips.loc["copy", ["js", "activation"]].to_numpy(float).max() == pytest.approx(0, abs=1e-12)
    floor = whole(audit, FLOOR, "distance/js")
    assert floor == pytest.approx(clips.loc[FLOOR, "js"].astype(float).mean())
    # Five of the ten pairs of seeds are neighbours in the turn.
    assert 0.3 * floor < clips.loc["turned", "js"].astype(float).mean() < 3 * floor


def test_networks_that_treat_all_clips_alike_give_exactly_one_half(labels: np.ndarray) -> None:
    """Catches ties that count for one side."""
    truth = np.zeros(400, dtype=np.int64)
    flat = {
        (method, seed): StoredLogits(np.full((80, N_CLASSES), 1.0), np.full((160, N_CLASSES), 1.0))
        for method in ("naive", "pop")
        for seed in SEEDS
    }
    audit = audited(flat, truth)
    assert set(by_seed(audit, "pop", "audit/rmia_auc")) == {0.5}
    assert set(by_seed(audit, "pop", "audit/ulira_auc")) == {0.5}
    assert whole(audit, "pop", "audit/epsilon_undecided_share") == 1


def test_per_clip_table_and_floor(overfitted: Networks, labels: np.ndarray) -> None:
    """Catches rows of other clips, bounds that are infinite in a table, and a floor over equal seeds."""
    audit = audited(overfitted, labels)
    assert list(audit.per_clip.columns) == [
        "method", "clip_id", "rmia", "ulira", "epsilon_bound", "separated", "js", "activation"
    ]  # fmt: skip
    assert audit.per_clip.groupby("method").size().to_dict() == {"original": 80, "naive": 80, FLOOR: 80}
    original = audit.per_clip[audit.per_clip["method"] == "original"]
    assert original["clip_id"].tolist() == [f"{i}.wav" for i in FORGET]
    separated = original["separated"].astype(bool)
    assert original.loc[separated, "epsilon_bound"].isna().all()
    assert original.loc[~separated, "epsilon_bound"].astype(float).max() <= np.log(4) + 1e-4
    seeds = audit.whole[audit.whole["method"] == FLOOR]["seeds"].tolist()
    assert seeds == ["40 41 42 43 44"] * 2


@pytest.mark.parametrize(
    ("n_seeds", "left_out", "made"),
    [
        (1, ["floor", "RMIA", "the bound", "U-LiRA"], []),
        (2, ["U-LiRA"], ["audit/rmia_auc"]),
        (3, [], ["audit/rmia_auc", "audit/ulira_auc", "audit/ulira_accuracy"]),
    ],
)
def test_too_few_seeds_are_said(
    overfitted: Networks, labels: np.ndarray, n_seeds: int, left_out: list[str], made: list[str]
) -> None:
    """Catches a number from too few seeds, and an audit that is missing without a word."""
    few = {key: logits for key, logits in overfitted.items() if key[1] in SEEDS[:n_seeds]}
    audit = audited(few, labels)
    assert len(audit.notes) == len(left_out)
    assert all(any(words in note for note in audit.notes) for words in left_out)
    metrics = set(audit.by_seed[audit.by_seed["method"] == "original"]["metric"]) - {"audit/rmia_tpr_at_fpr_1pct"}
    assert metrics == set(made)


def test_without_naive_nothing_is_made_up(overfitted: Networks, labels: np.ndarray) -> None:
    """Catches distances of 0 where there is nothing to measure against."""
    audit = audited({key: logits for key, logits in overfitted.items() if key[0] == "original"}, labels)
    assert len(audit.by_seed) == len(audit.whole) == len(audit.per_clip) == 0
    assert "no naive model" in audit.notes[0]
