"""What became of a store's parts between two commands is told by name, with the command that makes them again."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from mlflow.tracking import MlflowClient

from audio_mu.config import Config
from audio_mu.data.audio import read_clip
from audio_mu.errors import UserError
from audio_mu.report.html import Clip
from audio_mu.report.sound import sound_of
from tests.answered import Answered, tones
from tests.conftest import Command
from tests.mounts import small_disk

UNLEARN, TRAIN, ATTACK = (rf"mlflow run \. -e {stage} .*-P force=true" for stage in ("unlearn", "train", "attack"))


def run_of(answered: Answered, method: str) -> str:
    return answered.runs(stage="unlearn", role="method", method=method)[-1]


def damage(answered: Answered, method: str, path: str, cut: int | str) -> str:
    """Cut a file of a method's run, in a row (below -2), after a line, or put a text in its place; return the run."""
    file = answered.place(run := run_of(answered, method)) / path
    lines = file.read_bytes().splitlines(keepends=True)
    if isinstance(cut, str):
        file.write_text(cut)
    else:
        file.write_bytes(b"".join(lines)[:cut] if cut < -2 else b"".join(lines[:cut]))
    return run


@pytest.mark.parametrize("method", ["original", "naive"])
@pytest.mark.parametrize(
    ("path", "cut", "told"),
    [
        ("audit/per_clip.csv", -7, "its last row is cut"),
        ("audit/per_clip.csv", -1, r"it has \d+ of the \d+ recordings of its cell"),
        ("audit/per_clip.csv", 1, "it has"),
        ("audit/per_clip.csv", "clip_id,role,loss\nx,forget,<html>\n", "ValueError"),
        ("losses/forget.csv", -9, "its last row is cut"),
        ("losses/forget.csv", -2, r"it has \d+ of \d+ recordings"),
        ("audit/audit.json", -20, "JSONDecodeError"),
        ("audit/audit.json", "[]", "TypeError"),
        ("audit/audit.json", "{}", "KeyError: 'request'"),
        ("logits/forget.npz", -30, "BadZipFile"),
    ],
)
def test_a_damaged_part_leaves_its_run_out_by_name(
    answered: Answered, method: str, path: str, cut: int | str, told: str
) -> None:
    """Catches a comparison that ends, or shows half of the rows, because of one file of one run."""
    run = damage(answered, method, path, cut)
    one_for_all = path.startswith("losses") or path.endswith("json")  # one run's stands for the cell
    output = answered.run("compare")
    (place,) = (answered.place(run) for run in answered.runs(stage="compare"))
    methods = set(pd.read_csv(place / "comparison.csv")["method"])
    if one_for_all and method != _any_run(answered):
        assert "LEFT OUT" not in output
        return
    other = {"original": "naive", "naive": "original"}[method]
    line = rf"{method} seed-40: {path} of run {run} cannot be read \(.*{told}.*{UNLEARN}"
    assert re.search(f"  LEFT OUT {line}", output)
    assert re.search(f"note: left out of every figure: {line}", output)
    assert other in methods and method not in methods
    assert re.search(f"left out of every figure: {line.replace(UNLEARN, '')}", (place / "comparison.md").read_text())


def _any_run(answered: Answered) -> str:
    """The method of the run whose lists a comparison shows: the newest."""
    newest = answered.runs(stage="unlearn", role="method")[-1]
    return answered.tags(newest)["method"]


def test_what_was_left_out_is_the_last_word(answered: Answered, entry: Command) -> None:
    """Catches an exit code and last lines that say that all is well, and an evidence record of a part of its runs."""
    run = damage(answered, "original", "audit/per_clip.csv", -7)
    ended = entry("compare", answered.folder, **answered.parameters)
    assert ended.returncode == 3
    head, line = ended.stderr.splitlines()[-2:]
    assert head == "1 run left out, a part of it cannot be read:"
    assert line.startswith(f"  original seed-40: audit/per_clip.csv of run {run} cannot be read")
    assert re.search(r"entrypoints\.unlearn .*--methods naive --force true", line)
    with pytest.raises(UserError, match=f"audit/per_clip.csv of run {run} cannot be read.*{UNLEARN}"):
        answered.run("report", forget="speaker", forget_speakers="p1")
    damage(answered, "naive", "audit/per_clip.csv", -7)
    with pytest.raises(UserError, match=r"every run of audio-mu\.tones.* has a part that cannot be read"):
        answered.run("compare")


