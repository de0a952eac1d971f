"""One model's audit against known answers: the right non-members, and what is refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from audio_mu.audit.attack_models import Attack, build_attack_network
from audio_mu.audit.one_model import Evaluator
from audio_mu.audit.performance import cross_entropy
from audio_mu.audit.population import population_attack
from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.splits import split_clips
from audio_mu.requests.request import Earlier, Request, resolve_request

N_CLASSES = 4
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
        sources=tuple(f"source {i}" for i in range(N_CLIPS)),
        parts=("",) * N_CLIPS,
        class_names=tuple("abcd"),
        skipped=(),
        constant=(),
        root=Path("/data"),
        digest="digest",
    )


def request_of(clips: Clips, kind: str = "random", **values: str) -> Request:
    split = split_clips(kind, 42, clips)
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
    trained = sorted({clips.speakers[i] for i in split_clips("speaker", 42, clips).train})
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
    split = split_clips("random", 42, clips)
    few = replace(clips, speakers=tuple("x" if i in split.train[:3] else "y" for i in range(N_CLIPS)))
    for speaker, told in (("x", True), ("07", False)):
        request = request_of(few if told else clips, forget="speaker", forget_speakers=speaker)
        logits = logits_by_group(clips, request, np.zeros(N_CLIPS, dtype=bool))
        judge = evaluator(clips, request)
        first = judge.evidence(logits, judge.alone(logits, 40))["readings"][0]
        assert ("3 are too few" in first) == told


def test_gaps_come_with_their_errors_clip_by_clip(clips: Clips) -> None:
    """Catches errors of unpaired models, of another set, and half way between naive and the original misread."""
    request = request_of(clips)
    found, labels = evaluator(clips, request), clips.labels.numpy()
    easy = np.zeros(len(clips), dtype=bool)
    naive = logits_by_group(clips, request, easy)
    original = {name: logits.copy() for name, logits in naive.items()}
    rows = np.arange(0, len(request.forget), 3)  # the original knows every third recording to forget by heart
    original["forget"][rows, labels[request.forget[rows]]] += 30
    same = found.certainty(naive, naive, original)
    n = {name: len(request.sets()[name]) for name in ("forget", "remain", "test")}
    for name, size in n.items():
        assert same[f"error/{name}_accuracy"] == pytest.approx(1 / (size + 2))
    own, before = (of["forget"].argmax(axis=1) == labels[request.forget] for of in (naive, original))
    half = own - (own.astype(float) + before) / 2
    expected = np.sqrt(((half - half.mean()) ** 2).sum() + 1) / (n["forget"] + 2)
    assert same["error/half_forget_accuracy"] == pytest.approx(expected)
    assert 0 < same["error/mia_auc"] < same["error/half_mia_auc"] < 0.05
    assert "error/half_mia_auc" not in found.certainty(naive, naive)


def test_a_wrecked_class_or_person_is_found_by_name(clips: Clips) -> None:
    """Catches groups mixed up between the sets, and the forgotten person blamed for being forgotten."""
    request = request_of(clips, forget="speaker", forget_speakers="03")
    found = replace(evaluator(clips, request), class_names=clips.class_names, speakers=clips.speakers)
    naive = logits_by_group(clips, request, np.ones(len(clips), dtype=bool))
    own = {name: logits.copy() for name, logits in naive.items()}
    labels = clips.labels.numpy()
    for name, rows in request.sets().items():
        for place, i in enumerate(rows):
            if clips.speakers[i] in ("03", "07"):
                own[name][place, labels[i]] -= 60
    worst = found.worst(own, naive)
    assert (worst["speaker"].name, worst["speaker"].of) == ("07", 9)
    assert worst["speaker"].gap < -0.9
    assert worst["speaker"].high < -0.8
    assert worst["class"].gap > -0.4  # a tenth of each class is 07's
    assert evaluator(clips, request).worst(own, naive) == {}
