"""The chain on data that is neither digits, nor mono, nor one second, nor ten classes; and on removed classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.conftest import FAST, Command
from tests.finished_store import Results

RATE = 44_100


def chirps(folder: Path) -> Path:
    """3 classes (rising, falling, steady tones) × 14 stereo files of 2 s at 44.1 kHz, three speakers."""
    draw = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    for name, slope in (("rising", 400.0), ("falling", -400.0), ("steady", 0.0)):
        (folder / name).mkdir(parents=True)
        for i in range(14):
            pitch = draw.uniform(900, 1800)
            tone = 0.3 * np.sin(2 * np.pi * (pitch * time + slope * time**2 / 2))
            stereo = np.stack([tone, 0.8 * tone], axis=1) + draw.normal(0, 0.01, (len(time), 2))
            soundfile.write(folder / name / f"person{i % 3}_{i}.wav", stereo, RATE)
    return folder


def test_a_folder_of_long_stereo_files(project: Command, tmp_path: Path) -> None:
    """Catches ten classes, 16,000 samples, mono or a known speaker layout being taken for granted."""
    done = project(
        "main", tmp_path, dataset="folder", dataset_name="chirps", data_dir=str(chirps(tmp_path / "data")),
        clip_seconds="2", speaker_pattern=r"(person\d)_", forget="speaker", forget_speakers="person1",
        methods="naive,pop", copies="exact", **FAST | {"seeds": "40", "n_epochs": "6"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = Results(tmp_path)
    runs = results.methods("speaker-person1")
    assert set(runs) == {("original", "40"), ("naive", "40"), ("pop", "40")}
    with np.load(results.artifact(runs["pop", "40"], "logits/forget.npz"), allow_pickle=False) as stored:
        assert stored["logits"].shape[1] == 3
        assert all("person1_" in id_ for id_ in stored["clip_id"])
    assert "held_out/accuracy" in runs["pop", "40"].data.metrics
    version = results.client.get_model_version_by_alias("audio-mu.chirps.logmel.VGGish", "seed-40")
    assert version.tags["dataset_name"] == "chirps"


def test_a_removed_class_leaves_the_test_set(project: Command, tmp_path: Path, small_digits: Path) -> None:
    """Catches removed classes that stay in the test set, and a naive model that still answers them."""
    done = project(
        "main", tmp_path, data_dir=str(small_digits), forget="class", forget_classes_num="2", methods="naive,cosine",
        **FAST | {"seeds": "40", "n_epochs": "8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = Results(tmp_path)
    for (method, _), run in results.methods("class-2").items():
        with np.load(results.artifact(run, "logits/test.npz"), allow_pickle=False) as stored:
            assert {0, 1}.isdisjoint(stored["label"].tolist())
        with np.load(results.artifact(run, "logits/forget.npz"), allow_pickle=False) as stored:
            assert set(stored["label"].tolist()) == {0, 1}
        assert "held_out/accuracy" in run.data.metrics
        if method == "naive":
            assert run.data.metrics["forget/accuracy"] == 0
            assert run.data.metrics["held_out/accuracy"] == 0
        else:
            assert run.data.metrics["gap/forget_accuracy"] == run.data.metrics["forget/accuracy"]