@pytest.mark.parametrize("rows", [0, 3])
def test_arrays_of_another_shape(answered: Answered, rows: int) -> None:
    """Catches an IndexError of numpy, and an audit over the recordings that happen to be there."""
    for method in ("naive", "original"):  # the one whose arrays are the measure of the others' is among them
        file = answered.place(run_of(answered, method)) / "logits" / "forget.npz"
        whole = file.read_bytes()
        arrays = dict(np.load(file))
        if rows:
            arrays = {name: values[:rows] for name, values in arrays.items()}  # of one length, and too few
        else:
            arrays["logits"] = arrays["logits"][:, 0]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        file.write_bytes(buffer.getvalue())
        told = rf"LEFT OUT {method} seed-40: logits/forget.npz of run \w+ cannot be read.*it has .*{UNLEARN}"
        assert len(re.findall(told, output := answered.run("compare"))) == output.count("LEFT OUT") == 1
        file.write_bytes(whole)


def test_unlearn_does_again_what_another_cell_cannot_lend(answered: Answered) -> None:
    """Catches a command that ends because of a finished step's damaged logits, or gives its figures without them."""
    request = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive,fine_tune"}
    answered.run("attack")
    answered.run("unlearn", **request)
    damage(answered, "naive", "logits/forget.npz", -30)
    output = answered.run("unlearn", **request, n_epoch_repair="2")  # another cell: naive reads no repair settings
    assert re.search(rf"naive seed 40 is done again: logits/forget.npz of run \w+ cannot be read.*{UNLEARN}", output)
    damage(answered, "naive", "logits/forget.npz", -30)
    output = answered.run("unlearn", **request | {"methods": "gradient_ascent"}, n_epoch_repair="2")
    assert re.search(rf"LEFT OUT naive seed-40: logits/forget.npz of run \w+ cannot be read.*{UNLEARN}", output)
    assert "note: seed 40: nothing is compared with naive before that" in output
    one = request | {"methods": "gradient_ascent", "register": "gradient_ascent", "n_epoch_repair": "2"}
    with pytest.raises(UserError, match=r"no evidence of a part of the runs, naive seed-40: logits/forget.npz"):
        answered.run("unlearn", **one)


def test_train_does_a_seed_again_whose_logits_are_damaged(answered: Answered) -> None:
    """Catches a training command that ends at one seed's damaged file and asks for all seeds again."""
    (run,) = answered.runs(stage="train", role="seed")
    file = answered.place(run) / "logits" / "test.npz"
    file.write_bytes(file.read_bytes()[:-30])
    assert "seed-40 is trained again: logits/test.npz of run" in answered.run("train", ledger="ignore")
    assert "reusing the base model" in answered.run("train", ledger="ignore")


@pytest.mark.parametrize("name", ["recordings.csv", "nonmembers.csv"])
def test_a_damaged_ledger_is_never_left_out(answered: Answered, name: str) -> None:
    """Catches answered people who are trained on again because the list of them is damaged."""
    file = answered.place(answered.entries()[-1]) / name
    file.write_bytes(file.read_bytes()[:-5])
    for stage in ("train", "compare", "unlearn"):
        with pytest.raises(UserError, match=f"{name} of run .* cannot be read"):
            answered.run(stage)


def test_the_ranking_goes_on_without_a_cut_table(answered: Answered) -> None:
    """Catches a damaged table of one comparison that keeps every later one from being made."""
    answered.run("compare")
    file = answered.place(answered.runs(stage="compare")[-1]) / "ranked.csv"
    file.write_bytes(file.read_bytes()[:-5])
    assert "the ranking over cells begins anew" in answered.run("compare")
    assert "begins anew" not in answered.run("compare")


