"""Every parameter: its name, default, type, range and meaning, in groups of frozen dataclasses.

Values arrive as text, from a command line or from MLflow. A wrong value is refused in one line before any work. The
data set's recipe is applied while parsing: a parsed configuration has a value for everything that a recipe decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_mu.config import parsers
from audio_mu.config.parsers import AUTO, Parser, Refused, as_text, choice, integer, number, or_auto
from audio_mu.config.parsers import parameter as _parameter
from audio_mu.config.recipe import DECIDES, OLDER, Recipe, load_recipe
from audio_mu.config.training import TrainingParameters
from audio_mu.errors import UserError, suggest
from audio_mu.own_code import is_reference

DEEP, ROBUST = "deep audits", "robust audits"
DATASETS = ("SyntheticDigits", "audioMNIST", "SpeechCommands", "folder")
PIPELINES = ("mel", "spec", "logmel", parsers.WAVEFORM)
NAMES_OF_REQUESTS = {"speaker": "forget_speakers", "class": "forget_class_names", "list": "forget_list"}
MOST_THREADS = 1_024  # more make a machine stand still before anything is computed
LONGEST_SHOWN = 200  # characters of a value that an error repeats


@dataclass(frozen=True)
class DataParameters:
    """Which recordings there are, how they are split, and what a network sees of them."""

    dataset: str = _parameter("SyntheticDigits", choice(*DATASETS), "|".join(DATASETS))
    dataset_name: str = _parameter("", parsers.dataset_name, "name in the model registry (needed for folder)")
    data_dir: Path | None = _parameter("", parsers.path, "folder with the recordings; empty: the cache")
    pipeline: str = _parameter(AUTO, or_auto(choice(*PIPELINES)), "mel|spec|logmel, or waveform (own networks)")
    clip_seconds: float = _parameter(
        "1", number(0.1, 60.001, low_included=True), "clip length in seconds", of_base=True
    )
    split: str = _parameter(
        AUTO, or_auto(choice("official", "random", "speaker", "study")), "official|random|speaker|study", of_base=True
    )
    split_seed: int = _parameter("42", integer(0, 2**32 - 1), "seed of the split", of_base=True)
    bad_files: str = _parameter("fail", choice("fail", "skip"), "unreadable recordings: fail, or skip them")
    speaker_pattern: str = _parameter("", str, "folder: regular expression on the id; group 1 is the speaker")

    labels: Path | None = _parameter(
        "", parsers.path, "folder: CSV of path, label; start, end, speaker, split if known"
    )
    window: float | None = _parameter(
        parsers.NO_WINDOW, parsers.or_none(number(0.1, 60.001, low_included=True)),
        "folder: seconds of the clips that whole recordings are cut into; sets clip_seconds", of_base=True,
    )  # fmt: skip
    hop: float | None = _parameter(
        parsers.NO_WINDOW, parsers.or_none(number(0.01, 60.001, low_included=True)),
        "folder: seconds from one window to the next (none: a window)", of_base=True,
    )  # fmt: skip

    @property
    def label(self) -> str:
        """The data set's name in tags and in the registry."""
        return self.dataset_name or self.dataset

    @property
    def clip_samples(self) -> int:
        """Samples of a clip at 16 kHz."""
        return round(self.clip_seconds * 16_000)

    @property
    def recipe(self) -> Recipe:
        """The data set's recipe, as its file has it."""
        return load_recipe(self.dataset)


@dataclass(frozen=True)
class AdoptParameters:
    """A model that somebody else has trained."""

    weights: tuple[str, ...] = _parameter("", parsers.names, "adopt: .safetensors, .pt or MLflow URI; 40=FILE,41=FILE")
    trained_on: Path | None = _parameter("", parsers.path, "adopt: CSV of what it was trained on (column id or path)")


