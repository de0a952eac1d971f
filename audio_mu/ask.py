"""Ask a served model what it hears: `python -m audio_mu.ask http://127.0.0.1:5001 recording.wav …`.

Prepares recordings as the model was trained on them, sends them to `mlflow models serve`, and prints the likeliest
classes. The server tells neither classes nor length of clip: the registry does, which is that of MLFLOW_TRACKING_URI,
or `mlflow.db` in the current folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import requests

from audio_mu.data.audio import BadRecording, read_clip
from audio_mu.errors import UserError, first_of, one_line
from audio_mu.names import UNLEARNED
from audio_mu.progress import complain, say
from audio_mu.store import registry
from audio_mu.store.connect import open_store

SHOWN = 3
SECONDS = 120


def served(model: str | None) -> registry.Served:
    """What the registry knows of `models:/name@alias`, or of the one model that has the alias `unlearned`.

    Raises `UserError` where there is none, or several and none is named.
    """
    store = open_store()
    if model is None:
        there = registry.in_service(store, UNLEARNED)
        if len(there) != 1:
            found = f"there are {len(there)}, {first_of(there)}" if there else f"there is none @{UNLEARNED}"
            raise UserError(f"--model is not given, and {found}: name the model that is served")
        model = there[0]
    return registry.served(model)


def probabilities(url: str, clips: np.ndarray) -> np.ndarray:
    """float64 [n, classes] of clips float32 [n, samples]. Raises `UserError` with what the server has said."""
    from scipy.special import softmax

    try:
        with requests.Session() as session:
            session.trust_env = "127.0.0.1" not in url and "localhost" not in url  # no proxy between here and there
            answer = session.post(f"{url.rstrip('/')}/invocations", json={"inputs": clips.tolist()}, timeout=SECONDS)
        if not answer.ok:
            raise UserError(f"{url} refuses the recordings ({answer.status_code}): {one_line(answer.text)[:300]}")
        return softmax(np.asarray(answer.json()["predictions"], dtype=np.float64), axis=1)
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{url} does not answer as a served model does: {one_line(error)[:300]}") from None


def ask(url: str, recordings: Sequence[Path], model: str | None = None) -> list[str]:
    """A line for each recording: its likeliest classes with their probabilities."""
    known = served(model)
    clips = []
    for path in recordings:
        try:
            clips.append(read_clip(path, known.clip_samples).waveform)
        except (BadRecording, OSError) as error:
            raise UserError(f"recording {str(path)!r} {one_line(error)}") from None
    lines = []
    for path, row in zip(recordings, probabilities(url, np.stack(clips))):
        if len(row) != len(known.classes):
            raise UserError(f"{url} gives {len(row)} classes, the model in the registry has {len(known.classes)}: name "
                            "the model that is served with --model")  # fmt: skip
        best = np.argsort(-row)[:SHOWN]
        lines.append(f"{path}: " + ", ".join(f"{known.classes[i]} {row[i]:.3f}" for i in best))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each recording; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m audio_mu.ask", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of the served model, as http://127.0.0.1:5001")
    parser.add_argument("recordings", nargs="+", type=Path, help="sound files of any rate and length")
    parser.add_argument("--model", help=f"models:/name@alias (default: the registry's only one @{UNLEARNED})")
    given = parser.parse_args(arguments)
    try:
        for line in ask(given.url, given.recordings, given.model):
            say(line)
    except UserError as error:
        complain(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
