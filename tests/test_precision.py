"""The precision of training, from the command line to the runs of a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import Answered
from tests.conftest import Command

REQUEST = {"methods": "naive,fine_tune", "forget": "speaker", "forget_speakers": "p1"}


def method_tags(project: Answered) -> dict[str, str]:
    """The tags of the newest run of fine_tune."""
    return project.tags(project.runs(stage="unlearn", role="method", method="fine_tune")[-1])


def test_unlearning_takes_the_precision_of_its_base_models(entry: Command, tmp_path: Path) -> None:
    """Catches bf16 that `train` leaves behind, one cell for two precisions, and versions of older stores refused."""
    with LocalEngine(1) as engine:
        project = Answered.new(tmp_path / "project", engine)
        done = entry("train", project.folder, **project.parameters, precision="bf16")
        assert done.returncode == 0, done.stdout + done.stderr
        (recipe,) = project.recipes()
        assert recipe["precision"] == "bf16"
        project.run("attack")
        project.run("unlearn", **REQUEST)
        in_bf16 = method_tags(project)
        (of_run,) = set(project.query("select value from params where key = 'precision'"))
        assert of_run == ("bf16",)
        with pytest.raises(UserError, match=r"precision=float32 contradicts .* trained with precision=bf16: leave"):
            project.run("unlearn", **REQUEST, precision="float32")

        project.run("train")
        project.run("attack")
        project.run("unlearn", **REQUEST)
        in_float32 = method_tags(project)
        assert all(in_float32[tag] != in_bf16[tag] for tag in ("cell", "fingerprint", "base_version"))

        older = {name: text for name, text in project.recipes()[-1].items() if name != "precision"}
        project.query(
            "update model_version_tags set value = ? where key = 'recipe' and value like '%float32%'", json.dumps(older)
        )
        assert "reusing 3 finished runs of this cell" in project.run("unlearn", **REQUEST, precision="float32")
        with pytest.raises(UserError, match=r"precision=bf16 contradicts .* trained with precision=float32: leave"):
            project.run("unlearn", **REQUEST, precision="bf16")
