"""A deletion request: which training clips to forget, and what that makes of the other sets."""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.splits import Split
from audio_mu.errors import UserError
from audio_mu.files import hash_of

SHOWN = 5  # how many wrong lines an error quotes
LONGEST = 80  # characters of each


@dataclass(frozen=True)
class Request:
    """A request resolved against a data set: sorted index arrays into its clips.

    `forget` and `remain` share the training set between them. `held_out` = test clips that match the request (of
    the removed class, of the same speaker). `nonmembers` = the test clips that a membership attack on `forget`
    may use: `held_out` for classes and speakers, the test set otherwise, copies of training clips left out.
    """

    kind: str
    name: str
    forget: np.ndarray
    remain: np.ndarray
    test: np.ndarray
    held_out: np.ndarray
    nonmembers: np.ndarray
    n_requested: int
    n_duplicates_added: int
    hash: str

    def sets(self) -> dict[str, np.ndarray]:
        """The sets that are evaluated, by name; `held_out` only where it has clips."""
        named = {"forget": self.forget, "remain": self.remain, "test": self.test}
        return named | ({"held_out": self.held_out} if len(self.held_out) else {})


def resolve_request(config: Config, clips: Clips, split: Split) -> Request:
    """Find the clips of the configured request.

    Items: ceil(|train| · p / 100), drawn without replacement by numpy's Generator(forget_seed) over the sorted
    ids, the same for all model seeds. Classes: Random(forget_seed).sample over the class indices, or the named
    ones; the test set loses them. Speakers: drawn likewise over the sorted speakers of the training set, or
    named. List: the ids of a file. Copies of requested recordings in the training set are added unless
    `duplicates=ignore`. Raises `UserError` where the request names what is not there or leaves nothing.
    """
    draw = {"item": _items, "class": _classes, "speaker": _speakers, "list": _listed}[config.forget]
    forget, matches_test, name = draw(config, clips, split)
    requested = np.sort(forget)
    if config.duplicates == "together":
        wanted = {clips.hashes[i] for i in requested}
        forget = np.array([i for i in split.train if clips.hashes[i] in wanted], dtype=np.int64)
    else:
        forget = requested
    remain = np.setdiff1d(split.train, forget, assume_unique=True)
    if len(remain) == 0:
        raise UserError(f"forget={config.forget!r} takes all {len(forget)} training clips: ask for fewer")
    held_out = np.array([i for i in split.test if matches_test[i]], dtype=np.int64)
    test = np.setdiff1d(split.test, held_out, assume_unique=True) if config.forget == "class" else split.test
    if len(test) == 0:
        raise UserError(f"forget={config.forget!r} leaves no test clips: ask for fewer classes")
    candidates = held_out if config.forget in ("class", "speaker") else split.test
    request_hash = hash_of([config.forget, [[clips.ids[i], clips.hashes[i]] for i in forget]])
    return Request(
        kind=config.forget,
        name=name or f"list-{request_hash[:8]}",
        forget=forget,
        remain=remain,
        test=test,
        held_out=held_out,
        nonmembers=np.intersect1d(candidates, split.nonmembers, assume_unique=True),
        n_requested=len(requested),
        n_duplicates_added=len(forget) - len(requested),
        hash=request_hash,
    )


Drawn = tuple[np.ndarray, np.ndarray, str]


def _items(config: Config, clips: Clips, split: Split) -> Drawn:
    # Exactly: 8.8 % of 375 is 33, which floating-point numbers make 33.000000000000004 and its ceiling 34.
    n = math.ceil(len(split.train) * Fraction(str(config.forget_percentage)) / 100)
    forget = np.random.default_rng(config.forget_seed).choice(split.train, size=n, replace=False)
    return forget, np.zeros(len(clips), dtype=bool), f"item-{config.forget_percentage:g}"


def _classes(config: Config, clips: Clips, split: Split) -> Drawn:
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
    return _train_matches(split, matches, "forget=class"), matches, _name("class", names, count)