@dataclass(frozen=True)
class AttackParameters:
    """The membership attack models, and the reference models of stronger attacks."""

    n_attack_models: int = _parameter("3", integer(1), "membership attack models")
    attack_feature: str = _parameter("log_loss", choice("log_loss", "loss"), "what attack models see")
    references: int = _parameter(
        "0", parsers.references, "models trained on random halves, for LiRA and online RMIA (64; 0: none)"
    )
    references_by: str = _parameter(
        "clip", choice(*parsers.REFERENCES_BY), "halves of the recordings, or of the people (a person's attack)"
    )


@dataclass(frozen=True)
class RequestParameters:
    """Which recordings are to be forgotten."""

    forget: str = _parameter("item", choice("item", "class", "speaker", "list"), "item|class|speaker|list")
    forget_percentage: float = _parameter("10", number(0, 100), "item: share of the training set, percent")
    forget_classes_num: int = _parameter("1", integer(1), "class: how many classes to draw")
    forget_class_names: tuple[str, ...] = _parameter("", parsers.names, 'class: these classes, "a, b" in quotes')
    forget_speakers_num: int = _parameter("1", integer(1), "speaker: how many speakers to draw")
    forget_speakers: tuple[str, ...] = _parameter("", parsers.names, 'speaker: these speakers, "a, b" in quotes')
    forget_list: Path | None = _parameter("", parsers.path, "list: CSV or text file with clip ids or paths")
    forget_seed: int = _parameter("42", integer(0), "seed of the draws of the request")
    duplicates: str = _parameter("together", choice("together", "ignore"), "copies of forgotten recordings")
    copies: str = _parameter(
        AUTO,
        or_auto(choice("exact", "probable", "ask")),
        "altered copies (MP3, louder, trimmed): exact: not looked for; probable: forgotten too; ask: refuse and list "
        "them; auto: ask for lists and named speakers, else exact",
    )

    @property
    def names_recordings(self) -> bool:
        """Whether somebody asked for these recordings or people; what is drawn, and whole classes, are experiments."""
        return self.forget == "list" or (self.forget == "speaker" and bool(self.forget_speakers))

    @property
    def in_force(self) -> tuple[str, ...]:
        """Names of the parameters that this kind of request reads; drawn ones only where none are named."""
        named = {
            "item": ("forget_percentage", "forget_seed"),
            "class": ("forget_class_names",) if self.forget_class_names else ("forget_classes_num", "forget_seed"),
            "speaker": ("forget_speakers",) if self.forget_speakers else ("forget_speakers_num", "forget_seed"),
            "list": ("forget_list",),
        }
        return ("forget", *named[self.forget], "duplicates", "copies")


@dataclass(frozen=True)
class RepairParameters:
    """Settings that all methods share. A rate that is None is the method's published one."""

    n_epoch_impair: int = _parameter("1", integer(0), "epochs of the impair step")
    n_epoch_repair: int = _parameter(AUTO, or_auto(integer(0)), "epochs of the repair step")
    impair_learning_rate: float | None = _parameter(
        AUTO, or_auto(number(0, low_included=True)), "rate of the impair step, exactly"
    )
    repair_learning_rate: float | None = _parameter(
        AUTO, or_auto(number(0, low_included=True)), "rate of the repair step, exactly"
    )


@dataclass(frozen=True)
class MethodParameters:
    """Which methods run, and what becomes of their models."""

    methods: tuple[str, ...] = _parameter(
        "study", parsers.names, "study, all, method names, or file.py:name, with commas"
    )
    method_config: Path | None = _parameter("", parsers.path, "YAML file with the methods' hyper-parameters")
    n_trials: int = _parameter("8", integer(1), "tune: hyper-parameters to try for each method")
    deep_audits: bool = _parameter("false", parsers.flag, "true: relearn time and linear probe of every method too")
    robust_audits: bool = _parameter(
        "false", parsers.flag, "true: the membership attack on MP3, noisy and trimmed copies too"
    )
    save_models: str = _parameter("all", choice("all", "naive", "none"), "which methods' models to keep")
    register: str = _parameter("none", str, "none|best|method whose models are registered as unlearned")

    @property
    def audits(self) -> tuple[str, ...]:
        """The audits that are made on request, which a result with them is known by."""
        asked = {DEEP: self.deep_audits, ROBUST: self.robust_audits}
        return tuple(name for name, is_asked in asked.items() if is_asked)


