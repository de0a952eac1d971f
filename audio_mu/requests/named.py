"""What a request names: drawn items, classes or people, or the entries of a list."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio_mu.config import RequestParameters
from audio_mu.data.catalog import as_id, composed, looks, quoted
from audio_mu.data.clips import Clips
from audio_mu.data.splits import Split
from audio_mu.errors import UserError, first_of
from audio_mu.progress import say
from audio_mu.requests.request_file import Line, read_lines, shortened

SHOWN = 5  # how many wrong lines an error quotes


@dataclass(frozen=True)
class Drawn:
    """What a request names: training clips, bool [n] of all that it means, its name; see `Request` for the others."""

    forget: np.ndarray
    matches: np.ndarray
    name: str
    people: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    untrained: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kind: str = ""


def _items(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    # Exactly: 8.8 % of 375 is 33, which floating-point numbers make 33.000000000000004 and its ceiling 34.
    n = math.ceil(len(split.train) * Fraction(str(config.forget_percentage)) / 100)
    forget = np.random.default_rng(config.forget_seed).choice(split.train, size=n, replace=False)
    return Drawn(forget, np.zeros(len(clips), dtype=bool), f"item-{config.forget_percentage:g}")


def _classes(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    names = config.forget_class_names
    unknown = sorted(set(names) - set(clips.class_names))
    if unknown:
        raise UserError(f"forget_class_names has unknown classes {unknown}: choose from {list(clips.class_names)}")
    n_classes = len(clips.class_names)
    count = len(names) or config.forget_classes_num
    if count >= n_classes:
        raise UserError(f"forget_classes_num={count} but there are {n_classes} classes: at least one must remain")
    drawn = random.Random(config.forget_seed).sample(range(n_classes), count)
    chosen = [clips.class_names.index(name) for name in names] or drawn
    matches = np.isin(clips.labels.numpy(), chosen)
    chosen_names = tuple(clips.class_names[label] for label in chosen)
    return Drawn(
        _train_matches(split, matches, "forget=class"), matches, _name("class", names, count), classes=chosen_names
    )


def _speakers(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    trained = sorted({clips.speakers[i] for i in split.train} - {""})
    names = _known_people("forget_speakers", config.forget_speakers, trained, "of the training set")
    count = len(names) or config.forget_speakers_num
    if count >= len(trained):
        raise UserError(f"forget_speakers_num={count} but the training set has {len(trained)} speakers: ask for fewer")
    chosen = names or tuple(random.Random(config.forget_seed).sample(trained, count))
    matches = np.isin(np.array(clips.speakers), chosen)
    forget = _train_matches(split, matches, "forget=speaker")
    return Drawn(forget, matches, _name("speaker", names, count), people=chosen)


def _known_people(what: str, asked: Sequence[str], known: list[str], whose: str) -> tuple[str, ...]:
    """The names as the recordings have them. Raises `UserError` for unknown people, and people half named."""
    spelt = {composed(name): name for name in known}
    names = tuple(dict.fromkeys(name if name in known else spelt.get(composed(name), name) for name in asked))
    unknown = sorted(set(names) - set(known))
    if unknown:
        sought = set(map(looks, unknown))
        meant = [name for name in known if looks(name) in sought]
        raise UserError(
            f"{what} has {unknown if len(unknown) <= SHOWN else first_of(unknown)}, not among the {len(known)} "
            f"speakers {whose} ({first_of(known)})"
            + (f": did you mean {' or '.join(map(ascii, meant[:SHOWN]))}?" if meant else "")
        )
    chosen_looks = {looks(name): name for name in names}
    left = [name for name in known if name not in names and looks(name) in chosen_looks]
    if left:
        raise UserError(
            f"{what}={chosen_looks[looks(left[0])]!a} leaves out {left[0]!a}, which looks the same: "
            "name both, or rename one"
        )
    return names


def _name(kind: str, names: tuple[str, ...], count: int) -> str:
    """The request's name in tags, notes and file names: with the names in it where they fit there as they are."""
    joined = "+".join(names)
    fits = re.fullmatch(r"[\w.+-]+", joined) and len(joined.encode()) <= 100
    return f"{kind}-{joined if fits else count}"


