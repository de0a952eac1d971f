"""Every parameter: its name, default, type, range and meaning, in one frozen dataclass.

The entry points, MLproject and the README offer exactly these names and defaults (a test holds them
together). Values arrive as text, from a command line or from MLflow; what is wrong with them is said in one
line before any work.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from audio_mu.errors import UserError
from audio_mu.own_code import is_reference, name_of

AUTO = "auto"
LARGEST = 1_000_000_000
NAMES_OF_REQUESTS = {"speaker": "forget_speakers", "class": "forget_class_names", "list": "forget_list"}
LONGEST_SHOWN = 200  # characters of a value that an error repeats
DATASETS = ("SyntheticDigits", "audioMNIST", "SpeechCommands", "folder")
PIPELINES = ("mel", "spec", "logmel")
ARCHITECTURES = ("VGGish", "CCT", "ViT")
STUDY_KEYS = {
    "VGGishMel": ("VGGish", "mel"),
    "VGGishSpec": ("VGGish", "spec"),
    "CTCmel": ("CCT", "mel"),
    "CTCspec": ("CCT", "spec"),
    "CCTmel": ("CCT", "mel"),
    "CCTspec": ("CCT", "spec"),
    "ViTmel": ("ViT", "mel"),
    "ViTspec": ("ViT", "spec"),
}
"""The study's own names of network and features, with the aliases of its misspelt CCT."""


class _Refused(ValueError):
    """What is allowed, raised by a parser; becomes the one line that the user reads."""


def _integer(low: int, high: int = LARGEST) -> Callable[[str], int]:
    allowed = f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _Refused(allowed) from None
        if not low <= value <= high:
            raise _Refused(allowed)
        return value

    return parse


def _number(
    low: float, high: float = math.inf, *, low_included: bool = False, unit: str = ""
) -> Callable[[str], float]:
    bounds = f"{'at least' if low_included else 'above'} {low:g}" + (
        f" and below {high:g}" if math.isfinite(high) else ""
    )
    allowed = f"a finite number {bounds}{unit}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _Refused(allowed) from None
        if not math.isfinite(value) or value < low or value >= high or (value == low and not low_included):
            raise _Refused(allowed)
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise _Refused("one of " + ", ".join(allowed))
        return text

    return parse


def _seeds(text: str) -> tuple[int, ...]:
    allowed = f"whole numbers from 0 to {LARGEST} separated by commas, each once, such as 40,41,42,43,44"
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise _Refused(allowed) from None
    if min(seeds) < 0 or max(seeds) > LARGEST or len(set(seeds)) != len(seeds):
        raise _Refused(allowed)
    return seeds


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if "" in names or len(set(names)) != len(names):
        raise _Refused("names separated by commas, each once")
    return names


def _architecture(text: str) -> str:
    known = (*ARCHITECTURES, *STUDY_KEYS)
    if text not in known and not (is_reference(text) and name_of(text).isidentifier()):
        raise _Refused("one of " + ", ".join(known) + ", or your own as /path/to/file.py:Class or module.path:Class")
    if is_reference(text) and name_of(text) in known:
        raise _Refused(f"a class of another name, {name_of(text)} is taken")
    return text


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise _Refused("true or false")
    return text.lower() == "true"


def _hash_prefix(text: str) -> str:
    if not set(text.lower()) <= set("0123456789abcdef"):
        raise _Refused("a request's hash or its first characters, from the ledger or the tag request_hash")
    return text.lower()


def _text(text: str) -> str:
    return text


def _path(text: str) -> Path | None:
    try:
        text.encode()
        path = Path(text).expanduser().absolute() if text else None
        if path is not None:
            path.exists()  # raises where no file system could hold such a name
    except (ValueError, RuntimeError, OSError):
        raise _Refused("a path that exists") from None
    return path


