"""The pool of reference models: who goes together, what each model learns, and where no halves can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_mu.base_models.references import Pool
from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.errors import UserError


def pool(ids: Sequence[str], speakers: Sequence[str], hashes: Sequence[str] = (), **parameters: str) -> Pool:
    """Of these recordings, each with a sound of its own unless its hash is given."""
    n, own = len(ids), tuple(hashes) or tuple(f"h{i}" for i in range(len(ids)))
    clips = Clips(
        torch.zeros(n, 1, 4, 4), Path("features.npy"), torch.arange(n) % 2, tuple(ids), tuple(speakers), own,
        tuple(f"s{h}" for h in own), ("",) * n, ("a", "b"), (), (), Path(), "digest",
    )  # fmt: skip
    config = Config.from_text({"references": "6", **parameters})
    return Pool(config, clips, np.arange(n), np.arange(n) < n - 2, {})


def members(of: Pool, models: int) -> np.ndarray:
    return np.stack([of.member(number) for number in range(models)])


def test_each_recording_is_in_exactly_half_of_the_models_and_more_models_change_nothing() -> None:
    """Catches halves that are drawn one by one, which leave a recording with few models, or anew with their number."""
    known = pool([f"{i}.wav" for i in range(31)], [""] * 31)
    learnt = members(known, 64)
    assert (learnt.sum(axis=0) == 32).all()
    assert set(learnt.sum(axis=1)) == {15, 16}
    np.testing.assert_array_equal(members(known, 96)[:64], learnt)
    assert len(np.unique(learnt, axis=0)) == 64
    assert abs(np.corrcoef(learnt[0], learnt[2])[0, 1]) < 0.5


def test_copies_and_parts_of_one_recording_are_learnt_together() -> None:
    """Catches a model that has not learnt a recording and has learnt its copy."""
    known = pool(["a.wav", "b.wav", "c.wav", "d.wav"], [""] * 4, ["h0", "h1", "h0", "h3"])
    assert all(one[0] == one[2] for one in members(known, 20))
    assert len({*known.units.tolist()}) == 3


def test_halves_of_people_take_everybody_whole() -> None:
    """Catches a person of whom a model has learnt a part, under another spelling of the name too; an unknown speaker is
    nobody's."""
    names = ["Zoë", "Zoe\u0308", "b", "b", "", "", "c", "c"]
    known = pool([f"{i}.wav" for i in range(8)], names, references_by="speaker")
    assert known.units[0] == known.units[1] and known.units[2] == known.units[3]
    assert len({*known.units.tolist()}) == 5
    known.check()


def test_no_halves_can_be_drawn_of_nobody() -> None:
    """Catches one half of all whose names are empty, and a traceback."""
    with pytest.raises(UserError, match="references_by='speaker' needs two people, 0 known"):
        pool(["a.wav", "b.wav"], ["", ""], references_by="speaker").check()
    with pytest.raises(UserError, match="needs two recordings, there is 1"):
        pool(["a.wav", "b.wav"], ["", ""], ["h", "h"]).check()
    with pytest.raises(UserError, match=r"references='3' is not allowed: give 0, or a whole number from 4"):
        Config.from_text({"references": "3"})


def test_seeds_are_those_of_no_base_model_and_of_no_other_reference() -> None:
    """Catches references that start as a base model does, and pairs that start alike."""
    known = pool(["a.wav", "b.wav"], ["", ""])
    seeds = {known.seed(number, "training") for number in range(64)}
    assert len(seeds) == 64 and not seeds & set(range(10_000))


def test_the_family_changes_with_what_models_learn_and_not_with_their_number() -> None:
    """Catches references of other recordings or recipes that are taken, and 64 that are trained again for 96."""
    ids, nobody = ["a.wav", "b.wav", "c.wav"], [""] * 3
    known = pool(ids, nobody).family
    assert pool(ids, nobody, references="96").family == known
    others = [pool(ids[:2], nobody[:2]), pool(ids, ["x", "y", "z"], references_by="speaker"),
              pool(ids, nobody, n_epochs="3"), pool(ids, nobody, ["x0", "h1", "h2"])]  # fmt: skip
    assert len({known, *(other.family for other in others)}) == 5