def _train_matches(split: Split, matches: np.ndarray, what: str) -> np.ndarray:
    forget = split.train[matches[split.train]]
    if len(forget) == 0:
        raise UserError(f"{what} matches no training clip: choose others")
    return forget


def _listed(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    assert config.forget_list is not None  # Config refuses forget=list without it
    position = {id_: i for i, id_ in enumerate(clips.ids)}
    spelt = {composed(id_): i for i, id_ in enumerate(clips.ids)}
    roots = (clips.root, clips.root.resolve())
    lines = read_lines(config.forget_list)
    if lines and lines[0].of_person:
        return _listed_people(config.forget_list, lines, clips, split)
    trained = set(split.train.tolist())
    unreadable = {id_ for id_, _ in clips.skipped}
    problems: dict[str, list[str]] = {}
    chosen: dict[int, None] = {}
    for line in lines:
        entry = line.entry
        id_ = entry if entry in position else as_id(entry, roots)
        index = position.get(id_, spelt.get(composed(id_)))
        if index is None:
            problem = "left out as unreadable" if id_ in unreadable else "unknown"
        elif index in chosen:
            problem = "repeated"
        elif (wrong := _wrong_hash(line, clips, index)) is not None:
            problem = f"not the recording of that {wrong}"
        else:
            chosen[index] = None
            continue
        problems.setdefault(problem, []).append(f"line {line.number} {shortened(entry)!r}")
    if problems:
        found = "; ".join(f"{len(lines)} {problem} ({first_of(lines)})" for problem, lines in problems.items())
        raise UserError(f"forget_list={str(config.forget_list)!r}: {found}: mend or remove these lines")
    if not chosen:
        raise UserError(f"forget_list={str(config.forget_list)!r} names no clip: give one id or path a line")
    ours, others = ([i for i in chosen if (i in trained) == wanted] for wanted in (True, False))
    if others:
        say(f"forget_list: {len(others)} of {len(chosen)} recordings were never trained on: nothing to unlearn for "
            "them, once answered they are left out like the others")  # fmt: skip
    untrained = np.array(sorted(others), dtype=np.int64)
    return Drawn(np.array(ours, dtype=np.int64), np.zeros(len(clips), dtype=bool), "", untrained=untrained)


def _wrong_hash(line: Line, clips: Clips, index: int) -> str | None:
    """The hash by which a line means another recording. The file's own stands before the clip's, which resampling on
    another machine changes."""
    for name, own in (("source_hash", clips.sources[index]), ("audio_hash", clips.hashes[index])):
        if line.columns.get(name):
            return None if line.columns[name] == own else name
    return None


def _listed_people(path: Path, lines: Sequence[Line], clips: Clips, split: Split) -> Drawn:
    """A list of people is a request for all that they say: as `forget=speaker` with their names."""
    what, known = f"forget_list={str(path)!r}", sorted(set(clips.speakers) - {""})
    twice = [line for i, line in enumerate(lines) if composed(line.entry) in {composed(o.entry) for o in lines[:i]}]
    if twice:
        raise UserError(f"{what}: line {twice[0].number} {shortened(twice[0].entry)!r} repeated: mend or remove it")
    names = _known_people(what, [line.entry for line in lines], known, "of the recordings")
    respelt = [name for name, line in zip(names, lines) if name != line.entry or line.had_blanks]
    if respelt:
        say(f"forget_list: {len(respelt)} names have other blanks or accents than here: {quoted(respelt)}")
    matches = np.isin(np.array(clips.speakers), names)
    forget = split.train[matches[split.train]]
    if set(names) >= {clips.speakers[i] for i in split.train}:
        raise UserError(f"{what} names all {len(names)} speakers of the training set: ask for fewer")
    trained = {clips.speakers[i] for i in forget}
    alone = [i for i in np.flatnonzero(matches) if clips.speakers[i] not in trained]
    untrained = np.array(alone, dtype=np.int64)
    return Drawn(forget, matches, _name("speaker", names, len(names)), names, (), untrained, "speaker")


DRAWS = {"item": _items, "class": _classes, "speaker": _speakers, "list": _listed}
"""Kind of request → how its clips are found."""
