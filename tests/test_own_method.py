"""Methods and networks of the user's own: the examples of the documentation as they stand, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from audio_mu import api
from audio_mu.compute.problem import make_network
from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.unlearning import METHODS
from audio_mu.workflows.checks import check
from tests.conftest import ROOT, Command

PAGES = "".join((ROOT / page).read_text() for page in ("README.md", "docs/extending.md"))
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGES, flags=re.DOTALL))

SETTINGS = {"seeds": "40", "n_epochs": "2", "n_epoch_repair": "1", "batch_size": "16", "workers": "1"}


@dataclass(frozen=True)
class Example:
    """A folder with the README's method and network, and a store in which that network is trained and attacked."""

    folder: Path
    parameters: dict[str, str]

    @property
    def method(self) -> Path:
        return self.folder / "my_method.py"

    @property
    def network(self) -> Path:
        return self.folder / "my_network.py"

    def runs(self, condition: str) -> list:
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        return list(MlflowClient(uri, uri).search_runs(["0"], condition))


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, small_digits: Path) -> Iterator[Example]:
    folder = tmp_path_factory.mktemp("own")
    for name, text in BLOCKS.items():
        (folder / f"{name}.py").write_text(text)
    parameters = {**SETTINGS, "data_dir": str(small_digits), "architecture": f"{folder}/my_network.py:Small"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        trained = api.train(**parameters)
        assert trained["model"].tolist() == ["models:/audio-mu.SyntheticDigits.logmel.Small/1"]
        api.attack(**parameters, n_attack_models=1)
        yield Example(folder, parameters)


def test_readme_examples_are_about_ten_lines() -> None:
    """Catches examples that have gone from the README, and such as nobody would read."""
    assert set(BLOCKS) == {"my_method", "my_network"}
    lines = {name: [line for line in text.splitlines() if line.strip()] for name, text in BLOCKS.items()}
    assert all(len(written) <= 11 for written in lines.values())


def test_readme_method_and_network_run(example: Example, entry: Command, registry: None) -> None:
    """Catches examples that do not run, code that worker processes cannot find, and an edit that is not noticed."""
    parameters = {**example.parameters, "save_models": "none", "n_attack_models": "1"}
    methods = f"naive,{example.method}:flatten"
    done = entry("unlearn", example.folder, methods=methods, **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {run.data.tags["method"]: run for run in example.runs("tags.role = 'method'")}
    assert set(found) == {"original", "naive", "flatten"}
    assert {run.data.tags["architecture"] for run in found.values()} == {"Small"}
    original, flatten = (found[name].data.metrics for name in ("original", "flatten"))
    assert flatten["forget/loss"] != original["forget/loss"]
    assert flatten["time/impair_s"] > 0 and flatten["time/repair_s"] > 0

    text = example.method.read_text()
    example.method.write_text(text.replace("published_rate=rate", "published_rate=30 * rate"))
    table = api.unlearn(**parameters, methods=methods)
    example.method.write_text(text)
    naive = example.runs("tags.role = 'method' and tags.method = 'naive'")
    again = example.runs("tags.role = 'method' and tags.method = 'flatten'")
    assert (len(naive), len(again)) == (1, 2)
    row = table.set_index("method").loc["flatten"]
    assert row["forget/loss"] != flatten["forget/loss"]
    assert row["cell"] == found["flatten"].data.tags["cell"]


def test_an_edited_network_must_be_trained_again(example: Example) -> None:
    """Catches weights of one network loaded into another one of the same name."""
    text = example.network.read_text()
    example.network.write_text(text + "\n# edited\n")
    try:
        with pytest.raises(UserError, match=r"edited since seeds=40 .*train"):
            api.unlearn(**example.parameters, methods="naive")
    finally:
        example.network.write_text(text)


def test_what_the_network_lacks_is_refused_before_any_work(example: Example) -> None:
    """Catches an AttributeError in a worker after minutes of training."""
    for asks, attribute in [({"methods": "cf_k"}, "last_block"), ({"methods": "all"}, "last_block"),
                            ({"methods": "naive,msg"}, "head"), ({"deep_audits": "true"}, "penultimate")]:  # fmt: skip
        with pytest.raises(UserError, match=f"needs a network with '{attribute}'"):
            check(Config.from_text({**example.parameters, **asks}))
    check(Config.from_text({**example.parameters, "methods": "study"}))


NETWORK = "from torch import nn\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def Mine(n_classes, input_shape): ...", "no class"),
        (f"{NETWORK}class Mine(nn.Module): pass", r"called as Mine\(3, \(\d+, \d+\)\), fails \(TypeError"),
        (f"{NETWORK}class Mine(nn.Flatten):\n  def __init__(self, n, shape): super().__init__()", r"give \[2, 3\]"),
        ("class Mine(:", "SyntaxError"),
        ("Other = 1", "defines no 'Mine'"),
        (f"{NETWORK}class Mine(nn.Module):\n  def __init__(self, n, shape): exit(0)", r"\(SystemExit: 0\): mend it"),
        (
            f"{NETWORK}class Mine(nn.Module):\n  def __init__(self, n, shape): raise BaseException('b')",
            "BaseException: b",
        ),
        (f"{NETWORK}class Mine(nn.Flatten):\n  def forward(self, x): raise GeneratorExit", r"\(GeneratorExit\)"),
        ("class Mute(Exception):\n  def __str__(self): raise self\nraise Mute", "Mute: its text fails with Mute"),
        ("raise BaseException('b')", r"cannot be loaded \(BaseException: b\)"),
        ("def __getattr__(name): raise SystemExit(0)", "SystemExit: 0"),
        ("import a_file_beside_it", r"put PYTHONPATH=/\S+ before this .* whose edits no command notices"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """Catches a traceback for a mistake in the user's own file, or exit code 0, and one that is noticed in training."""
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        check(Config.from_text({"architecture": f"{file}:Mine"}))
    assert "\n" not in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_network_is_tried_with_the_number_of_classes_of_its_folder(tmp_path: Path) -> None:
    """Catches a network with a fixed number of outputs, or in another order of them, that fails with any other one."""
    for name in ("down", "left", "right", "up"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"")
    file = tmp_path / "mine.py"
    body = "  def __init__(self, n, shape): super().__init__(nn.Flatten(), nn.LazyLinear(4))\n"
    file.write_text(
        f"{NETWORK}class Fixed(nn.Sequential):\n{body}class Other(Fixed):\n"
        "  def forward(self, x): return super().forward(x)[:, [3, 2, 0, 1]]\n"
    )
    given = {"dataset": "folder", "dataset_name": "t", "data_dir": str(tmp_path)}
    for name in ("Fixed", "Other"):
        check(Config.from_text({**given, "architecture": f"{file}:{name}"}))
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"called as Fixed\(5, \(.*\)\), answers 2 clips of 5 classes .* give \[2, 5\]"):
        check(Config.from_text({**given, "architecture": f"{file}:Fixed"}))


GREEDY = """
import torch


def take():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.autocast("cpu", dtype=torch.float16).__enter__()


class Mine(torch.nn.Flatten):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        take()


take()
"""


def test_what_own_code_sets_for_all_of_torch_is_put_back(tmp_path: Path) -> None:
    """Catches every other method's figures, or failures, that come of one file that is read in the command."""

    def settings() -> list[object]:
        return [
            torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.zeros(1).device,
        ]  # fmt: skip

    (tmp_path / "greedy.py").write_text(GREEDY)
    before = settings()
    for _ in range(2):  # read and made, then made alone
        make_network(f"{tmp_path}/greedy.py:Mine", (4, 4), 2)
        assert settings() == before


@pytest.mark.parametrize("value", ["/x.py:VGGish", "/x.py:", "/x.py:a-b", "Vggish"])
def test_network_names_that_cannot_be_registered_are_refused(value: str) -> None:
    """Catches a class whose models would mix with the package's, and a name that the registry does not take."""
    with pytest.raises(UserError, match="architecture"):
        Config.from_text({"architecture": value})