@pytest.mark.parametrize(("key", "value"), [("method", "<b>naive</b>"), ("seed", "forty"), ("method", "../../x")])
def test_a_tag_that_is_none_of_ours(answered: Answered, key: str, value: str) -> None:
    """Catches MLflow's error about the name of a metric, and a tag that becomes a path."""
    run = run_of(answered, "naive")
    answered.query("update tags set value = ? where key = ? and run_uuid = ?", value, key, run)
    with pytest.raises(UserError, match=rf"\({run[:8]}\) has .*{key}='{value}'.*mend the tags"):
        answered.run("compare")


def test_a_metric_that_is_no_number(answered: Answered) -> None:
    """Catches a ValueError far away: SQLite keeps any text in a column of numbers."""
    run = run_of(answered, "naive")
    answered.query("update latest_metrics set value = '{' where key = 'mia/auc' and run_uuid = ?", run)
    with pytest.raises(UserError, match=rf"\({run[:8]}\) has the metric mia/auc='{{', which is no number"):
        answered.run("compare")


def test_a_tag_reaches_neither_terminal_nor_path(answered: Answered) -> None:
    """Catches a request's name that clears the screen, turns the page's letters round, or leads out of the run."""
    hostile = "../../\x1b[2J\u202eevil"
    answered.query("update tags set value = ? where key = 'request' and value = 'speaker-p1'", hostile)
    output = answered.run("compare")
    assert "\x1b" not in output and "\u202e" not in output and r"\x1b[2J\u202eevil" in output
    place = answered.place(answered.runs(stage="compare")[-1])
    pages = [path for path in place.rglob("*") if path.suffix in (".html", ".md")]
    assert len(pages) >= 2
    assert not any("\x1b" in path.read_text() or "\u202e" in path.read_text() for path in pages)
    assert not [path for path in answered.folder.rglob("*evil*") if place not in path.parents]


def cut_models(answered: Answered, stage: str) -> None:
    for run in answered.runs(stage=stage):
        for (folder,) in answered.query("select artifact_location from logged_models where source_run_id = ?", run):
            for file in Path(folder).rglob("model.pt2"):
                file.write_bytes(file.read_bytes()[:100])


def test_models_that_were_cut_are_made_again_by_the_command_that_is_named(answered: Answered) -> None:
    """Catches `force=true` without the command that it is for: training again leaves attack models as they are."""
    request = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive"}
    answered.run("attack")
    cut_models(answered, "attack")
    with pytest.raises(UserError, match=f"cannot be read.*{ATTACK}"):
        answered.run("unlearn", **request)
    answered.run("attack", force="true")
    cut_models(answered, "unlearn")
    with pytest.raises(UserError, match=f"cannot be read.*{UNLEARN}"):
        answered.run("unlearn", **request)


def test_logits_that_are_gone(answered: Answered) -> None:
    """Catches a KeyError where the files of the base models were removed, and a run that `mlflow gc` has collected."""
    (train,) = answered.runs(stage="train", role="seed")
    shutil.rmtree(answered.place(train) / "logits")
    with pytest.raises(UserError, match=f"logits of run {train} cannot be read.*none are at .*{TRAIN}"):
        answered.run("attack", ledger="ignore")
    answered.query("pragma foreign_keys = off")
    for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
        answered.query(f"delete from {table} where run_uuid = ?", train)
    with pytest.raises(UserError, match=f"of run {train} cannot be read.*restore it from a backup"):
        answered.run("attack", ledger="ignore")


def test_runs_that_were_collected(answered: Answered) -> None:
    """Catches MLflow's error in a comparison whose attack models, or whose command, `mlflow gc` has removed."""
    for stage in ("attack", "unlearn"):
        (run,) = answered.runs(stage=stage, role="parent")
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            answered.query(f"delete from {table} where run_uuid = ?", run)
        if stage == "attack":
            answered.run("compare")
    with pytest.raises(UserError, match=f"command that unlearned speaker-p1 is gone from the store, with .*{UNLEARN}"):
        answered.run("compare")


