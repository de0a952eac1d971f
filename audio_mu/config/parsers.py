"""Parsers of parameters: a text from a command line or from MLflow becomes a value, or is refused."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from audio_mu.errors import UserError
from audio_mu.own_code import is_reference, name_of
from audio_mu.system.reading import has_column

AUTO = "auto"
NO_WINDOW = "none"
LARGEST = 1_000_000_000
ARCHITECTURES = ("VGGish", "CCT", "ViT")
WAVEFORM = "waveform"
"""The pipeline that leaves the front end to the network."""
PRECISIONS = FLOAT32, BF16 = "float32", "bf16"
SCHEDULES = CONSTANT, LINEAR, COSINE = "constant", "linear", "cosine"
CLASS_WEIGHTS = UNWEIGHTED, BALANCED = "none", "balanced"
REFERENCES_BY = BY_CLIP, BY_SPEAKER = "clip", "speaker"
FEWEST_REFERENCES, MOST_REFERENCES = 4, 4096
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

ENCODERS = {name.lower(): f"audio_mu.models.pretrained:{name}" for name in ("Wav2Vec2", "HuBERT", "WavLM")}
ENCODERS["ast"] = "audio_mu.models.spectrogram_encoder:AST"
"""Pretrained encoders of waveforms: their names, and the classes that they stand for."""

Parser = Callable[[str], Any]


class Refused(ValueError):
    """The values that are allowed, raised by a parser; the user reads them in one line."""


def parameter(default: str, parse: Parser, meaning: str, *, of_base: bool = False) -> Any:
    """A field that is a parameter. `of_base`: every later step takes it from the registered base models."""
    about = {"default": default, "parse": parse, "meaning": meaning, "of_base": of_base}
    return field(default=parse(default), metadata=about)


def integer(low: int, high: int = LARGEST) -> Parser:
    """A whole number from `low` to `high`."""
    allowed = f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise Refused(allowed) from None
        if not low <= value <= high:
            raise Refused(allowed)
        return value

    return parse


def references(text: str) -> int:
    """None, or as many as give each recording two models that have learnt it and two that have not."""
    try:
        value = integer(0, MOST_REFERENCES)(text)
    except Refused:
        value = 1
    if 0 < value < FEWEST_REFERENCES:
        raise Refused(f"0, or a whole number from {FEWEST_REFERENCES} to {MOST_REFERENCES}")
    return value


def number(low: float, high: float = math.inf, *, low_included: bool = False, high_included: bool = False) -> Parser:
    """A finite number above `low`, or from `low` on, and below `high`, or up to it."""
    bounds = f"{'at least' if low_included else 'above'} {low:g}" + (
        f" and {'at most' if high_included else 'below'} {high:g}" if math.isfinite(high) else ""
    )
    allowed = f"a finite number {bounds}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise Refused(allowed) from None
        beyond = value < low or value > high or (value == low and not low_included)
        if not math.isfinite(value) or beyond or (value == high and not high_included):
            raise Refused(allowed)
        return value + 0.0  # -0 is 0

    return parse


def choice(*allowed: str) -> Parser:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise Refused("one of " + ", ".join(allowed))
        return text

    return parse


def or_auto(parse: Parser) -> Parser:
    """The same, or `auto`, which becomes None."""
    return _or(AUTO, parse)


def or_none(parse: Parser) -> Parser:
    """The same, or `none`, which becomes None."""
    return _or(NO_WINDOW, parse)


def _or(word: str, parse: Parser) -> Parser:
    def parse_or_word(text: str) -> Any:
        if text == word:
            return None
        try:
            return parse(text)
        except Refused as refused:
            raise Refused(f"{refused}, or {word}") from None

    return parse_or_word


RANGE = re.compile(r"(\d{1,18})(?:\s*-\s*(\d{1,18}))?", re.ASCII)
MOST_SEEDS = 10_000
"""In one range: more than anybody trains, and few enough to be listed."""
SHORTEST_RANGE = 8


def seeds(text: str) -> tuple[int, ...]:
    """Different whole numbers, separated by commas; `40-71` stands for all from 40 to 71."""
    allowed = f"whole numbers from 0 to {LARGEST} separated by commas, each once, such as 40,41,42 or 40-71"
    found: list[int] = []
    for part in text.split(","):
        ends = RANGE.fullmatch(part.strip())
        if ends is None:
            raise Refused(allowed)
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last <= LARGEST or last - first >= MOST_SEEDS:
            raise Refused(allowed)
        found += range(first, last + 1)
    if len(set(found)) != len(found):
        raise Refused(allowed)
    return tuple(found)


def seeds_text(found: Sequence[int]) -> str:
    """The seeds as they are given: a long row of neighbours as a range."""
    row = list(range(min(found), max(found) + 1))
    return f"{row[0]}-{row[-1]}" if len(row) >= SHORTEST_RANGE and list(found) == row else ",".join(map(str, found))


NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*|([^,]*))(?:,|$)')
"""A name up to the next comma; in quotes one that has commas or blanks of its own, a quote in it doubled."""


def names(text: str) -> tuple[str, ...]:
    """Different names, separated by commas; `"Smith, John"` in double quotes is one."""
    found: list[str] = []
    place = 0
    while text.strip() and place <= len(text):
        part = NAME.match(text, place)
        assert part is not None  # the second way fits anything
        found.append(part[2].strip() if part[1] is None else part[1].replace('""', '"'))
        place = part.end() if part[0].endswith(",") else len(text) + 1
    if "" in found or len(set(found)) != len(found):
        raise Refused('names separated by commas, each once; in double quotes names with commas, as in "Smith, John"')
    return tuple(found)


def quoted_name(name: str) -> str:
    """A name as `names` reads it back."""
    plain = name == name.strip() and "," not in name and not name.startswith('"')
    return name if plain else '"' + name.replace('"', '""') + '"'


def architecture(text: str) -> str:
    """A network of the package, a key of the study, a pretrained encoder's class, or a class of the user's own."""
    text, known = ENCODERS.get(text, text), (*ARCHITECTURES, *STUDY_KEYS)
    if text not in known and not (is_reference(text) and name_of(text).isidentifier()):
        raise Refused(
            "one of " + ", ".join((*known, *ENCODERS)) + ", or your own as /path/to/file.py:Class or module.path:Class"
        )
    if is_reference(text) and name_of(text) in known:
        raise Refused(f"a class of another name, {name_of(text)} is taken")
    return text


def apply_study_key(parsed: dict[str, Any]) -> None:
    """Replace a key of the study by what it means; an encoder means waveforms.

    Raises `UserError` where another pipeline was given.
    """
    key = parsed.get("architecture", "")
    if key in ENCODERS.values():
        parsed["pipeline"] = parsed.get("pipeline") or WAVEFORM
    if key not in STUDY_KEYS:
        return
    architecture, pipeline = STUDY_KEYS[key]
    if parsed.get("pipeline") not in (None, pipeline):
        raise UserError(
            f"architecture={key!r} means pipeline={pipeline} but pipeline={parsed['pipeline']!r} was given: give "
            f"architecture={architecture} or leave pipeline out"
        )
    parsed |= {"architecture": architecture, "pipeline": pipeline}


def apply_labels(parsed: dict[str, Any]) -> None:
    """Where the table of labels has a column split, that is the data set's own. Raises `UserError` where nobody reads
    the table."""
    if (table := parsed.get("labels")) is None:
        return
    if (dataset := parsed.get("dataset")) != "folder":
        given = f"dataset={dataset!r} was given" if dataset else "no dataset was given"
        raise UserError(f"labels={str(table)!r} is read with dataset=folder alone but {given}: give -P dataset=folder")
    if parsed.get("split") is None and has_column(table, "split"):
        parsed["split"] = "official"


def apply_window(parsed: dict[str, Any]) -> None:
    """A window is a clip's length, and without a hop the next one begins where it ends.

    Raises `UserError` where another length was given, or nothing is cut into windows.
    """
    window, hop = parsed.get("window"), parsed.get("hop")
    if window is None and hop is not None:
        raise UserError(f"hop={as_text(hop)} was given without a window: give -P window=1, or leave hop out")
    if window is None:
        return
    shown = f"window={as_text(window)}"
    if (dataset := parsed.get("dataset")) != "folder":
        given = f"dataset={dataset!r} was given" if dataset else "no dataset was given"
        raise UserError(f"{shown} cuts recordings of dataset=folder alone but {given}: give -P dataset=folder")
    if (length := parsed.get("clip_seconds", window)) != window:
        raise UserError(f"{shown} makes clips of that length but clip_seconds={as_text(length)}: leave one of them out")
    parsed |= {"clip_seconds": window, "hop": window if hop is None else hop}


def flag(text: str) -> bool:
    """`true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise Refused("true or false")
    return text.lower() == "true"


def hash_prefix(text: str) -> str:
    """The first characters of a request's hash, or `all`."""
    if text != "all" and not set(text.lower()) <= set("0123456789abcdef"):
        raise Refused("a request's hash or its first characters, from the ledger or the tag request_hash, or all")
    return text.lower()


def path(text: str) -> Path | None:
    """An absolute path; None for an empty text."""
    try:
        text.encode()
        found = Path(text).expanduser().absolute() if text else None
        if found is not None:
            found.exists()  # raises where no file system could hold the name
    except (ValueError, RuntimeError, OSError):
        raise Refused("a path that exists") from None
    return found


OF_SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev")))
IN_MEMORY = Path("/dev/shm")


def is_of_system(folder: Path) -> bool:
    """Whether a folder holds what the system makes up as it is read, or is the root, which holds these."""
    place = folder.resolve()
    of_system = any(place.is_relative_to(own) for own in OF_SYSTEM) and not place.is_relative_to(IN_MEMORY)
    return of_system or place == Path(place.anchor)


def whole(path: Path) -> str:
    """For an error about a path that is not there: how to give it where `mlflow run` works in a copy of the project."""
    is_copy = "MLFLOW_RUN_ID" in os.environ and path.is_relative_to(Path.cwd())
    return f" by its whole path: a relative one starts in {str(Path.cwd())!r}" if is_copy else ""


def dataset_name(text: str) -> str:
    """A name that the model registry takes."""
    if len(text) > 100 or not all(character.isalnum() or character in "-_" for character in text):
        raise Refused("at most 100 letters, digits, - and _")
    return text


def as_text(value: Any) -> str:
    """A value as it would stand on a command line."""
    if isinstance(value, tuple):
        return ",".join(quoted_name(str(part)) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    # To the last digit: a share of one clip in thousands, rounded, would be a share of two.
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
