"""Model cards and the descriptions of runs and experiment, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audio_mu.config.parsers import WAVEFORM
from audio_mu.errors import first_of
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.report.tables import listed

SHOWN_CLASSES = 40
TRAINED_HERE = "Trained on all recordings of the training set; nothing was removed from it."


@dataclass(frozen=True)
class ModelFacts:
    """The facts of every card; `sides` says by what training and test set are parted, `recipe` are the
    settings of base training, empty where they are not known."""

    name: str
    dataset: str
    pipeline: str
    architecture: str
    seed: int
    class_names: Sequence[str]
    samples: int
    sample_rate: int
    sides: str
    recipe: Mapping[str, str]


@dataclass(frozen=True)
class BaseFacts:
    """The facts that the card of a base model adds. Counts are clips, accuracies fractions.

    `origin`: where it was trained and read from, in a sentence, empty for one that was trained here.
    """

    n_train: int
    n_test: int
    train_accuracy: float
    test_accuracy: float
    origin: str = ""


@dataclass(frozen=True)
class UnlearnedFacts:
    """The facts that the card of an unlearned model adds. `accuracies`: set → (before, naive, after) of this seed."""

    method: str
    request: str
    request_hash: str
    n_forget: int
    base_version: str
    headline: str
    rule: str
    accuracies: Mapping[str, tuple[float | None, float | None, float]]


def base_card(facts: ModelFacts, base: BaseFacts) -> str:
    """The card of a base model."""
    figures = (
        f"Accuracy {base.test_accuracy:.3f} on {base.n_test:,} test recordings, {base.train_accuracy:.3f} on the "
        f"{base.n_train:,} it was trained on ({facts.sides})."
    )
    return "\n\n".join(
        [
            f"# Base model, seed {facts.seed}",
            f"{_kind(facts)} {base.origin or TRAINED_HERE}",
            "## Figures\n\n" + figures,
            _use(facts),
            _training(facts),
            "## Limits\n\n" + _limits(facts) + " It still holds whatever it was trained on: after a deletion request "
            "use the version that was unlearned instead, and delete this one.",
        ]
    )  # fmt: skip


def _made(unlearned: UnlearnedFacts) -> str:
    if unlearned.method == NAIVE:
        return f"Trained from scratch without the recordings, in place of base version {unlearned.base_version}"
    return f"Made from base version {unlearned.base_version} by the method {unlearned.method}"


def unlearned_card(facts: ModelFacts, unlearned: UnlearnedFacts) -> str:
    """The card of an unlearned model."""
    rows = [
        f"| {name} | {_share(before)} | {_share(naive)} | {_share(after)} |"
        for name, (before, naive, after) in unlearned.accuracies.items()
    ]
    table = "\n".join(["| accuracy on | before | naive (target) | after |", "|---|---|---|---|", *rows])
    return "\n\n".join(
        [
            f"# Unlearned model, seed {facts.seed}: {unlearned.method} on {unlearned.request}",
            f"{_kind(facts)} {_made(unlearned)}, to forget {unlearned.n_forget:,} recordings (request hash "
            f"`{unlearned.request_hash}`).",
            f"## Evidence\n\n{unlearned.headline} The rule: {unlearned.rule}. The record lies with the run that made "
            "this version, as evidence.html and evidence.md.",
            f"## Figures of this seed\n\n{table}",
            _use(facts),
            _training(facts),
            "## Limits\n\n" + _limits(facts) + " The evidence compares behaviour with retrained models; it is no "
            "proof of deletion, and the base version still holds the recordings until it is deleted.",
        ]
    )  # fmt: skip


def family_note(facts: ModelFacts) -> str:
    """The description of a registered model, which all its versions share."""
    return (
        f"{_kind(facts)} Versions behind `seed-NN` are base models, those behind `unlearned-seed-NN` had recordings "
        "removed, `unlearned` is the one for service. Each version's description is its model card."
    )


def method_note(method: str, request: str, seed: int, metrics: Mapping[str, float]) -> str:
    """The description of a method's run."""
    shown = {"forget/accuracy": "forget accuracy", "remain/accuracy": "remain", "test/accuracy": "test",
             "mia/score": "MIA score", "gap/tow": "ToW"}  # fmt: skip
    figures = ", ".join(f"{words} {metrics[name]:.3f}" for name, words in shown.items() if name in metrics)
    known = {ORIGINAL: "The base model before unlearning", NAIVE: "Retrained without the recordings, the target"}
    return (
        f"{known.get(method, f'Unlearned by {method}')}; request {request}, seed {seed}. {figures}. "
        "Losses per recording: `losses/`, logits: `logits/`."
    )


def experiment_note(title: str, lines: Sequence[str]) -> str:
    """The description of the experiment: the newest comparison in words, and the places of everything."""
    return (
        "# audio-mu: machine unlearning for audio classifiers\n\n"
        f"## Newest comparison: {title}\n\n{listed(lines)}\n"
        "## Where to look\n\n"
        "- The report: the newest run with `stage = compare`, artifact `report/…html`; tables and figures beside it.\n"
        "- Charts: runs with `role = method`, grouped by the tag `method`: mean and band over the seeds.\n"
        "- Models: the registry; `seed-NN` are the base models, `unlearned` is for service."
    )


def _kind(facts: ModelFacts) -> str:
    seen = "waveforms" if facts.pipeline == WAVEFORM else f"{facts.pipeline} features"
    return (
        f"A {facts.architecture} on {seen} that tells {len(facts.class_names)} classes of short "
        f"recordings apart ({facts.dataset})."
    )


def _use(facts: ModelFacts) -> str:
    classes = first_of(facts.class_names, SHOWN_CLASSES)
    return (
        f"## Use\n\nIn: waveforms float32 [n, {facts.samples}] at {facts.sample_rate} Hz, mono, shorter ones padded "
        f"with zeros on the right. Out: logits [n, {len(facts.class_names)}] in the order of the classes: {classes}. "
        f"Serve it with `mlflow models serve -m models:/{facts.name}@ALIAS --env-manager local`."
    )


def _training(facts: ModelFacts) -> str:
    if not facts.recipe:
        return "## Training\n\nIt was trained elsewhere, with settings that are not known here."
    settings = ", ".join(f"{name} {value}" for name, value in facts.recipe.items())
    return f"## Training\n\n{settings}."


def _limits(facts: ModelFacts) -> str:
    return (
        "It knows these classes alone and answers one of them to anything, silence and noise included. Its accuracy "
        "holds for recordings like those it was tested on; other microphones, rooms and accents were not tested."
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
