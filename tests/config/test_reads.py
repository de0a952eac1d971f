"""The parameters that each entry point reads: MLproject, docs/parameters.md and the code agree."""

from __future__ import annotations

import re

import pytest
import yaml

from audio_mu.cli import ENTRY_POINTS
from audio_mu.config import PARAMETERS, Config, defaults
from audio_mu.config.reads import READS, help_text, in_force, page
from tests.commands import ROOT

PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_mlproject_declares_true_defaults(entry_point: str) -> None:
    """Catches a parameter, default or placeholder of MLproject that the code does not share."""
    entry = PROJECT[entry_point]
    declared = {name: str(spec["default"]) for name, spec in entry["parameters"].items()}
    assert declared.items() <= defaults().items()
    assert set(declared) <= set(READS[entry_point])
    assert all(spec["type"] in ("string", "float") for spec in entry["parameters"].values())
    assert entry["command"].startswith(f"python -m entrypoints.{entry_point} ")
    assert re.findall(r"--(\w+) \{(\w+)\}", entry["command"]) == [(name, name) for name in declared]


def test_a_declared_default_is_never_given_to_a_base_model() -> None:
    """Catches a declared default that `mlflow run` hands on and that would pass for the user's word on base models."""
    for name, about in PARAMETERS.items():
        if about.of_base and any(name in entry["parameters"] for entry in PROJECT.values()):
            assert about.text == "auto", name


def test_the_entry_points_are_the_same_everywhere() -> None:
    """Catches an entry point that MLproject, the folder entrypoints or the table of reads lacks."""
    files = {path.stem for path in (ROOT / "entrypoints").glob("[a-z]*.py")}
    assert set(PROJECT) == set(ENTRY_POINTS) == set(READS) == files


def test_the_page_of_parameters_is_the_code_s() -> None:
    """Catches a docs/parameters.md that has gone stale: `python -m audio_mu.config.reads > docs/parameters.md`."""
    assert (ROOT / "docs" / "parameters.md").read_text() == page()


def test_help_names_every_parameter_once() -> None:
    """Catches a parameter that --help leaves out or repeats."""
    for entry_point in ENTRY_POINTS:
        assert sorted(re.findall(r"^  --(\w+) ", help_text(entry_point), flags=re.MULTILINE)) == sorted(PARAMETERS)


def test_a_stage_logs_its_own_parameters() -> None:
    """Catches a comparison that logs epochs, and a request by speaker that logs a percentage."""
    config = Config.from_text({"forget": "speaker", "forget_speakers": "07"})
    assert set(in_force(config, "compare")) == {
        "dataset", "dataset_name", "data_dir", "labels", "pipeline", "architecture", "seeds"
    }  # fmt: skip
    logged = in_force(config, "unlearn")
    assert logged["forget_speakers"] == "07"
    assert not {"forget_percentage", "forget_seed", "n_attack_models", "workers", "force"} & set(logged)
