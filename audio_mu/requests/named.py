"""What a request names: drawn items, classes or people, or the entries of a list."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio_mu.config import RequestParameters
from audio_mu.config.parsers import quoted_name
from audio_mu.data.catalog import as_id, composed, looks, quoted
from audio_mu.data.clips import Clips
from audio_mu.data.segments import Heard, parted, recording_of
from audio_mu.data.splits import Split
from audio_mu.errors import UserError, counted, first_of, typed
from audio_mu.names import file_name
from audio_mu.progress import say
from audio_mu.requests.request_file import Line, read_lines, shortened

SHOWN = 5  # how many wrong lines an error quotes
LONGEST_NAME = 100  # bytes of the names in a request's name


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
    known = list(clips.class_names)
    names = _as_spelt(config.forget_class_names, known)
    if unknown := sorted(set(names) - set(known)):
        raise UserError(
            f"forget_class_names has unknown classes {_few(unknown)}: choose from {_few(known, 20)}"
            + _hint("forget_class_names", config.forget_class_names, known)
        )
    count = len(names) or config.forget_classes_num
    if count >= len(known):
        raise UserError(
            f"the request takes {count} of {counted(len(known), 'class')}: at least one must remain, ask for fewer"
        )
    for name, left in _alike(names, known):
        say(f"note: forget_class_names={name!a} leaves out the class {left!a}, which looks the same")
    drawn = random.Random(config.forget_seed).sample(range(len(known)), count)
    chosen = [known.index(name) for name in names] or drawn
    matches = np.isin(clips.labels.numpy(), chosen)
    chosen_names = tuple(known[label] for label in chosen)
    return Drawn(
        _train_matches(split, matches, "forget=class"),
        matches,
        request_name("class", names, count),
        classes=chosen_names,
    )


def _speakers(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    trained = sorted({clips.speakers[i] for i in split.train} - {""})
    if not trained:
        raise UserError(
            "forget=speaker, but no training recording has a known speaker: give speaker_pattern, whose group 1 is the "
            "speaker in the path of a recording, or put speakers.csv into data_dir, with the columns id and speaker"
        )
    known = sorted({*trained, *_never_trained(config.forget_speakers, clips, split)})
    names = _known_people("forget_speakers", config.forget_speakers, known, "of the training set")
    if not names and config.forget_speakers_num > len(trained):
        raise UserError(
            f"forget_speakers_num={config.forget_speakers_num}, but the training set has "
            f"{counted(len(trained), 'speaker')}: ask for fewer"
        )
    chosen = names or tuple(random.Random(config.forget_seed).sample(trained, config.forget_speakers_num))
    if set(chosen) >= {clips.speakers[i] for i in split.train}:  # nobody else is there, not even somebody unknown
        raise UserError(
            f"the request takes {'the only speaker' if len(trained) == 1 else f'all {len(trained)} speakers'} of the "
            "training set: nothing would remain, ask for fewer"
        )
    return _all_that_they_say(chosen, request_name("speaker", names, len(chosen)), clips, split)


def _never_trained(asked: Sequence[str], clips: Clips, split: Split) -> Iterator[str]:
    """Those of the names all of whose recordings are tested on or wait for a side. Of others an answered request has
    some."""
    tested = {*split.test.tolist(), *split.nonmembers.tolist(), *split.waiting.tolist()}
    for name in _as_spelt(asked, clips.speakers):
        own = [i for i, speaker in enumerate(clips.speakers) if speaker == name]
        if own and tested.issuperset(own):
            yield name


def _all_that_they_say(names: tuple[str, ...], name: str, clips: Clips, split: Split) -> Drawn:
    """A request for people. Of those who were never trained on, all recordings are `untrained`."""
    matches = np.isin(np.array(clips.speakers), names)
    forget = split.train[matches[split.train]]
    trained = {clips.speakers[i] for i in forget}
    alone = [i for i in np.flatnonzero(matches) if clips.speakers[i] not in trained]
    return Drawn(forget, matches, name, names, (), np.array(alone, dtype=np.int64), "speaker")


def _known_people(what: str, asked: Sequence[str], known: list[str], whose: str) -> tuple[str, ...]:
    """The names as the recordings have them. Raises `UserError` for unknown people, and people half named."""
    names = _as_spelt(asked, known)
    if unknown := sorted(set(names) - set(known)):
        raise UserError(
            f"{what} has {_few(unknown)}, not among the {counted(len(known), 'speaker')} {whose} ({first_of(known)})"
            + _hint(what, asked, known)
        )
    for name, left in _alike(names, known):
        raise UserError(f"{what}={name!a} leaves out {left!a}, which looks the same: name both, or rename one")
    return names


def _as_spelt(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Different names as they are known, where accents alone are written otherwise."""
    spelt = {composed(name): name for name in known}
    return tuple(dict.fromkeys(name if name in known else spelt.get(composed(name), name) for name in asked))


def _few(names: Sequence[str], shown: int = SHOWN) -> str:
    return str(list(names)) if len(names) <= shown else first_of(names, shown)


