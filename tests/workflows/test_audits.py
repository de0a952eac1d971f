"""Audits of a cell against known answers: what must be caught, what must be at the null, what must be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from audio_mu.audit.across_seeds import FLOOR, Cell, CellAudit, StoredLogits, audit_cell
from audio_mu.audit.attack_models import Attack, build_attack_network
from audio_mu.audit.one_model import Evaluator
from audio_mu.audit.performance import cross_entropy
from audio_mu.audit.population import population_attack
from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.splits import split_clips
from audio_mu.requests.request import Earlier, Request, resolve_request
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
    return audit_cell(Cell(ids, labels[FORGET], labels[UNSEEN], seeds, lambda method, seed: networks[method, seed]))


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


# The right non-members.

N_CLIPS, N_SPEAKERS = 1_200, 10


@pytest.fixture(scope="module")
def clips() -> Clips:
    """1,200 silent clips: ten speakers in turn, four classes."""
    return Clips(
        features=torch.empty(N_CLIPS, 1, 0, 0),
        features_file=Path("none"),
        labels=torch.tensor([(i // N_SPEAKERS) % N_CLASSES for i in range(N_CLIPS)]),
        ids=tuple(f"{i:05d}.wav" for i in range(N_CLIPS)),
        speakers=tuple(f"{i % N_SPEAKERS:02d}" for i in range(N_CLIPS)),
        hashes=tuple(f"hash {i}" for i in range(N_CLIPS)),
        parts=("",) * N_CLIPS,
        class_names=tuple("abcd"),
        skipped=(),
        root=Path("/data"),
        digest="digest",
    )


def request_of(clips: Clips, kind: str = "random", **values: str) -> Request:
    split = split_clips(kind, 42, clips.parts, clips.speakers, clips.hashes)
    return resolve_request(Config.from_text(values).request, clips, split)


def evaluator(clips: Clips, request: Request) -> Evaluator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Evaluator(request, clips.labels.numpy(), Attack((build_attack_network(),), "loss", {}))


def logits_by_group(clips: Clips, request: Request, easy: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of a network that saw none of these clips and finds the `easy` ones easy, trained on or not."""
    draw = np.random.default_rng(3)
    found = {}
    for name, indices in request.sets().items():
        logits = draw.normal(size=(len(indices), N_CLASSES))
        logits[np.arange(len(indices)), clips.labels.numpy()[indices]] += np.where(easy[indices], 6.0, 2.0)
        found[name] = logits.astype(np.float32)
    return found


def test_an_earlier_requests_attack_keeps_its_nonmembers_of_a_removed_class(clips: Clips) -> None:
    """Catches members of a class compared with non-members of the others: a class request moves its test clips."""
    request = request_of(clips, forget="class", forget_class_names="c")
    test, held_out = request.test, request.held_out
    assert len(held_out)
    members = request.remain[:20]
    logits = logits_by_group(clips, request, np.zeros(len(clips), dtype=bool))
    logits["earlier-x"] = logits["remain"][:20]
    unseen = np.concatenate([test[:10], held_out[:10]])
    found = evaluator(clips, request)
    with_earlier = replace(found, earlier={"earlier-x": Earlier(members, unseen)})
    labels = clips.labels.numpy()
    losses = [
        cross_entropy(logits[name][:10], labels[of[:10]]) for name, of in (("test", test), ("held_out", held_out))
    ]
    expected = population_attack(cross_entropy(logits["earlier-x"], labels[members]), np.concatenate(losses)).auc
    assert with_earlier.alone(logits, 40)["earlier-x/auc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "values",
    [{"forget": "speaker", "forget_speakers": "07"}, {"forget": "class", "forget_class_names": "c"}],
    ids=["speaker", "class"],
)
def test_an_easy_voice_or_class_is_not_taken_for_membership(clips: Clips, values: dict[str, str]) -> None:
    """Catches non-members of other speakers or classes: the attack would tell who speaks, not who was trained on."""
    request = request_of(clips, **values)
    key = np.array(clips.speakers) if values["forget"] == "speaker" else np.array(clips.class_names)[clips.labels]
    easy = key == next(value for name, value in values.items() if name != "forget")
    logits = logits_by_group(clips, request, easy)
    truth = clips.labels.numpy()
    forget = cross_entropy(logits["forget"], truth[request.forget])
    trap = population_attack(forget, cross_entropy(logits["test"], truth[request.test]))
    assert trap.auc_low > 0.55
    metrics = evaluator(clips, request).alone(logits, 40)
    assert metrics["mia/auc_low"] < 0.5 < metrics["mia/auc_high"]
    held_out = cross_entropy(logits["held_out"], truth[request.held_out])
    expected = roc_auc_score(np.arange(len(forget) + len(held_out)) < len(forget), -np.concatenate([forget, held_out]))
    assert metrics["mia/auc"] == pytest.approx(expected)


