"""Parameters: one list of names and defaults, and one clear line for whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from audio_mu.cli import read_words
from audio_mu.config import STUDY_KEYS, Config, defaults, load_recipe
from audio_mu.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())


@pytest.mark.parametrize("entry_point", ["main", "train", "attack", "unlearn", "compare", "report", "tune", "erase"])
def test_mlproject_offers_the_same_parameters(entry_point: str) -> None:
    """Catches a parameter, default or placeholder that MLproject and the code do not share."""
    entry = PROJECT["entry_points"][entry_point]
    assert {name: str(spec["default"]) for name, spec in entry["parameters"].items()} == defaults()
    assert all(spec["type"] in ("string", "float") for spec in entry["parameters"].values())
    assert entry["command"].startswith(f"python -m entrypoints.{entry_point} ")
    assert re.findall(r"--(\w+) \{(\w+)\}", entry["command"]) == [(name, name) for name in defaults()]


def test_readme_lists_the_same_parameters() -> None:
    """Catches a README whose table of parameters has gone stale."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    listed = {name: "" if default == "(empty)" else default.strip("`") for name, default in rows if name in defaults()}
    assert listed == defaults()


WRONG = [
    ("forget_percentage", "abc"),
    ("forget_percentage", "0"),
    ("forget_percentage", "100"),
    ("forget_percentage", "-5"),
    ("forget_percentage", "nan"),
    ("seeds", "40,x"),
    ("seeds", "40,40"),
    ("seeds", ""),
    ("dataset", "foo"),
    ("batch_size", "0"),
    ("batch_size", "1.5"),
    ("learning_rate", "inf"),
    ("learning_rate", "0"),
    ("learning_rate", "-1"),
    ("n_epochs", "many"),
    ("architecture", "vggish"),
    ("optimizer", "adamw"),
    ("force", "yes"),
    ("clip_seconds", "0"),
    ("data_dir", "/no/such/folder"),
    ("forget_list", "/no/such/file"),
    ("threads", "0"),
    ("dataset_name", "a/b"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values_are_refused_in_one_line(name: str, value: str) -> None:
    """Catches a value that slips through, and a message without the name, the value or what is allowed."""
    with pytest.raises(UserError) as raised:
        Config.from_text({name: value})
    message = str(raised.value)
    assert name in message
    assert repr(value) in message
    assert "\n" not in message
    assert re.search(r"give|choose", message)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"forget_pct": "30"}, ["forget_pct", "forget_percentage"]),
        ({"architecture": "VGGishSpec", "pipeline": "mel"}, ["VGGishSpec", "spec", "mel"]),
        ({"dataset": "folder"}, ["data_dir"]),
        ({"forget": "list"}, ["forget_list"]),
        ({"forget_speakers": "17"}, ["forget_speakers", "forget='item'", "-P forget=speaker"]),
        ({"forget": "speaker", "forget_class_names": "7"}, ["forget_class_names", "-P forget=class"]),
    ],
)
def test_contradictions_are_refused(values: dict[str, str], words: list[str]) -> None:
    """Catches parameters that contradict each other being taken as they come."""
    with pytest.raises(UserError) as raised:
        Config.from_text(values)
    assert all(word in str(raised.value) for word in words)


def test_study_keys_set_network_and_features() -> None:
    """Catches a key of the study that is not taken apart into architecture and pipeline."""
    for key, (architecture, pipeline) in STUDY_KEYS.items():
        config = Config.from_text({"architecture": key})
        assert (config.architecture, config.pipeline) == (architecture, pipeline)


def test_auto_comes_from_the_recipe_and_given_values_stay() -> None:
    """Catches a recipe that overrides the user, or an auto that stays."""
    config = Config.from_text({"dataset": "audioMNIST", "n_epochs": "7"})
    recipe = load_recipe("audioMNIST")
    assert config.n_epochs == 7
    assert (config.batch_size, config.learning_rate, config.optimizer) == (256, 0.01, "sgd")
    assert (recipe.n_epochs, recipe.n_epoch_repair, recipe.momentum, recipe.pipeline) == (30, 5, 0.9, "mel")


def test_text_round_trip() -> None:
    """Catches a value that does not come back from its own text, which resuming and MLflow rely on."""
    assert Config.from_text({}).as_text() == defaults()
    config = Config.from_text({"seeds": "1,2", "learning_rate": "0.00123", "force": "True"})
    assert Config.from_text(config.as_text()) == config
    for share in ("0.08680555555555555", "99.99999", "10", "1e-05"):
        config = Config.from_text({"forget_percentage": share})
        assert Config.from_text(config.as_text()) == config
        assert config.as_text()["forget_percentage"] == share


def test_command_lines() -> None:
    """Catches hyphens, equals signs or a repeated parameter being misread."""
    assert read_words(["--n-epochs", "3", "--seeds=1,2"]) == {"n_epochs": "3", "seeds": "1,2"}
    for words in (["--seeds"], ["seeds=1"], ["--seeds", "1", "--seeds", "2"], ["--forget_pct", "30"]):
        with pytest.raises(UserError):
            read_words(words)