def _hint(what: str, asked: Sequence[str], known: Sequence[str]) -> str:
    """Whom or what unknown names may mean: a name with commas that was split at them, or one that looks the same."""
    split_up = [name for name in known if "," in name and {part.strip() for part in name.split(",")} <= set(asked)]
    if split_up:
        return f": put a name with commas into double quotes, as in {typed(what, quoted_name(split_up[0]))}"
    sought = {looks(name) for name in asked} - {looks(name) for name in asked if name in known}
    meant = [name for name in known if looks(name) in sought]
    return f": did you mean {' or '.join(map(ascii, meant[:SHOWN]))}?" if meant else ""


def _alike(names: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """(name, another that looks the same and is not among the names)."""
    chosen = {looks(name): name for name in names}
    return [(chosen[looks(other)], other) for other in known if other not in names and looks(other) in chosen]


def request_name(kind: str, names: tuple[str, ...], count: int) -> str:
    """The request's name in tags, notes and file names: the names in it, as a file may be called.

    Of many as many as fit, and how many more there are.
    """
    if not names:
        return f"{kind}-{count}"
    shown: list[str] = []
    for name in map(file_name, names):
        if len("+".join([*shown, name]).encode()) > LONGEST_NAME:
            break
        shown.append(name)
    more = [f"{len(names) - len(shown)}_more"] if len(shown) < len(names) else []
    return f"{kind}-{'+'.join([*shown, *more])}"


def _train_matches(split: Split, matches: np.ndarray, what: str) -> np.ndarray:
    forget = split.train[matches[split.train]]
    if len(forget) == 0:
        raise UserError(f"{what} matches no training clip: choose others")
    return forget


def _listed(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    assert config.forget_list is not None  # Config refuses forget=list without it
    position = _by_name(clips)
    roots = (clips.root, clips.root.resolve())
    lines = read_lines(config.forget_list)
    if lines and lines[0].of_person:
        return _listed_people(config.forget_list, lines, clips, split)
    trained = set(split.train.tolist())
    unreadable = {name for id_, _ in clips.skipped for name in (id_, recording_of(id_))}
    problems: dict[str, list[str]] = {}
    chosen: dict[int, None] = {}
    for line in lines:
        entry = line.entry
        id_ = entry if entry in position else as_id(entry, roots)
        own = position.get(id_) or position.get(composed(id_)) or _overlapping(id_, clips, position)
        if not own:
            problem = "left out as unreadable" if id_ in unreadable else "unknown"
        elif chosen.keys() >= {*own}:
            problem = "repeated"
        elif (wrong := _wrong_hash(line, clips, own)) is not None:
            problem = f"not the recording of that {wrong}"
        else:
            chosen |= dict.fromkeys(own)
            continue
        problems.setdefault(problem, []).append(f"line {line.number} {shortened(entry)!r}")
    if problems:
        found = "; ".join(f"{len(lines)} {problem} ({first_of(lines)})" for problem, lines in problems.items())
        raise UserError(f"forget_list={str(config.forget_list)!r}: {found}: mend or remove these lines")
    if not chosen:
        raise UserError(f"forget_list={str(config.forget_list)!r} names no clip: give one id or path a line")
    ours, others = ([i for i in chosen if (i in trained) == wanted] for wanted in (True, False))
    if others:
        never = counted(len(others), "recording")
        say(f"forget_list: {never} of {len(chosen)} never trained on: nothing to unlearn there, left out once answered")
    untrained = np.array(sorted(others), dtype=np.int64)
    return Drawn(np.array(ours, dtype=np.int64), np.zeros(len(clips), dtype=bool), "", untrained=untrained)


def _by_name(clips: Clips) -> dict[str, list[int]]:
    """Id, or path of a recording → its clips; where accents are written otherwise, under that spelling too."""
    position: dict[str, list[int]] = {}
    for i, id_ in enumerate(clips.ids):
        position.setdefault(id_, []).append(i)
        of = recording_of(id_)
        for other in {of, composed(id_), composed(of)} - {id_} if of != id_ or not id_.isascii() else ():
            position.setdefault(other, []).append(i)
    return position


def _overlapping(id_: str, clips: Clips, position: Mapping[str, Sequence[int]]) -> list[int]:
    """The clips that share sound with a part of a recording that is no clip itself: it was cut otherwise since."""
    recording, span = parted(id_)
    heard = Heard([composed(id_)])
    own = position.get(recording) or position.get(composed(recording)) or []
    return [i for i in own if span and composed(clips.ids[i]) in heard]


def _wrong_hash(line: Line, clips: Clips, found: Sequence[int]) -> str | None:
    """The hash by which a line means another recording. The file's own stands before the clip's, which resampling on
    another machine changes. Of a recording in several clips it is that of the whole."""
    if not line.columns:
        return None
    sources = {clips.sources[i] for i in found[:1] if len(found) == 1} | {clips.files[i] for i in found}
    for name, own in (("source_hash", sources), ("audio_hash", {clips.hashes[i] for i in found})):
        if line.columns.get(name):
            return None if line.columns[name] in own else name
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
        say(f"forget_list: {counted(len(respelt), 'name')} with other blanks or accents than here: {quoted(respelt)}")
    if set(names) >= {clips.speakers[i] for i in split.train}:
        raise UserError(f"{what} names all {counted(len(names), 'speaker')} of the training set: ask for fewer")
    return _all_that_they_say(names, request_name("speaker", names, len(names)), clips, split)


DRAWS = {"item": _items, "class": _classes, "speaker": _speakers, "list": _listed}
"""Kind of request → how its clips are found."""