def test_rates_below_their_power_are_refused_in_words(clips: Clips) -> None:
    """Catches a true-positive rate at 1 % false positives from one speaker's 26 clips."""
    request = request_of(clips, forget="speaker", forget_speakers="07")
    judge = evaluator(clips, request)
    logits = logits_by_group(clips, request, np.zeros(N_CLIPS, dtype=bool))
    metrics = judge.alone(logits, 40)
    assert not [name for name in metrics if "tpr" in name]
    evidence = judge.evidence(logits, metrics)
    assert evidence["population_attack"]["tpr_at_fpr_1pct"]["value"] is None
    refused = [line for line in evidence["readings"] if "refused" in line]
    n = len(request.held_out)
    assert refused == [
        f"true-positive rate at {rate} false positives: refused, n too small: needs >= {least} negatives, has {n}"
        for rate, least in (("1 %", "100"), ("0.1 %", "1,000"))
    ]


def test_speakers_that_only_train_leave_no_nonmembers(clips: Clips) -> None:
    """Catches a membership figure of a speaker against other speakers, and its absence without a word."""
    trained = sorted(
        {clips.speakers[i] for i in split_clips("speaker", 42, clips.parts, clips.speakers, clips.hashes).train}
    )
    request = request_of(clips, "speaker", forget="speaker", forget_speakers=trained[0])
    assert len(request.nonmembers) == 0
    assert request.nonmembers_are == "none: the split leaves no held-out clips of the same speakers"
    judge = evaluator(clips, request)
    logits = logits_by_group(clips, request, np.zeros(N_CLIPS, dtype=bool))
    metrics = judge.alone(logits, 40)
    assert not [name for name in metrics if "auc" in name]
    assert "population attack left out" in judge.evidence(logits, metrics)["readings"][2]
    table = judge.per_clip(clips.ids, logits, 40)
    assert set(table["role"]) == {"forget"}


@pytest.mark.parametrize("values", [{"forget": "item"}, {"forget": "class"}], ids=["item", "class"])
def test_attacks_against_other_speakers_are_labelled(clips: Clips, values: dict[str, str]) -> None:
    """Catches an attack that tells voices apart being printed as one on membership."""
    for kind, confounded in (("random", False), ("speaker", True)):
        request = request_of(clips, kind, **values)
        assert len(request.nonmembers) > 0
        assert request.speaker_confounded == confounded
        assert ("no held-out clips of the same speakers" in request.nonmembers_are) == confounded
        logits = logits_by_group(clips, request, np.zeros(N_CLIPS, dtype=bool))
        judge = evaluator(clips, request)
        readings = judge.evidence(logits, judge.alone(logits, 40))["readings"]
        assert any("speaker-confounded" in line for line in readings) == confounded
    nameless = replace(clips, speakers=("",) * N_CLIPS, parts=("train",) * 900 + ("test",) * 300)
    assert "unknown" in request_of(nameless, "official", **values).nonmembers_are
    assert not request_of(nameless, "random", **values).speaker_confounded


def test_per_clip_table_of_a_run(clips: Clips) -> None:
    """Catches losses of other clips, test copies among the non-members, and distances where there is no naive."""
    copied = replace(clips, hashes=("hash 1199", *clips.hashes[1:]))
    request = request_of(copied, forget="item")
    logits = logits_by_group(copied, request, np.zeros(N_CLIPS, dtype=bool))
    judge = evaluator(copied, request)
    table = judge.per_clip(copied.ids, logits, 40)
    assert table["js"].isna().all()
    assert table.groupby("role").size().to_dict() == {
        "forget": len(request.forget),
        "nonmember": len(request.nonmembers),
    }
    row = table[table["role"] == "nonmember"].iloc[5]
    at = request.test.tolist().index(copied.ids.index(row["clip_id"]))
    z = logits["test"][at].astype(np.float64)
    assert row["loss"] == pytest.approx(np.log(np.exp(z).sum()) - z[copied.labels[request.test[at]]])
    other = {name: values + 1 for name, values in logits.items()}  # the same softmax
    with_naive = judge.per_clip(copied.ids, logits, 40, other)
    assert with_naive.loc[with_naive["role"] == "forget", "js"].max() == pytest.approx(0, abs=1e-9)
    assert pd.isna(with_naive.loc[with_naive["role"] == "nonmember", "js"]).all()


def test_a_handful_of_recordings_is_called_so(clips: Clips) -> None:
    """Catches an accuracy of three recordings that reads like any other."""
    split = split_clips("random", 42, clips.parts, clips.speakers, clips.hashes)
    few = replace(clips, speakers=tuple("x" if i in split.train[:3] else "y" for i in range(N_CLIPS)))
    for speaker, told in (("x", True), ("07", False)):
        request = request_of(few if told else clips, forget="speaker", forget_speakers=speaker)
        logits = logits_by_group(clips, request, np.zeros(N_CLIPS, dtype=bool))
        judge = evaluator(clips, request)
        first = judge.evidence(logits, judge.alone(logits, 40))["readings"][0]
        assert ("3 are too few" in first) == told
