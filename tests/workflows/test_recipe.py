"""The whole recipe, from the command line to the runs of a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import Answered

RECIPE = {
    "optimizer": "adamw", "weight_decay": "0.01", "schedule": "cosine", "warmup": "0.1", "clip_gradient": "1",
    "class_weights": "balanced", "accumulate": "2",
}  # fmt: skip
REQUEST = {"methods": "naive,fine_tune", "forget": "speaker", "forget_speakers": "p1"}


def naive_tags(project: Answered) -> dict[str, str]:
    return project.tags(project.runs(stage="unlearn", role="method", method="naive")[-1])


def test_unlearning_takes_the_recipe_of_its_base_models(tmp_path: Path) -> None:
    """Catches a recipe that `train` leaves behind, one cell for two recipes, and older versions that are refused."""
    with LocalEngine(1) as engine:
        project = Answered.new(tmp_path / "project", engine)
        project.run("train", **RECIPE)
        assert project.recipes()[0].items() >= RECIPE.items()
        project.run("attack")
        project.run("unlearn", **REQUEST)
        own = naive_tags(project)
        for name, text in RECIPE.items():
            assert {text} == {value for (value,) in project.query("select value from params where key = ?", name)}
        with pytest.raises(UserError, match=r"schedule=linear contradicts .* trained with schedule=cosine: leave"):
            project.run("unlearn", **REQUEST, schedule="linear")

        project.run("train")
        project.run("attack")
        project.run("unlearn", **REQUEST)
        plain = naive_tags(project)
        assert all(plain[tag] != own[tag] for tag in ("cell", "fingerprint", "base_version"))
        older = {
            name: text for name, text in project.recipes()[-1].items() if name not in RECIPE or name == "optimizer"
        }
        project.query(
            "update model_version_tags set value = ? where key = 'recipe' and value like '%constant%'",
            json.dumps(older),
        )
        assert "reusing 3 finished runs of this cell" in project.run("unlearn", **REQUEST)