def test_a_network_registered_by_hand(answered: Answered) -> None:
    """Catches KeyError 'recipe' where somebody has put a version of his own behind our alias."""
    answered.query("delete from model_version_tags where key = 'recipe'")
    with pytest.raises(
        UserError, match=r"version \d+ of audio-mu.tones.* registered by something else, it lacks recipe"
    ):
        answered.run("attack")


def test_another_pattern_is_told_before_any_work(answered: Answered) -> None:
    """Catches all features computed anew for a refusal, and a pattern that is told with its backslashes doubled."""
    features = answered.folder / "cache" / "features"
    before = sorted(features.iterdir())
    with pytest.raises(UserError) as raised:
        answered.run("attack", speaker_pattern=r"(p\d+_\d)")
    told = r"speaker_pattern='(p\d+_\d)' finds other speakers than speaker_pattern='(p\d+)_' ('high/p1_0.wav' is of"
    assert str(raised.value).startswith(told)
    assert sorted(features.iterdir()) == before
    answered.run("attack", speaker_pattern=r"(p[0-9])_")  # the same people by another pattern


def test_a_class_of_two_recordings_is_told_at_train(answered: Answered) -> None:
    """Catches a class that is only trained on, or only tested, without a word."""
    rare = answered.folder / "recordings" / "rare"
    rare.mkdir()
    wave = np.random.default_rng(7).normal(0, 0.1, (2, 8_000))
    for i in range(2):
        soundfile.write(rare / f"p1_{i}.wav", wave[i], 16_000)
    output = answered.run("train", ledger="ignore")
    told = re.search(r"WARNING: 1 class of 4 on one side alone: rare \(2 recordings, none to (test|train on)\)", output)
    assert told is not None


def test_a_whole_cache_is_only_read(answered: Answered, tmp_path: Path) -> None:
    """Catches a command that wants to write a lock into a cache which has all that it needs."""
    cache = answered.folder / "cache"
    with small_disk(tmp_path / "disk", "50m") as disk:
        shutil.copytree(cache, disk.path, dirs_exist_ok=True)
        shutil.rmtree(cache)
        cache.symlink_to(disk.path)
        disk.read_only()
        answered.run("attack")
        cache.unlink()


def test_a_report_plays_recordings_of_the_data_set_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches files of the reader's own that a store names, embedded into a page that is handed on."""
    root, private = tones(tmp_path / "data"), tones(tmp_path / "private", ("p9",), 1)
    own, secret = read_clip(root / "low" / "p1_0.wav", 8_000), read_clip(private / "low" / "p9_0.wav", 8_000)
    values = {"dataset": "folder", "dataset_name": "t", "data_dir": str(root), "clip_seconds": "0.5"}
    data = Config.from_text(values).data
    known = frozenset((secret.hash, own.source_hash))
    names = [str(private / "low" / "p9_0.wav"), "../private/low/p9_0.wav", "low/../../private/low/p9_0.wav"]
    assert sound_of(data, "", [Clip(name, "low", "p9", known) for name in names]) == {}
    assert sound_of(data, "", [Clip("low/p1_0.wav", "low", "p1", frozenset(("0" * 64,)))]) == {}  # of another content
    assert sound_of(data, "", [Clip("low/p1_0.wav", "low", "p1", known)]).keys() == {"low/p1_0.wav"}


