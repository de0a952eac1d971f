"""Reference models by the commands: trained one by one, found again, read by compare, cut and told by an erasure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.base_models import references as module
from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from audio_mu.store.references import COLUMNS, FILE
from tests.answered import RATE, Answered, tones

HALVES = {"references": "4", "references_by": "speaker"}


def answers_of(project: Answered, run: str) -> dict[str, np.ndarray]:
    with np.load(project.place(run) / FILE) as arrays:
        return {name: arrays[name] for name in arrays.files}


def references(project: Answered, **tags: str) -> list[dict[str, np.ndarray]]:
    """The files of the reference models with these tags, by their numbers."""
    runs = project.runs(stage="references", role="reference", **tags)
    return [answers_of(project, run) for run in sorted(runs, key=lambda run: int(project.tags(run)["number"]))]


def naming(folder: Path, ids: set[str]) -> set[str]:
    """The artifacts that name one of these recordings, packed arrays unpacked."""
    words, found = [id_.encode() for id_ in ids], set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(io.BytesIO(data)) as arrays:
                data = "\n".join("\n".join(map(str, arrays[name].ravel())) for name in arrays.files).encode()
        if any(word in data for word in words):
            found.add(path.relative_to(folder).as_posix())
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    """A store with a base model."""
    with LocalEngine(1) as engine:
        made = Answered.new(tmp_path_factory.mktemp("references"), engine)
        made.run("train")
        yield made


def test_a_killed_command_goes_on_and_more_are_added(project: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches references that are trained again, halves that change with their number, and weights that are kept."""
    opened, begin = [], module.child_run

    def killed(*arguments):
        opened.append(arguments)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return begin(*arguments)

    monkeypatch.setattr(module, "child_run", killed)
    with pytest.raises(KeyboardInterrupt):
        project.run("attack", **HALVES)
    monkeypatch.setattr(module, "child_run", begin)
    said = project.run("attack", **HALVES)
    assert "4 on halves of the people" in said and "2 there, 2 to train" in said
    before = references(project)
    said = project.run("attack", references="6", references_by="speaker")
    assert "4 there, 2 to train" in said and "reusing the attack models" in said
    files = references(project)
    assert len(files) == 6 and set(files[0]) == set(COLUMNS)
    for file, known in zip(files, before):
        np.testing.assert_array_equal(file["phi"], known["phi"])
    member = np.stack([file["member"] for file in files])
    assert (member.sum(axis=0) == 3).all() and (member[::2] == ~member[1::2]).all()
    people = files[0]["speaker"]
    for one in member:  # everybody is in as a whole, or not at all
        assert all(len({*one[people == person]}) == 1 for person in people)
    assert files[0]["phi"].dtype == np.float32 and files[0]["phi"].shape == (48,)
    assert not np.array_equal(files[0]["phi"], files[1]["phi"])
    runs = project.runs(stage="references", role="reference")
    assert not any(path.suffix in (".pth", ".pt", ".safetensors") for r in runs for path in project.place(r).rglob("*"))
    assert not any(project.query("select 1 from logged_models where source_run_id = ?", run) for run in runs)


def test_every_request_reads_them_and_compare_shows_the_rows(project: Answered) -> None:
    """Catches references that a second request trains again or does not find, and rows that are nowhere shown."""
    project.run("attack", **HALVES)
    n = len(project.runs(stage="references", role="reference"))
    asked = {"methods": "naive", "forget": "speaker"}
    said = project.run("attack") + project.run("unlearn", **asked, forget_speakers="p1")
    said += project.run("attack", **HALVES) + project.run("unlearn", **asked, forget_speakers="p2")
    assert len(project.runs(stage="references", role="reference")) == n and "0 to train" in said
    project.run("compare")
    place = project.place(project.runs(stage="compare")[-1])
    long = project.table(project.runs(stage="compare")[-1], "comparison.csv")
    for request in ("speaker-p1", "speaker-p2"):
        own = long[long["request"] == request]
        for metric in ("audit/lira_auc", "audit/rmia_online_auc", "audit/person_p"):
            assert set(own.loc[own["metric"] == metric, "method"]) == {"original", "naive"}, metric
    page = (place / "comparison.md").read_text()
    assert "LiRA AUC" in page and "person p" in page and "trained on random halves" in page
    negatives = 2 * len(references(project, references_by="speaker"))  # two of four people under each model
    assert "attack on 1 person" in page and f"is impossible with {negatives} negatives" in page
    (report,) = (place / "report").glob("*.html")
    assert "Carlini et al. 2022" in report.read_text() and "Person p" in report.read_text()


def test_halves_of_recordings_are_a_family_of_their_own(project: Answered) -> None:
    """Catches halves of people and of recordings that are mixed, and rows of attacks that were not asked for."""
    project.run("attack", references="4")
    files = references(project, references_by="clip")
    assert len(files) == 4
    assert len({*files[0]["member"][files[0]["speaker"] == "p1"]}) == 2
    families = {project.tags(run)["family"] for run in project.runs(stage="references", role="reference")}
    assert len(families) == 2


