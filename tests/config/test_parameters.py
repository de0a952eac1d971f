"""Parameters: one list of names and defaults, and one clear line for whatever is wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from audio_mu.config import GROUP_FIELDS, STUDY_KEYS, Config, defaults, load_recipe, parsers
from audio_mu.errors import UserError

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
    ("optimizer", "rmsprop"),
    ("weight_decay", "-0.1"),
    ("schedule", "step"),
    ("warmup", "0.51"),
    ("clip_gradient", "nan"),
    ("class_weights", "auto"),
    ("accumulate", "0"),
    ("shards", "0"),
    ("shards", "65"),
    ("accumulate", "1.5"),
    ("precision", "half"),
    ("force", "yes"),
    ("clip_seconds", "0"),
    ("data_dir", "/no/such/folder"),
    ("forget_list", "/no/such/file"),
    ("threads", "0"),
    ("dataset_name", "a/b"),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ("a", "b")), (" a , b ", ("a", "b")), ('"Smith, John"', ("Smith, John",)),
        ('"Smith, John" , "cat ",x', ("Smith, John", "cat ", "x")), ('"say ""hi""",b', ('say "hi"', "b")),
        ('5" disc,b', ('5" disc', "b")), ('"open,b', ('"open', "b")), ("", ()), ("Jürgen", ("Jürgen",)),
    ],
)  # fmt: skip
def test_names_with_commas_and_blanks(text: str, names: tuple[str, ...]) -> None:
    """Catches a name that is cut at its comma or loses its blanks, and one that is logged as two."""
    assert parsers.names(text) == names
    assert parsers.names(parsers.as_text(names)) == names
    assert Config.from_text({"forget": "speaker", "forget_speakers": text}).as_text()["forget_speakers"] == (
        parsers.as_text(names)
    )


@pytest.mark.parametrize("text", ["a,,b", "a,", ",a", 'a,"a"', '""', "a, a"])
def test_names_that_are_none(text: str) -> None:
    """Catches an empty name, and one that comes twice."""
    with pytest.raises(parsers.Refused):
        parsers.names(text)


@pytest.mark.parametrize("name", ["forget_list", "method_config", "data_dir"])
def test_a_relative_path_of_mlflow_run(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a file looked for in the copy of the project that MLflow works in, without a word about that."""
    monkeypatch.chdir(tmp_path)
    values = {name: "mine", **({"forget": "list"} if name == "forget_list" else {})}
    with pytest.raises(UserError) as raised:
        Config.from_text(values)
    assert "whole path" not in str(raised.value)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=f"by its whole path: a relative one starts in '{tmp_path}'"):
        Config.from_text(values)


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
        ({"architecture": "CCT", "pipeline": "waveform"}, ["waveform", "CCT", "architecture=/path/to/file.py:Class"]),
        ({"pipeline": "waveform"}, ["waveform", "VGGish", "another pipeline"]),
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
        assert (config.training.architecture, config.data.pipeline) == (architecture, pipeline)


def test_auto_comes_from_the_recipe_and_given_values_stay() -> None:
    """Catches a recipe that overrides the user, or an auto that stays."""
    config = Config.from_text({"dataset": "audioMNIST", "n_epochs": "7", "batch_size": "auto"})
    training, recipe = config.training, load_recipe("audioMNIST")
    assert training.n_epochs == 7
    assert (training.batch_size, training.learning_rate, training.optimizer) == (256, 0.01, "sgd")
    assert (recipe.n_epochs, recipe.n_epoch_repair, recipe.momentum, recipe.pipeline) == (30, 5, 0.9, "mel")
    assert (config.data.pipeline, config.repair.n_epoch_repair) == ("mel", 5)


def test_float32_is_hashed_as_no_precision() -> None:
    """Catches an auto that stays, a cell of bf16 that passes for one of float32, and older steps done again."""
    hashed = [Config.from_text({"precision": text} if text else {}).hashed_recipe for text in ("", "auto", "float32")]
    assert hashed[0] == hashed[1] == hashed[2] and "precision" not in hashed[0]
    config = Config.from_text({"precision": "bf16"})
    assert config.hashed_recipe == {**hashed[0], "precision": "bf16"}
    assert config.hashed_recipe.items() < config.base_recipe.items()
    assert Config.from_text({}).base_recipe["precision"] == "float32"


def test_what_is_as_it_always_was_is_not_hashed() -> None:
    """Catches new parameters that make every older base model and cell another one, and ones that are not hashed."""
    new = {
        "weight_decay": "0.01",
        "schedule": "cosine",
        "warmup": "0.5",
        "clip_gradient": "1",
        "class_weights": "balanced",
        "accumulate": "4",
    }
    plain = Config.from_text({}).hashed_recipe
    assert not {*new} & {*plain} and {*new} < {*Config.from_text({}).base_recipe}
    assert Config.from_text({"weight_decay": "-0.0", "schedule": "constant", "warmup": "0.00"}).hashed_recipe == plain
    assert Config.from_text(new).hashed_recipe == {**plain, **new}


def test_given_is_what_the_user_gave() -> None:
    """Catches a default that passes for the user's word, and a word of the user that passes for a default."""
    config = Config.from_text({"n_epochs": "10", "batch_size": "auto", "dataset_name": "", "forget": "item"})
    assert config.given == {"n_epochs", "forget"}
    assert config.with_values({"batch_size": "32"}).given == {"n_epochs", "forget"}


def test_text_round_trip() -> None:
    """Catches a value that does not come back from its own text, which resuming and MLflow rely on."""
    config = Config.from_text({"seeds": "1,2", "learning_rate": "0.00123", "force": "True"})
    assert same(Config.from_text(config.as_text()), config)
    for share in ("0.08680555555555555", "99.99999", "10", "1e-05"):
        config = Config.from_text({"forget_percentage": share})
        assert same(Config.from_text(config.as_text()), config)
        assert config.as_text()["forget_percentage"] == share


def same(one: Config, other: Config) -> bool:
    """Whether two configurations agree in every value."""
    return dataclasses.replace(one, given=frozenset()) == dataclasses.replace(other, given=frozenset())


def test_every_parameter_has_one_group() -> None:
    """Catches a name that two groups share: the second would be set by the first one's text."""
    names = [name for members in GROUP_FIELDS.values() for name in members]
    assert len(names) == len(set(names)) == len(defaults())


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"forget": "speaker", "forget_speakers": "07"}, "ask"),
        ({"forget": "speaker"}, "exact"),
        ({"forget": "class", "forget_class_names": "7"}, "exact"),
        ({"forget_percentage": "30"}, "exact"),
        ({"forget_percentage": "30", "copies": "ask"}, "ask"),
        ({"forget": "speaker", "forget_speakers": "07", "copies": "exact"}, "exact"),
    ],
)
def test_copies_are_asked_about_where_somebody_is_named(request_: dict[str, str], expected: str) -> None:
    """Catches a person's request that is not searched, and the study's draw that is."""
    config = Config.from_text(request_)
    assert config.request.copies == expected
    assert config.with_values({"n_epochs": "3"}).request.copies == expected
    assert ("copies" in config.given) == ("copies" in request_)


