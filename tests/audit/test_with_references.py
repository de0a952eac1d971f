"""The attacks with reference models on a cell: what is measured, what is said, and what is left out and why."""

from __future__ import annotations

import numpy as np
import pytest

from audio_mu.audit.across_seeds import AuditInput, CellAudit, StoredLogits, audit_cell
from audio_mu.audit.references import References
from tests.audit.drawn import Drawn, drawn

N = 240
PEOPLE = 12
ASKED = "p2"


def logits(phi: np.ndarray) -> np.ndarray:
    """Of two classes, so that the confidence in the first is phi."""
    return np.stack([phi, np.zeros(len(phi))], axis=1)


def audited(known: Drawn, references: list[References], kind: str, forget: np.ndarray, methods: dict[str, np.ndarray],
            ) -> CellAudit:  # fmt: skip
    """A cell of two seeds: method → which recordings its networks have learnt. The last 60 are non-members."""
    of = references[-1] if references else known.references()
    nonmembers = np.arange(N - 60, N)
    target = {
        (method, seed): known.target(learnt & ~np.isin(np.arange(N), nonmembers))
        for method, learnt in methods.items()
        for seed in (40, 41)
    }

    def read(method: str, seed: int) -> StoredLogits:
        phi = target[method, seed]
        return StoredLogits(logits(phi[forget]), logits(phi[nonmembers]))

    return audit_cell(
        AuditInput(
            of.ids[forget].tolist(), np.zeros(len(forget), int), np.zeros(60, int), dict.fromkeys(methods, (40, 41)),
            read, lambda *_: (np.zeros((0, 2)), np.zeros(0)), lambda _: of.speakers[forget].tolist(), references,
            of.ids[nonmembers].tolist(), kind,
        )
    )  # fmt: skip


def value(found: CellAudit, method: str, metric: str) -> float:
    rows = found.by_seed
    return float(rows.loc[(rows["method"] == method) & (rows["metric"] == metric), "value"].mean())


def test_an_item_request_has_lira_and_online_rmia_without_naive() -> None:
    """Catches attacks that need a naive model, which an adopted one may lack, and people where nobody was asked for."""
    known = drawn(N, 16, 1, gap=2.5)
    forget, learnt = np.arange(60), np.ones(N, bool)
    methods = {"original": learnt, "fine_tune": learnt & (np.arange(N) >= 60)}
    found = audited(known, [known.references()], "item", forget, methods)
    assert value(found, "original", "audit/lira_auc") > 0.85
    assert value(found, "fine_tune", "audit/lira_auc") < 0.6
    assert value(found, "original", "audit/rmia_online_auc") > value(found, "fine_tune", "audit/rmia_online_auc")
    assert not found.by_seed["metric"].str.contains("person").any()
    assert "LiRA AUC" in found.readings["original"] and "person" not in found.readings["original"]
    assert any("16 reference models, each trained on a random half of the recordings" in note for note in found.notes)
    assert any("LiRA's true-positive rate at 1 % false positives refused: n too small" in n for n in found.notes)
    assert found.per_clip.loc[found.per_clip["method"] == "original", "lira"].mean() > 0


def test_without_references_nothing_changes() -> None:
    """Catches columns, notes and sentences of attacks that nobody has asked for."""
    known = drawn(N, 4, 2)
    found = audited(known, [], "item", np.arange(60), {"naive": np.ones(N, bool), "pop": np.ones(N, bool)})
    assert "lira" not in found.per_clip and not any("reference models" in note for note in found.notes)
    assert not found.by_seed["metric"].str.contains("lira|person|online").any()


def test_a_person_is_in_the_original_and_not_in_naive() -> None:
    """Catches a p-value that is told without the smallest possible one, and one of naive that is small."""
    known = drawn(N, 16, 3, people=PEOPLE, gap=1.5)
    references = known.references(people=PEOPLE)
    forget = np.flatnonzero((references.speakers == ASKED) & (np.arange(N) < N - 60))
    trained = References(
        references.by, references.ids, references.speakers, np.arange(N) < N - 60, references.phi, references.member
    )
    methods = {"original": np.ones(N, bool), "naive": references.speakers != ASKED}
    found = audited(known, [known.references(), trained], "speaker", forget, methods)
    negatives = 16 * PEOPLE // 2
    assert value(found, "original", "audit/person_p") == pytest.approx(1 / (negatives + 1))
    assert value(found, "naive", "audit/person_p") > 2 / (negatives + 1)
    assert value(found, "naive", "audit/person_p_smallest") == pytest.approx(1 / (negatives + 1))
    assert f"is impossible with {negatives} negatives (12 people" in found.readings["original"]
    assert not found.by_seed["metric"].str.startswith("audit/person_tpr").any()  # of one person no rate
    assert any("random half of the people" in note for note in found.notes)  # the fitting ones of both


def test_a_speaker_whose_copy_is_forgotten_is_not_asked_for() -> None:
    """Catches a person who is called found because a copy of one of their recordings went with somebody else's."""
    known = drawn(N, 16, 4, people=PEOPLE)
    references = known.references(people=PEOPLE)
    forget = np.append(np.flatnonzero(references.speakers == ASKED), np.flatnonzero(references.speakers == "p5")[0])
    found = audited(known, [references], "speaker", forget, {"original": np.ones(N, bool)})
    assert "attack on 1 person" in found.readings["original"]


def test_recordings_that_the_references_do_not_know_are_told() -> None:
    """Catches an attack with rows of other recordings, and one that is left out without a word."""
    known = drawn(N, 8, 5)
    whole = known.references()
    fewer = References("clip", *(of[1:] for of in (whole.ids, whole.speakers, whole.trained)),
                       whole.phi[:, 1:], whole.member[:, 1:])  # fmt: skip
    forget = np.arange(60)
    other = References("clip", np.array([f"x{i}" for i in range(N - 1)]), fewer.speakers, fewer.trained, fewer.phi,
                       fewer.member)  # fmt: skip
    found = audited(known, [whole], "item", forget, {"original": np.ones(N, bool)})
    assert "LiRA" in found.readings["original"]
    lacking = audit_cell(
        AuditInput(
            whole.ids[forget].tolist(), np.zeros(60, int), np.zeros(60, int), {"original": (40,)},
            lambda *_: StoredLogits(logits(np.zeros(60)), logits(np.zeros(60))),
            lambda *_: (np.zeros((0, 2)), np.zeros(0)), lambda _: [""] * 60, [other], whole.ids[-60:].tolist(), "item",
        )
    )  # fmt: skip
    assert any("do not know all recordings" in note for note in lacking.notes)
    assert lacking.by_seed.empty
    assert "original" not in lacking.readings


def test_a_speaker_request_without_halves_of_people_says_what_it_lacks() -> None:
    """Catches a person's attack that is missing without a reason."""
    known = drawn(N, 8, 6, people=PEOPLE)
    of_clips = known.references()
    forget = np.arange(0, 60)
    found = audited(known, [of_clips], "speaker", forget, {"original": np.ones(N, bool)})
    assert any("references_by=speaker" in note for note in found.notes)