def _or_auto(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse_or_auto(text: str) -> Any:
        if text == AUTO:
            return None
        try:
            return parse(text)
        except _Refused as refused:
            raise _Refused(f"{refused}, or auto") from None

    return parse_or_auto


def _dataset_name(text: str) -> str:
    if len(text) > 100 or not all(character.isalnum() or character in "-_" for character in text):
        raise _Refused("at most 100 letters, digits, - and _")
    return text


def _parameter(default: str, parse: Callable[[str], Any], help_text: str) -> Any:
    return field(default=parse(default), metadata={"text": default, "parse": parse, "help": help_text})


@dataclass(frozen=True)
class Config:
    """All parameters of a run. `None` in a field whose default is `auto` means that the recipe decides."""

    dataset: str = _parameter("SyntheticDigits", _choice(*DATASETS), "|".join(DATASETS))
    dataset_name: str = _parameter("", _dataset_name, "name in the model registry (needed for folder)")
    data_dir: Path | None = _parameter("", _path, "folder with the recordings; empty: the cache")
    pipeline: str | None = _parameter("auto", _or_auto(_choice(*PIPELINES)), "features: mel|spec|logmel")
    architecture: str = _parameter(
        "VGGish", _architecture, "VGGish|CCT|ViT, a key of the study (VGGishMel, …), or file.py:Class"
    )
    seeds: tuple[int, ...] = _parameter("40,41,42,43,44", _seeds, "seeds of the base models")
    n_epochs: int | None = _parameter("auto", _or_auto(_integer(1)), "epochs of base training and naive")
    batch_size: int | None = _parameter("auto", _or_auto(_integer(1)), "clips per training step")
    optimizer: str | None = _parameter("auto", _or_auto(_choice("sgd", "adam")), "sgd|adam")
    learning_rate: float | None = _parameter("auto", _or_auto(_number(0)), "rate of base training and naive")
    n_attack_models: int = _parameter("3", _integer(1), "membership attack models")
    attack_feature: str = _parameter("log_loss", _choice("log_loss", "loss"), "what attack models see")
    methods: tuple[str, ...] = _parameter("study", _names, "study, all, method names, or file.py:name, with commas")
    method_config: Path | None = _parameter("", _path, "YAML file with the methods' hyper-parameters")
    n_trials: int = _parameter("8", _integer(1), "tune: hyper-parameters to try for each method")
    n_epoch_impair: int = _parameter("1", _integer(0), "epochs of the impair step")
    n_epoch_repair: int | None = _parameter("auto", _or_auto(_integer(0)), "epochs of the repair step")
    impair_learning_rate: float | None = _parameter(
        "auto", _or_auto(_number(0, low_included=True)), "rate of the impair step, exactly"
    )
    repair_learning_rate: float | None = _parameter(
        "auto", _or_auto(_number(0, low_included=True)), "rate of the repair step, exactly"
    )
    forget: str = _parameter("item", _choice("item", "class", "speaker", "list"), "item|class|speaker|list")
    forget_percentage: float = _parameter("10", _number(0, 100), "item: share of the training set, percent")
    forget_classes_num: int = _parameter("1", _integer(1), "class: how many classes to draw")
    forget_class_names: tuple[str, ...] = _parameter("", _names, "class: these classes instead of drawn ones")
    forget_speakers_num: int = _parameter("1", _integer(1), "speaker: how many speakers to draw")
    forget_speakers: tuple[str, ...] = _parameter("", _names, "speaker: these speakers instead of drawn ones")
    forget_list: Path | None = _parameter("", _path, "list: CSV or text file with clip ids or paths")
    forget_seed: int = _parameter("42", _integer(0), "seed of the draws of the request")
    split: str | None = _parameter(
        "auto", _or_auto(_choice("official", "random", "speaker")), "official|random|speaker"
    )
    split_seed: int = _parameter("42", _integer(0, 2**32 - 1), "seed of the split")
    duplicates: str = _parameter("together", _choice("together", "ignore"), "copies of forgotten recordings")
    checkpoint: str = _parameter("last", _choice("last", "best_test"), "last|best_test (the study's)")
    bad_files: str = _parameter("fail", _choice("fail", "skip"), "unreadable recordings: fail, or skip them")
    clip_seconds: float = _parameter("1", _number(0.1, 60.001, low_included=True), "clip length in seconds")
    speaker_pattern: str = _parameter("", _text, "folder: regular expression on the id; group 1 is the speaker")
    device: str = _parameter("auto", _choice("auto", "cpu", "cuda"), "auto|cpu|cuda")
    threads: int | None = _parameter("auto", _or_auto(_integer(1)), "threads of one task (auto: 1 on a CPU)")
    workers: int | None = _parameter("auto", _or_auto(_integer(1)), "tasks at once (auto: cores / threads)")
    engine: str = _parameter("local", _choice("local", "ray"), "local|ray")
    register: str = _parameter("none", _text, "none|best|method whose models are registered as unlearned")
    save_models: str = _parameter("all", _choice("all", "naive", "none"), "which methods' models to keep")
    deep_audits: bool = _parameter("false", _flag, "true: relearn time and linear probe of every method too")
    ledger: str = _parameter("respect", _choice("respect", "ignore"), "ignore: train on answered requests' clips too")
    request: str = _parameter("", _hash_prefix, "erase: hash of an answered request, or the start of it")
    confirm: bool = _parameter("false", _flag, "erase: true: remove what is otherwise only listed")
    force: bool = _parameter("false", _flag, "true: redo steps that the store has finished")

    @classmethod
    def from_text(cls, values: Mapping[str, str]) -> Config:
        """Parse and check values given as text.

        Raises `UserError` naming the parameter, the value and what is allowed.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        parsed: dict[str, Any] = {}
        for name, text in values.items():
            shown = repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}…"
            if name not in fields:
                named = name if name.isidentifier() else repr(name)
                raise UserError(f"unknown parameter {named[:LONGEST_SHOWN]}={shown}: {suggest(name, list(fields))}")
            try:
                parsed[name] = fields[name].metadata["parse"](text)
            except _Refused as refused:
                raise UserError(f"{name}={shown} is not allowed: give {refused}") from None
        config = cls(**parsed)
        return config._with_study_key()._checked()

    def _with_study_key(self) -> Config:
        if self.architecture not in STUDY_KEYS:
            return self
        architecture, pipeline = STUDY_KEYS[self.architecture]
        if self.pipeline not in (None, pipeline):
            raise UserError(
                f"architecture={self.architecture!r} means pipeline={pipeline} but pipeline={self.pipeline!r} "
                f"was given: give architecture={architecture} or leave pipeline out"
            )
        return dataclasses.replace(self, architecture=architecture, pipeline=pipeline)

    def _checked(self) -> Config:
        if self.dataset == "folder" and not (self.dataset_name and self.data_dir):
            missing = "dataset_name" if self.data_dir else "data_dir"
            raise UserError(f"dataset='folder' needs {missing}: give -P {missing}=…")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise UserError(f"data_dir={str(self.data_dir)!r} is not a folder: give the folder of the recordings")
        for name in ("method_config", "forget_list"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise UserError(f"{name}={str(path)!r} is not a file: give an existing file")
        for kind, name in NAMES_OF_REQUESTS.items():
            if getattr(self, name) and self.forget != kind:
                raise UserError(
                    f"{name} was given but forget={self.forget!r} would not read it: give -P forget={kind}, or leave "
                    f"{name} out"
                )
        if self.forget == "list" and self.forget_list is None:
            raise UserError("forget='list' needs forget_list: give -P forget_list=requests.csv")
        return self

    @property
    def name(self) -> str:
        """The data set's name in tags and in the registry."""
        return self.dataset_name or self.dataset

    @property
    def clip_samples(self) -> int:
        """Samples of a clip at 16 kHz."""
        return round(self.clip_seconds * 16_000)

    @property
    def network(self) -> str:
        """The network's name in tags and in the registry: the architecture, or the class of the user's own."""
        return name_of(self.architecture)

    @property
    def registered_model(self) -> str:
        """Name of the registered base models (the pipeline must be resolved)."""
        return f"audio-mu.{self.name}.{self.pipeline}.{self.network}"

    def resolved(self) -> Config:
        """The same with every `auto` that the data set's recipe decides filled in."""
        recipe = load_recipe(self.dataset)
        names = ("pipeline", "split", "optimizer", "learning_rate", "batch_size", "n_epochs", "n_epoch_repair")
        return dataclasses.replace(
            self, **{name: getattr(recipe, name) for name in names if getattr(self, name) is None}
        )

    def as_text(self) -> dict[str, str]:
        """Every parameter as text, as it would be given on a command line."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: defaults()[name] if value is None else _as_text(value) for name, value in values.items()}


@dataclass(frozen=True)
class Recipe:
    """What a data set's recipe file holds: training settings and the fixed constants of logmel."""

    pipeline: str
    split: str
    optimizer: str
    learning_rate: float
    momentum: float
    batch_size: int
    n_epochs: int
    n_epoch_repair: int
    logmel_shift: float
    logmel_scale: float


def load_recipe(dataset: str) -> Recipe:
    """The recipe of a data set, from the package's YAML file of its name."""
    return Recipe(**yaml.safe_load((Path(__file__).parent / "recipes" / f"{dataset}.yaml").read_text()))


def defaults() -> dict[str, str]:
    """Name → default as text of every parameter, in their order."""
    return {f.name: f.metadata["text"] for f in dataclasses.fields(Config)}


def help_text() -> str:
    """One line for each parameter: name, default, meaning."""
    return "\n".join(
        f"  --{f.name:<22} {f.metadata['text'] or '(empty)':<16} {f.metadata['help']}"
        for f in dataclasses.fields(Config)
    )


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    # To the last digit: a share of one clip in thousands, rounded, would be a share of two.
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def suggest(name: str, known: Sequence[str], otherwise: str = "see --help for all parameters") -> str:
    """What somebody who wrote `name` may have meant of the known names, as half a sentence."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8) or difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
