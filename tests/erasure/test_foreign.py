"""An erasure acts on what is the store's own and on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from tests.answered import Answered


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_a_store_names_elsewhere_is_named_and_never_touched(answered: Answered, tmp_path: Path) -> None:
    """Catches a folder of the user's that goes, or is edited, because a run, a model or a link leads there."""
    root, runs = answered.folder / "mlruns", answered.runs(stage="train", role="seed")
    (base,) = runs
    (attack,) = answered.runs(stage="attack", role="parent")
    (naive,) = answered.runs(stage="unlearn", method="naive")
    (original,) = answered.runs(stage="unlearn", method="original")
    entry = answered.entries()[0]
    named = "clip_id,label\n" + "".join(f"{id_},0\n" for id_ in sorted(answered.ids("p1")))
    places = {name: tmp_path / name for name in ("run", "model", "linked run", "linked", "climbing", "of another")}
    for place in places.values():
        place.mkdir()
        for name in ("mia_all_balanced.csv", "losses.csv", "weights.pt2"):
            (place / name).write_text(named)
    # A run's address, its model's, a linked folder of a run, links within a run, and an address that climbs out.
    answered.query("update runs set artifact_uri = ? where run_uuid = ?", str(places["run"]), attack)
    answered.query("update logged_models set artifact_location = ? where source_run_id = ?", str(places["model"]), base)
    artifacts = answered.place(original)
    shutil.rmtree(artifacts)
    artifacts.symlink_to(places["linked run"])
    (answered.place(naive) / "more").symlink_to(places["linked"])
    (answered.place(naive) / "more.csv").symlink_to(places["linked"] / "losses.csv")
    (parent,) = answered.runs(stage="train", role="parent")
    climbing = str(root / "0" / parent / "artifacts" / "../../../../../.." / places["climbing"].relative_to("/"))
    answered.query("update runs set artifact_uri = ? where run_uuid = ?", climbing, parent)
    before = content(tmp_path)

    listed = answered.run("erase", request=answered.hash("p1"))
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert content(tmp_path) == before
    for place in (places["run"], places["model"], artifacts, answered.place(naive) / "more", climbing):
        assert f"{place}: it is not where this store keeps its own" in listed
        assert f"{place}: it is not where this store keeps its own" in output
    assert answered.tags(entry)["state"] == "erased"
    forgotten = set(answered.table(entry, "recordings.csv")["clip_id"])
    assert not forgotten & set(answered.table(base, "losses.csv")["clip_id"])  # its own are rewritten
    assert ": 0 finds" in answered.run("erase", request=answered.hash("p1"), confirm="true")

    answered.query("update runs set artifact_uri = ? where run_uuid = ?", str(places["of another"]), entry)
    shutil.copytree(root / "0" / entry / "artifacts", places["of another"], dirs_exist_ok=True)
    before = content(tmp_path)
    with pytest.raises(UserError, match="outside of this store"):
        answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert content(tmp_path) == before


def test_a_cache_that_this_package_has_not_made_stays(answered: Answered, tmp_path: Path) -> None:
    """Catches a folder of the user's that goes because it stands among the feature caches."""
    features = answered.folder / "cache" / "features"
    (own,) = [path for path in features.iterdir() if path.is_dir()]
    half = features / f".{own.name}.abcdefgh.99999999-1-a-b-2.tmp"
    shutil.copytree(own, half)
    elsewhere = tmp_path / "elsewhere"
    for foreign in (features / "recordings", features / ".hidden", features / own.name.upper(), elsewhere):
        foreign.mkdir(exist_ok=True)
        (foreign / "notes.txt").write_text("the only copy")
    link = features / ("0" * 32)
    link.symlink_to(elsewhere)
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    for foreign in (features / "recordings", features / ".hidden", link):
        assert (foreign / "notes.txt").read_text() == "the only copy"
        assert f"{foreign}: it is not where this store keeps its own" in output
    assert not own.exists()
    assert not half.exists()
