"""Printed commands: they can be pasted as they stand, however the command that prints them was started."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audio_mu.config.commands import ENTRY, Call, again, command, erasing, remember
from tests.answered import FLAT, tones
from tests.commands import entry_point, mlflow_run, own_environment

PATTERN = r"(p\d+)_"
SCRIPT = (
    f"#!{sys.executable}\nimport sys\nfrom audio_mu.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
)


def printed(text: str, stage: str) -> str:
    """The one command of an entry point in a text."""
    commands = re.findall(r"`([^`]+)`", text) + re.findall(r"^  (.+)$", text, re.MULTILINE)
    found = {line for line in commands if f"-e {stage} " in line or f"{stage} --" in line}
    assert len(found) == 1, text
    return found.pop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["project", "module", "script"])
def test_every_printed_command_does_what_it_says_when_it_is_pasted(way: str, tmp_path: Path) -> None:
    """Catches advice that ends in "Could not find Conda", in another experiment or data set, or at a quote."""
    folder = tmp_path / "it's mine"
    data = tones(folder / "recordings", people=("p1", "p2", "p3"), takes=2)
    (folder / "own.py").write_text(FLAT)
    parameters = {
        "dataset": "folder", "dataset_name": "tones", "data_dir": str(data), "clip_seconds": "0.5",
        "speaker_pattern": PATTERN, "architecture": f"{folder}/own.py:Flat", "seeds": "40", "n_epochs": "2",
        "batch_size": "8", "n_epoch_repair": "1", "n_attack_models": "1", "workers": "1", "methods": "naive",
        "forget": "speaker", "forget_speakers": "p2",
    }  # fmt: skip
    script = folder / "bin" / "audio-mu"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    words = {"project": mlflow_run("unlearn", parameters), "module": entry_point("unlearn", parameters)}
    words["script"] = [str(script), *entry_point("unlearn", parameters)[2:]]
    words["script"][1] = "unlearn"
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"} if way == "project" else {}
    first = own_environment(folder / "cache", MLFLOW_EXPERIMENT_NAME="voices of ours", **store)
    pasted = own_environment(folder / "cache")  # a shell that knows none of the command's own settings

    def run(command: list[str] | str, environment: dict[str, str], code: int) -> str:
        words = command if isinstance(command, list) else ["bash", "-c", command]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode == 0) == (code == 0), done.stdout + done.stderr
        return done.stdout + done.stderr

    def paste(text: str, stage: str) -> str:
        return run(printed(text, stage), pasted, 0)

    paste(run(words[way], first, 2), "train")
    if way == "module":  # minutes for what the others would show again
        paste(run(words[way], first, 2), "attack")
        assert "request speaker-p2" in paste(run(words[way], first, 0), "compare")


def test_a_command_carries_what_was_given_of_what_it_reads() -> None:
    """Catches a path that a shell cuts, defaults that MLflow adds, and parameters of another entry point."""
    given = {"dataset": "folder", "data_dir": "/a b", "dataset_name": "mine", "seeds": "40,41,42,43,44",
             "forget_percentage": "10.0", "methods": "pop", "copies": "auto", "force": "true"}  # fmt: skip
    remember(Call(("mlflow", "run", ".", "-e", ENTRY, "--env-manager", "local"), True, given))
    start = "mlflow run . -e train --env-manager local"
    assert command("train") == f"{start} -P dataset=folder -P 'data_dir=/a b' -P dataset_name=mine".replace(
        "-P 'data_dir=/a b' -P dataset_name=mine", "-P dataset_name=mine -P 'data_dir=/a b'"
    )
    assert shlex.split(command("unlearn", register="naive"))[-4:] == ["-P", "methods=pop", "-P", "register=naive"]
    remember(Call(("audio-mu", ENTRY), False, given, {"MLFLOW_EXPERIMENT_NAME": "a b"}))
    assert command("erase", request="ab12").startswith("MLFLOW_EXPERIMENT_NAME='a b' audio-mu erase --dataset folder")


def test_an_erasure_of_another_data_set_is_not_asked_in_this_one() -> None:
    """Catches a printed `erase` that finds no such request because of this command's dataset_name."""
    remember(Call(given={"dataset": "folder", "data_dir": "/r", "dataset_name": "mine"}))
    assert "dataset_name=mine" in erasing("ab12", "mine", confirm=False)
    assert erasing("ab12", "other", confirm=True) == "mlflow run . -e erase -P request=ab12 -P confirm=true"


def test_a_run_is_made_again_by_its_own_settings() -> None:
    """Catches a repetition that asks for this command's request, or for the rates that a method had trained with."""
    remember(
        Call(given={"dataset": "folder", "data_dir": "/r", "dataset_name": "mine", "workers": "2", "forget": "class"})
    )
    params = {"dataset": "SyntheticDigits", "pipeline": "logmel", "n_epochs": "3", "forget": "speaker",
              "forget_speakers": "17", "seed": "41", "method": "pop", "impair_learning_rate": "0.2"}  # fmt: skip
    words = again("unlearn", params, {"impair_learning_rate": "auto"}, seeds="41", methods="pop", force="true")
    own = "-P n_epochs=3 -P forget=speaker -P forget_speakers=17 -P workers=2 -P seeds=41 -P methods=pop -P force=true"
    assert sorted(words.split(" -P ")[1:]) == sorted(own.removeprefix("-P ").split(" -P "))