def test_looking_for_recordings_downloads_nothing(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches gigabytes resumed, or voices made, because a comparison looks whether recordings are at hand."""
    from audio_mu.data import datasets

    monkeypatch.setenv("AUDIO_MU_CACHE", str(answered.folder / "cache"))
    monkeypatch.setenv("AUDIO_MU_AUDIOMNIST_URL", "http://127.0.0.1:9/none")
    monkeypatch.setenv("AUDIO_MU_SPEECH_COMMANDS_URL", "http://127.0.0.1:9/none")
    for name in ("data/AudioMNIST-ce04129a.tar.gz.part", "data/SpeechCommands-v0.02.tar.gz.part", "SyntheticDigits-x"):
        (answered.folder / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        (answered.folder / "cache" / name).touch()
    for name in ("audioMNIST", "SpeechCommands", "SyntheticDigits"):
        assert datasets.root_at_hand(Config.from_text({"dataset": name}).data, "") is None


@pytest.mark.parametrize("whole", [True, False])
def test_entries_that_were_deleted_in_the_ui(answered: Answered, whole: bool) -> None:
    """Catches answered people who are trained on again because their experiment, or their entry, was deleted."""
    answered.run("train", experiment="other", ledger="ignore")  # a store of two experiments
    (entry,) = answered.entries()
    client = MlflowClient(f"sqlite:///{answered.database}")
    client.delete_experiment("0") if whole else client.delete_run(entry)
    way_out = "experiments restore -x 0" if whole else f"runs restore --run-id {entry}"
    with pytest.raises(UserError, match=f"1 entry of answered requests .*deleted.*{way_out}.*mlflow gc"):
        answered.run("train", experiment="other")
    client.restore_experiment("0") if whole else client.restore_run(entry)
    assert "request speaker-p1" in answered.run("train", experiment="other")


def test_the_attack_of_the_last_command_is_taken(answered: Answered) -> None:
    """Catches figures of attack models of the other feature, because these were trained later and reused earlier."""
    for feature in ("loss", "log_loss", "loss"):
        answered.run("attack", attack_feature=feature)
    request = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive"}

    def feature_of(**more: str) -> str:
        answered.run("unlearn", **request, **more)
        run = answered.runs(stage="unlearn", role="method", request="speaker-p2")[-1]
        about = answered.place(answered.tags(run)["attack_run_id"]) / "attack.json"
        return json.loads(about.read_text())["feature"]

    assert feature_of() == "loss"
    assert feature_of(attack_feature="log_loss") == "log_loss"
    with pytest.raises(UserError, match=r"no attack models with n_attack_models=2 .* -P n_attack_models=2` first"):
        answered.run("unlearn", **request | {"n_attack_models": "2"})


def test_runs_that_lack_what_the_rule_needs_are_not_judged(answered: Answered) -> None:
    """Catches a verdict from runs of an earlier version whose figures have no errors, or from some of the seeds."""
    request = {"forget": "speaker", "forget_speakers": "p2"}
    answered.run("attack")
    answered.run("unlearn", **request, methods="naive,fine_tune")
    run = answered.runs(stage="unlearn", role="method", method="fine_tune")[-1]
    lost = "delete from latest_metrics where run_uuid = ? and key like ?"
    for pattern in ("error/%", "error/half%", "gap/%"):
        answered.query(lost, run, pattern)
        answered.run("report", **request, methods="fine_tune")
        record = answered.place(answered.runs(stage="report")[-1]) / "evidence.md"
        assert "lack differences from naive or their errors" in record.read_text()
        answered.run("unlearn", **request, methods="fine_tune")  # as it says
        answered.run("report", **request, methods="fine_tune")
        record = answered.place(answered.runs(stage="report")[-1]) / "evidence.md"
        assert "lack differences" not in record.read_text()


@pytest.mark.parametrize(
    ("table", "keys", "what"),
    [
        ("tags", ("speaker_confounded",), "without speaker_confounded"),
        ("tags", ("repair", "split"), "without repair, split"),
        ("latest_metrics", ("remain/accuracy",), "without remain/accuracy"),
    ],
)
def test_a_run_without_its_tags_or_figures(answered: Answered, table: str, keys: tuple[str, ...], what: str) -> None:
    """Catches a KeyError where an earlier version, or somebody's edit, has left something out."""
    run = run_of(answered, "original")
    for key in keys:
        answered.query(f"delete from {table} where run_uuid = ? and key = ?", run, key)
    told = rf"LEFT OUT original seed-40: the tags and figures of run {run} cannot be read \({what}\): .*{UNLEARN}"
    assert re.search(told, answered.run("compare"))


def test_a_parameter_that_a_run_lacks(answered: Answered) -> None:
    """Catches a KeyError where a version before did not have the parameter."""
    answered.query("delete from params where key = 'split_seed'")
    answered.run("compare")