def test_a_reference_that_cannot_be_read_is_left_out_and_trained_again(project: Answered) -> None:
    """Catches a comparison that ends with one damaged file, and a file that is damaged for good."""
    project.run("attack", **HALVES)
    run = project.runs(stage="references", number="1", references_by="speaker")[-1]
    file, before = project.place(run) / FILE, answers_of(project, run)["phi"]
    whole = file.read_bytes()
    file.write_bytes(b"cut")
    if not project.runs(stage="unlearn", role="method"):
        project.run("unlearn", methods="naive", forget="speaker", forget_speakers="p1")
    assert "a reference model is left out" in project.run("compare")
    said = project.run("attack", **HALVES)
    assert "reference-1 is trained again" in said and "1 to train" in said
    again = project.runs(stage="references", number="1", references_by="speaker")[-1]
    assert again != run
    np.testing.assert_array_equal(answers_of(project, again)["phi"], before)
    file.write_bytes(whole)


def test_an_answered_person_is_in_no_new_reference_and_an_erased_one_in_none(project: Answered) -> None:
    """Catches recordings of an answered person, held-out ones too, that new references learn; rows that an erasure
    leaves in old ones; and an erasure that does not tell what had learnt them."""
    project.run("attack", **HALVES)
    project.answer("p1")
    old = {*project.runs(stage="references", role="reference")}
    project.run("attack", **HALVES)
    new = [run for run in project.runs(stage="references", role="reference") if run not in old]
    assert len(new) == 4
    for run in new:
        assert not {*answers_of(project, run)["clip_id"]} & project.ids("p1")
    had = sum("p1" in answers_of(project, run)["speaker"][answers_of(project, run)["member"]] for run in old)
    assert 0 < had < len(old)

    p1 = project.ids("p1")
    listed = project.run("erase", request=project.hash("p1"))
    assert f"{had} x reference model" in listed
    said = project.run("erase", request=project.hash("p1"), confirm="true")
    told = f"what {had} reference models that had learnt recordings of the request answered on others"
    assert told in said
    for run in old:
        left = answers_of(project, run)
        assert not {*left["clip_id"]} & p1 and "p1" not in left["speaker"] and len(left["phi"]) == 48 - len(p1)
    left = {path for path in naming(project.folder / "mlruns", p1) if "recordings.csv" not in path}
    assert left == set()
    assert not [id_ for id_ in p1 if id_.encode() in project.database.read_bytes()]
    assert told in project.run("erase", request=project.hash("p1"), confirm="true")  # by the marks alone
    assert (
        "LiRA"
        in project.run("compare") + (project.place(project.runs(stage="compare")[-1]) / "comparison.md").read_text()
    )


def test_an_answer_while_references_are_trained_is_told(project: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches references that learn somebody who is answered before they are kept."""
    project.run("attack")
    begin = module.child_run

    def late(*arguments):
        monkeypatch.setattr(module, "child_run", begin)
        made = begin(*arguments)
        project.run("unlearn", methods="naive", register="naive", forget="speaker", forget_speakers="p2")
        return made

    monkeypatch.setattr(module, "child_run", late)
    with pytest.raises(UserError, match=r"request speaker-p2 \(\w{8}\) was answered in between"):
        project.run("attack", references="5", references_by="clip", force="true")
    left = project.ids("p2")
    n = len(project.runs(stage="references", role="reference"))
    project.run("attack", references="4", references_by="clip")
    new = project.runs(stage="references", role="reference")[n:]
    assert len(new) == 4 and not any({*answers_of(project, run)["clip_id"]} & left for run in new)


def test_what_was_learnt_by_heart_is_found_in_the_original_and_not_in_naive(tmp_path: Path) -> None:
    """Catches attacks that read the wrong recordings, models or sides on their way through the store: of noise, nothing
    can be known but by heart."""
    with LocalEngine(1) as engine:
        project = Answered.new(tmp_path / "noise", engine)
        tones(project.folder / "recordings", takes=8)
        for number, path in enumerate(sorted((project.folder / "recordings").rglob("*.wav"))):
            soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, RATE // 2), RATE)
        project = replace(project, parameters={**project.parameters, "n_epochs": "80"})
        project.run("train")
        project.run("attack", **HALVES)
        project.run("unlearn", methods="naive", forget="speaker", forget_speakers="p1")
        project.run("compare")
    long = project.table(project.runs(stage="compare")[-1], "comparison.csv")
    found = long.set_index(["metric", "method"])["mean"].astype(float)
    for metric in ("audit/lira_auc", "audit/rmia_online_auc", "audit/person_statistic"):
        assert found[metric, "original"] > found[metric, "naive"], metric
    assert found["audit/lira_auc", "original"] > 0.6
    assert found["audit/person_p", "original"] == pytest.approx(1 / 9) == found["audit/person_p_smallest", "original"]