def test_a_request_logs_the_parameters_that_it_reads() -> None:
    """Catches a run that logs the percentage of a request by speaker, or a draw that had no part."""
    items = Config.from_text({}).request
    assert items.in_force == ("forget", "forget_percentage", "forget_seed", "duplicates", "copies")
    named = Config.from_text({"forget": "speaker", "forget_speakers": "07"}).request
    assert named.in_force == ("forget", "forget_speakers", "duplicates", "copies")
    drawn = Config.from_text({"forget": "class"}).request
    assert drawn.in_force == ("forget", "forget_classes_num", "forget_seed", "duplicates", "copies")


def test_seeds_may_be_a_range() -> None:
    """Catches a range without its end, an endless one, and a printed command that repeats other seeds."""
    assert parsers.seeds("40-43") == (40, 41, 42, 43)
    assert parsers.seeds("7,40 - 41") == (7, 40, 41)
    for text in ("43-40", "40-", "-3", "40-41,41", "0-99999999999", "a-b", "1-2-3", "", "1_0"):
        with pytest.raises(parsers.Refused):
            parsers.seeds(text)
    for found in ((40, 41, 42), tuple(range(40, 72)), (40, 42)):
        assert parsers.seeds(parsers.seeds_text(found)) == found
    assert parsers.seeds_text(range(40, 72)) == "40-71"


FOLDER = {"dataset": "folder", "dataset_name": "own"}


def test_a_window_is_a_clips_length(tmp_path: Path) -> None:
    """Catches clips of another length than the window, a hop that is lost, and older models taken for others."""
    given = {**FOLDER, "data_dir": str(tmp_path)}
    config = Config.from_text({**given, "window": "2"})
    assert (config.data.clip_seconds, config.data.window, config.data.hop) == (2.0, 2.0, 2.0)
    assert Config.from_text({**given, "window": "2", "hop": "2", "clip_seconds": "2"}).data == config.data
    assert config.with_values(config.base_recipe).data == config.data
    assert {"window", "hop"} <= config.hashed_recipe.keys()
    plain = Config.from_text(given)
    assert plain.base_recipe["window"] == "none" and not {"window", "hop"} & plain.hashed_recipe.keys()
    assert config.with_values(plain.base_recipe).data == plain.data


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"window": "2", "clip_seconds": "1"}, "window=2 makes clips of that length but clip_seconds=1: leave one"),
        ({"hop": "0.5"}, "hop=0.5 was given without a window: give -P window=1, or leave hop out"),
        ({"window": "0"}, "window='0' is not allowed: give a finite number at least 0.1 and below 60.001, or none"),
        ({"window": "1", "dataset": "audioMNIST"}, "window=1 cuts recordings of dataset=folder alone but dataset="),
    ],
)
def test_windows_that_fit_nothing_are_refused(tmp_path: Path, values: dict[str, str], told: str) -> None:
    """Catches a length that one of two parameters silently decides, and a window that nobody cuts."""
    with pytest.raises(UserError) as error:
        Config.from_text({**FOLDER, "data_dir": str(tmp_path), **values})
    assert told in str(error.value)


@pytest.mark.parametrize("folder", ["/", "/proc", "/proc/self/fd", "/sys", "/dev", "link"])
def test_folders_of_the_system_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Catches a walk through what the system makes up as it is read, before it is refused for another reason."""
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("/proc")
    with pytest.raises(UserError, match=r"^data_dir='.*' is a folder of the system: give the folder of the recordings"):
        Config.from_text({**FOLDER, "data_dir": folder})


def test_recordings_may_lie_in_memory(tmp_path: Path) -> None:
    """Catches /dev/shm refused with the devices beside it."""
    for folder in ("/dev/shm", "/proc/self/cwd"):
        if Path(folder).is_dir():
            assert Config.from_text({**FOLDER, "data_dir": folder}).data.data_dir == Path(folder)
