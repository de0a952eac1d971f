"""The command that has answered a request, run again: it is known by what it asked for, and ends well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from audio_mu.config import BASE_FIELDS, PARAMETERS, Config
from audio_mu.errors import UserError
from audio_mu.requests.again import ASKED, ASKED_SINCE, NOT_ASKED, asked_of
from tests.answered import Answered, p1_answered, tones

REQUEST = {"forget": "speaker", "methods": "naive,fine_tune", "register": "naive"}
OF_TRAINING = ("n_epochs", "batch_size", "clip_seconds")
"""Of the base models, given to `train` alone: `unlearn` takes them from the version."""


def test_every_parameter_tells_answers_apart_or_does_not() -> None:
    """Catches a new parameter of which nobody has decided whether it makes another request of the same command."""
    lists = Counter([*ASKED, *ASKED_SINCE, *NOT_ASKED, *BASE_FIELDS])
    assert {*lists} == {*PARAMETERS}, "put it into ASKED_SINCE or NOT_ASKED of requests/again.py"
    assert {*lists.values()} == {1}


def test_a_command_has_the_hash_of_its_first_version(tmp_path: Path) -> None:
    """Catches answers of earlier versions that the command which gave them is not known by any more."""
    given = {
        "pipeline": "mel", "forget": "speaker", "forget_speakers": "17", "n_epoch_repair": "1", "register": "naive",
        "methods": "naive", "seeds": "40",
    }  # fmt: skip
    asked = asked_of(Config.from_text(given))
    assert asked == "7021b1c8eed2a9cc95affc40e70fecb6613e5872f3c76bdbdfd54619d241286e"
    same = {"n_epochs": "7", "workers": "1", "robust_audits": "true", "labels": "", "window": "none"}
    assert asked_of(Config.from_text(given | same)) == asked
    (tmp_path / "labels.csv").write_text("path,label\n")
    of_folder = {**given, "dataset": "folder", "dataset_name": "own", "data_dir": str(tmp_path)}
    tabled = asked_of(Config.from_text({**of_folder, "labels": str(tmp_path / "labels.csv")}))
    assert len({asked, asked_of(Config.from_text(of_folder)), tabled}) == 3
    assert asked_of(Config.from_text(given | {"methods": "naive,scrub"})) != asked


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    """p1 is answered by single commands, of which only `train` was given the parameters of base models."""

    def more(made: Answered) -> None:
        tones(made.folder / "recordings", ("p5", "p6"))

    with p1_answered(tmp_path_factory.mktemp("again") / "project", more) as made:
        yield replace(made, parameters=without(made.parameters))


def without(parameters: Mapping[str, str]) -> Mapping[str, str]:
    return {name: text for name, text in parameters.items() if name not in OF_TRAINING}


def test_the_same_command_ends_well(project: Answered) -> None:
    """Catches a request refused as answered by the very command that has answered it, because `unlearn` knew the base
    models' parameters from the version and the same command starts without them."""
    request = {**REQUEST, "forget_speakers": "p2"}
    project.run("attack")
    assert "registered naive" in project.run("unlearn", **request)
    done = r"request speaker-p2 is answered (audio-mu.tones.logmel.Flat, seed 40: version "
    before = project.aliases(), project.entries()
    for more in ({}, {"n_epochs": "6"}, {"threads": "2", "robust_audits": "true"}):
        assert done in project.run("unlearn", **request, **more)
    assert (project.aliases(), project.entries()) == before
    with pytest.raises(UserError, match=r"n_epochs=7 contradicts the base models"):
        project.run("unlearn", **request, n_epochs="7")
    with pytest.raises(UserError, match=r"p2 is answered already"):
        project.run("unlearn", **request, n_epoch_impair="2")


def test_a_killed_command_is_finished_by_the_same(project: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches exit code 2 for a command that was killed while its models went into service and has finished them."""
    request = {**REQUEST, "forget_speakers": "p3"}
    project.run("attack")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("audio_mu.requests.ledger.put_into_service", killed)
        project.run("unlearn", **request)
    assert "request speaker-p3 is answered: its unlearned models are in service" in project.run("unlearn", **request)
    assert "there is nothing to do" in project.run("unlearn", **request)


def test_a_killed_entry_of_somebody_never_trained_on(project: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches KeyError 'cell': no model answers to such a request."""
    losses = project.table(project.runs(stage="train", role="seed")[-1], "losses.csv")
    for id_ in losses.loc[(losses["speaker"] == "p4") & (losses["member"] == "1"), "clip_id"]:
        (project.folder / "recordings" / id_).unlink()
    project.run("train", n_epochs="6", batch_size="8", clip_seconds="0.5")
    project.run("attack")
    request = {**REQUEST, "forget_speakers": "p4"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("audio_mu.requests.ledger.put_into_service", killed)
        project.run("unlearn", **request)
    for _ in range(2):
        assert "request speaker-p4 is answered (never trained on)" in project.run("unlearn", **request)


def killed(*_: object) -> None:
    raise KeyboardInterrupt