@dataclass(frozen=True)
class MachineParameters:
    """Where the work runs. `threads` and `workers` that are None follow the machine."""

    device: str = _parameter("auto", choice("auto", "cpu", "cuda"), "auto|cpu|cuda")
    threads: int | None = _parameter(
        AUTO, or_auto(integer(1, MOST_THREADS)), "threads of one task (auto: 1); figures differ by rounding"
    )
    workers: int | None = _parameter(AUTO, or_auto(integer(1, MOST_THREADS)), "tasks at once (auto: cores / threads)")
    engine: str = _parameter("local", choice("local", "ray"), "local|ray")
    task_minutes: float = _parameter("0", number(0, low_included=True), "minutes after which a task fails (0: none)")


@dataclass(frozen=True)
class StoreParameters:
    """What of the store is taken, made anew or removed."""

    ledger: str = _parameter("respect", choice("respect", "ignore"), "ignore: train on answered requests' clips too")
    request: str = _parameter("", parsers.hash_prefix, "erase: hash of an answered request or its start; all: repeat")
    confirm: bool = _parameter("false", parsers.flag, "erase: true: remove what is otherwise only listed")
    force: bool = _parameter("false", parsers.flag, "true: redo steps that the store has finished")


Group = (
    DataParameters | TrainingParameters | AdoptParameters | AttackParameters | RequestParameters | RepairParameters
    | MethodParameters | MachineParameters | StoreParameters
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """All parameters of a command, in groups. `given`: names of the parameters that have a value of the user's."""

    data: DataParameters
    training: TrainingParameters
    adopt: AdoptParameters
    attack: AttackParameters
    request: RequestParameters
    repair: RepairParameters
    methods: MethodParameters
    machine: MachineParameters
    store: StoreParameters
    given: frozenset[str] = frozenset()

    @classmethod
    def from_text(cls, values: Mapping[str, str]) -> Config:
        """Parse and check values given as text, and apply the data set's recipe.

        Raises `UserError` naming the parameter, the value and what is allowed.
        """
        parsed = {name: parse(name, text) for name, text in values.items()}
        parsers.apply_study_key(parsed)
        parsers.apply_labels(parsed)
        parsers.apply_window(parsed)
        everything = {name: about.default for name, about in PARAMETERS.items()} | parsed
        recipe = load_recipe(everything["dataset"])
        everything |= {name: getattr(recipe, name) for name in DECIDES if everything[name] is None}
        everything["precision"] = everything["precision"] or parsers.FLOAT32
        groups: dict[str, Any] = {
            name: group(**{f.name: everything[f.name] for f in dataclasses.fields(group)})
            for name, group in GROUPS.items()
        }
        if groups["request"].copies is None:
            copies = "ask" if groups["request"].names_recordings else "exact"
            groups["request"] = dataclasses.replace(groups["request"], copies=copies)
        config = cls(**groups, given=frozenset(name for name, text in values.items() if text not in ("", AUTO)))
        _check(config)
        return config

    def with_values(self, values: Mapping[str, str]) -> Config:
        """The same with other values, given as text, for some parameters; `given` stays. Raises `UserError`."""
        other = Config.from_text({**self.as_text(), **values})
        return dataclasses.replace(other, given=self.given)

    @property
    def registered_model(self) -> str:
        """Name of the registered base models."""
        return f"audio-mu.{self.data.label}.{self.data.pipeline}.{self.training.network}"

    @property
    def base_recipe(self) -> dict[str, str]:
        """The parameters that make a base model, as text: later steps take these from its version."""
        return self.as_text(BASE_FIELDS)

    @property
    def hashed_recipe(self) -> dict[str, str]:
        """The same for fingerprints and cells, without what older ones do not hash, where it is as it was then."""
        return {name: text for name, text in self.base_recipe.items() if OLDER.get(name) != text}

    def as_text(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Every parameter, or the named ones, as text, as it would be given on a command line."""
        wanted = PARAMETERS if names is None else names
        values = {name: getattr(getattr(self, PARAMETERS[name].group), name) for name in wanted}
        return {name: PARAMETERS[name].text if value is None else as_text(value) for name, value in values.items()}


GROUPS: dict[str, type[Group]] = {
    "data": DataParameters, "training": TrainingParameters, "adopt": AdoptParameters, "attack": AttackParameters,
    "request": RequestParameters, "repair": RepairParameters, "methods": MethodParameters,
    "machine": MachineParameters, "store": StoreParameters,
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter by its group's name, default (as text and as value) and meaning."""

    group: str
    text: str
    default: Any
    parse: Parser
    meaning: str
    of_base: bool


PARAMETERS: dict[str, Parameter] = {
    f.name: Parameter(
        name, f.metadata["default"], f.default, f.metadata["parse"], f.metadata["meaning"], f.metadata["of_base"]
    )
    for name, group in GROUPS.items()
    for f in dataclasses.fields(group)
}
BASE_FIELDS = tuple(name for name, about in PARAMETERS.items() if about.of_base)
GROUP_FIELDS = {name: tuple(f.name for f in dataclasses.fields(group)) for name, group in GROUPS.items()}
REPAIR_FIELDS = GROUP_FIELDS["repair"]


def defaults() -> dict[str, str]:
    """Name → default as text of every parameter, in their order."""
    return {name: about.text for name, about in PARAMETERS.items()}


def parse(name: str, text: str) -> Any:
    """The value of one parameter; None for `auto`. Raises `UserError` where name or text are not allowed."""
    shown = repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}…"
    if name not in PARAMETERS:
        named = name if name.isidentifier() else repr(name)
        raise UserError(f"unknown parameter {named[:LONGEST_SHOWN]}={shown}: {suggest(name, list(PARAMETERS))}")
    try:
        return PARAMETERS[name].parse(text)
    except Refused as refused:
        raise UserError(f"{name}={shown} is not allowed: give {refused}") from None


def _check(config: Config) -> None:
    """Raise `UserError` where parameters contradict each other or name what is not there."""
    data, request = config.data, config.request
    if data.dataset == "folder" and not (data.dataset_name and data.data_dir):
        missing = "dataset_name" if data.data_dir else "data_dir"
        raise UserError(f"dataset='folder' needs {missing}: give -P {missing}=…")
    if data.data_dir is not None and not data.data_dir.is_dir():
        raise UserError(
            f"data_dir={str(data.data_dir)!r} is not a folder: give the folder of the recordings"
            f"{parsers.whole(data.data_dir)}"
        )
    if data.data_dir is not None and parsers.is_of_system(data.data_dir):
        raise UserError(f"data_dir={str(data.data_dir)!r} is a folder of the system: give the folder of the recordings")
    if data.pipeline == parsers.WAVEFORM and not is_reference(config.training.architecture):
        raise UserError(
            f"pipeline='waveform' needs a network that brings its own front end, which {config.training.architecture} "
            "lacks: give architecture=/path/to/file.py:Class, or another pipeline"
        )
    files = {"method_config": config.methods.method_config, "forget_list": request.forget_list}
    for name, path in (files | {"trained_on": config.adopt.trained_on, "labels": data.labels}).items():
        if path is not None and not path.is_file():
            raise UserError(f"{name}={str(path)!r} is not a file: give an existing file{parsers.whole(path)}")
    for kind, name in NAMES_OF_REQUESTS.items():
        if getattr(request, name) and request.forget != kind:
            raise UserError(
                f"{name} was given but forget={request.forget!r} would not read it: give -P forget={kind}, or leave "
                f"{name} out"
            )
    if request.forget == "list" and request.forget_list is None:
        raise UserError("forget='list' needs forget_list: give -P forget_list=requests.csv")
