"""The registry: methods by name, methods of the user's own, and methods that a new file brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.names import EXACT, ORIGINAL, STUDY
from audio_mu.unlearning import METHODS, choose
from audio_mu.unlearning.registry import own_method
from audio_mu.unlearning.search import LogUniform
from tests.commands import ROOT

METHOD = "def quiet(task, *, rate=0.1):\n    '''Be quiet.'''\n    return task.base()\n"
DECORATED = """
from audio_mu.unlearning import log_uniform, method

@method(reads={"remain"}, requests={"class"}, needs="head", search={"rate": log_uniform(0.0001, 0.01)})
"""


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_a_function_without_decorator_is_a_method_too(tmp_path: Path, registry: None) -> None:
    """Catches own methods crept into `all`, lost hyper-parameters, and a second registration refused as taken."""
    file = tmp_path / "quiet.py"
    file.write_text(METHOD + "def louder(task):\n    '''Be louder.'''\n    return task.base()\n")
    assert choose(["naive", f"{file}:quiet", f"{file}:louder"], "class") == ("naive", "quiet", "louder")
    assert choose([f"{file}:quiet", "quiet"], "item") == ("quiet",)
    assert "quiet" not in choose(["all"], "item")
    quiet = METHODS["quiet"]
    assert (quiet.hyper_parameters, quiet.reads) == ({"rate": 0.1}, {"forget", "remain"})
    assert quiet.reference == f"{file}:quiet"
    file.write_text(METHOD.replace("0.1", "0.2"))
    assert own_method(f"{file}:quiet") == "quiet"
    assert METHODS["quiet"].hyper_parameters == {"rate": 0.2}
    assert METHODS["quiet"].digest != quiet.digest


def test_decorated_method_keeps_its_declarations(tmp_path: Path, registry: None) -> None:
    """Catches a decorator's sets, requests and ranges replaced by the defaults of undecorated functions."""
    file = tmp_path / "decorated.py"
    file.write_text(DECORATED + METHOD)
    assert own_method(f"{file}:quiet") == "quiet"
    quiet = METHODS["quiet"]
    assert (quiet.reads, quiet.requests, quiet.needs) == ({"remain"}, {"class"}, "head")
    assert quiet.search == {"rate": LogUniform(0.0001, 0.01)}
    with pytest.raises(UserError, match="does not support forget='item'"):
        choose([f"{file}:quiet"], "item")


def test_a_module_works_like_a_file(tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches references to modules that are taken for files, and imports that stay after an edit."""
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "methods.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    assert choose(["some_package.methods:quiet"], "item") == ("quiet",)
    (package / "methods.py").write_text(METHOD.replace("0.1", "0.25"))
    assert choose(["some_package.methods:quiet"], "item") == ("quiet",)
    assert METHODS["quiet"].hyper_parameters == {"rate": 0.25}
    del sys.modules["some_package.methods"]


@pytest.mark.parametrize(
    ("text", "reference", "words"),
    [
        (METHOD, "{file}:loud", "defines no 'loud'"),
        (METHOD, "{folder}/other.py:quiet", "not a file"),
        (METHOD, "no.such.module:quiet", "no module 'no.such.module'"),
        (METHOD, "{file}:", "no reference"),
        (METHOD.replace("quiet", "pop"), "{file}:pop", "'pop' is taken"),
        (METHOD.replace("rate=0.1", "rate"), "{file}:quiet", "keyword-only with defaults"),
        (METHOD.replace("rate=0.1", "n_epoch_repair=1"), "{file}:quiet", "settings of all methods, read them from"),
        ("1 / 0", "{file}:quiet", "ZeroDivisionError"),
        ("quiet = 3", "{file}:quiet", "no function"),
    ],
)
def test_a_method_that_cannot_be_used_is_refused(
    text: str, reference: str, words: str, tmp_path: Path, registry: None
) -> None:
    """Catches a traceback for a mistake in the user's own file, and a built-in method that is replaced."""
    file = tmp_path / "mine.py"
    file.write_text(text)
    pop = METHODS["pop"]
    with pytest.raises(UserError, match=words) as raised:
        choose([reference.format(file=file, folder=tmp_path)], "item")
    assert "\n" not in str(raised.value)
    assert METHODS["pop"] is pop


@pytest.mark.parametrize("end", ["1 / 0", "import sys; sys.exit(0)", '@method(reads={"all"})\ndef other(task): ...'])
def test_a_file_that_fails_leaves_nothing(end: str, tmp_path: Path, registry: None) -> None:
    """Catches methods of a file that failed half way, and a mended file that is not read again."""
    file = tmp_path / "mine.py"
    before = dict(METHODS)
    whole = DECORATED.replace('{"class"}', '{"item"}') + METHOD
    file.write_text(f"{whole}\n{end}\n")
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be loaded"):
            choose([f"{file}:quiet"], "item")
        assert before == METHODS
    file.write_text(whole)
    assert choose([f"{file}:quiet"], "item") == ("quiet",)
    file.write_text(f"{whole}\n{end}\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        choose([f"{file}:quiet"], "item")
    assert before == METHODS


def test_a_refused_function_takes_its_file_with_it(tmp_path: Path, registry: None) -> None:
    """Catches methods beside a function that is refused, which later are there without their declarations."""
    file = tmp_path / "mine.py"
    file.write_text(DECORATED.replace('{"class"}', '{"item"}') + METHOD + "\ndef pop(task):\n    ...\n")
    with pytest.raises(UserError, match="'pop' is taken"):
        choose([f"{file}:pop"], "item")
    assert "quiet" not in METHODS
    choose([f"{file}:quiet"], "item")
    assert METHODS["quiet"].reads == {"remain"}


ASK = """
from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.names import EXACT, ORIGINAL, STUDY
from audio_mu.unlearning import METHODS, choose
from audio_mu.unlearning.trials import draw_trials
from audio_mu.workflows.method_settings import check_methods
assert METHODS["quiet"].reads == {"remain"} and not METHODS["quiet"].reference
assert "quiet" not in choose(["all"], "item") and "quiet" in choose(["all"], "class")
assert check_methods(Config.from_text({"methods": "quiet", "forget": "class"})) == ("quiet",)
assert [set(trial.values) for trial in draw_trials("quiet", METHODS["quiet"].search, 2, 0.01, 1)] == [set(), {"rate"}]
try:
    choose(["quit"], "class")
except UserError as error:
    assert "did you mean quiet?" in str(error), error
"""


def test_a_method_is_one_new_file_of_the_package(tmp_path: Path) -> None:
    """Catches a list by hand that a new method has to be added to."""
    shutil.copytree(ROOT / "audio_mu", tmp_path / "audio_mu")
    (tmp_path / "audio_mu" / "unlearning" / "quiet.py").write_text(DECORATED + METHOD)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_names_without_code_are_those_of_the_registry() -> None:
    """Catches a name of the study, or of the retrained model, that no method has."""
    assert set(STUDY) <= set(METHODS)
    assert [name for name, registered in METHODS.items() if registered.retrains_only] == [*EXACT]
    assert ORIGINAL not in METHODS


def test_names_of_groups_stand_for_their_methods() -> None:
    """Catches a method missing from `all`, one that crept into `study`, and a naive that is not first."""
    assert choose(["study"], "item") == STUDY
    assert set(choose(["all"], "item")) == {
        name for name, m in METHODS.items() if "item" in m.requests and not m.of_shards
    }
    assert choose(["pop", "naive", "original"], "item") == ("naive", "pop")
    with pytest.raises(UserError, match="not known"):
        choose(["popp"], "item")