def _speakers(config: Config, clips: Clips, split: Split) -> Drawn:
    trained = sorted({clips.speakers[i] for i in split.train} - {""})
    names = config.forget_speakers
    unknown = sorted(set(names) - set(trained))
    if unknown:
        raise UserError(
            f"forget_speakers has {unknown}, not among the {len(trained)} speakers of the training set "
            f"({', '.join(trained[:SHOWN])}, …)"
        )
    count = len(names) or config.forget_speakers_num
    if count >= len(trained):
        raise UserError(f"forget_speakers_num={count} but the training set has {len(trained)} speakers: ask for fewer")
    chosen = names or random.Random(config.forget_seed).sample(trained, count)
    matches = np.isin(np.array(clips.speakers), chosen)
    return _train_matches(split, matches, "forget=speaker"), matches, _name("speaker", names, count)


def _name(kind: str, names: tuple[str, ...], count: int) -> str:
    joined = "+".join(names)
    return f"{kind}-{joined if names and len(joined) <= 60 else count}"


def _train_matches(split: Split, matches: np.ndarray, what: str) -> np.ndarray:
    forget = split.train[matches[split.train]]
    if len(forget) == 0:
        raise UserError(f"{what} matches no training clip: choose others")
    return forget


def _listed(config: Config, clips: Clips, split: Split) -> Drawn:
    assert config.forget_list is not None  # Config refuses forget=list without it
    position = {id_: i for i, id_ in enumerate(clips.ids)}
    roots = (clips.root, clips.root.resolve())
    trained, tested = set(split.train.tolist()), set(split.test.tolist())
    unreadable = {id_ for id_, _ in clips.skipped}
    problems: dict[str, list[str]] = {}
    chosen: dict[int, None] = {}
    for line, entry in read_list(config.forget_list):
        id_ = entry if entry in position else _as_id(entry, roots)
        index = position.get(id_)
        if index is None:
            problem = "left out as unreadable" if id_ in unreadable else "unknown"
        elif index in chosen:
            problem = "repeated"
        elif index in tested:
            problem = "in the test set"
        elif index not in trained:
            problem = "in no set (the validation list is unused)"
        else:
            chosen[index] = None
            continue
        problems.setdefault(problem, []).append(f"line {line} {_shortened(entry)!r}")
    if problems:
        found = "; ".join(
            f"{len(lines)} {problem} ({', '.join(lines[:SHOWN])}{', …' if len(lines) > SHOWN else ''})"
            for problem, lines in problems.items()
        )
        raise UserError(f"forget_list={str(config.forget_list)!r}: {found}: mend or remove these lines")
    if not chosen:
        raise UserError(f"forget_list={str(config.forget_list)!r} names no clip: give one id or path a line")
    return np.array(list(chosen), dtype=np.int64), np.zeros(len(clips), dtype=bool), ""


def _shortened(entry: str) -> str:
    return entry if len(entry) <= LONGEST else entry[:LONGEST] + "…"


def read_list(path: Path) -> list[tuple[int, str]]:
    """(line number, id or path) of each entry of a request file.

    A CSV with a column `clip_id`, `id` or `path` (others, such as reason, requester, date, are kept with the
    file), or plain text with one entry a line. Empty lines are passed over; a CSV row without an id is an empty
    entry, which names no clip. Raises `UserError` where the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"forget_list={str(path)!r} is not UTF-8 text: save it as UTF-8") from None
    lines = text.split("\n")  # not splitlines, which would cut ids at rarer characters too
    try:
        header = [column.strip() for column in next(csv.reader(lines[:1]), [])]
        known = [column for column in ("clip_id", "id", "path") if column in header]
        if not known:
            return [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
        column = header.index(known[0])
        reader = csv.reader(lines[1:])
        rows = [(reader.line_num + 1, row) for row in reader if any(cell.strip() for cell in row)]
        return [(line, row[column].strip() if len(row) > column else "") for line, row in rows]
    except csv.Error as error:
        raise UserError(f"forget_list={str(path)!r} is not a readable CSV ({error}): mend it") from None


def _as_id(entry: str, roots: tuple[Path, ...]) -> str:
    path = Path(entry)
    for root in roots:
        if path.is_absolute() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return entry.replace("\\", "/").removeprefix("./")
