"""A deletion request: the training clips to forget, and the other sets that follow from them."""

from __future__ import annotations

import math
import random
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from audio_mu.config import RequestParameters
from audio_mu.data.catalog import as_id, looks
from audio_mu.data.clips import Clips
from audio_mu.data.splits import Split
from audio_mu.errors import UserError, first_of
from audio_mu.requests.request_file import ID_COLUMNS, read_lines, shortened
from audio_mu.system.hashing import hash_of

SHOWN = 5  # how many wrong lines an error quotes
ENOUGH_NONMEMBERS = 10  # held-out clips of the same speakers and classes below which the classes are let go


@dataclass(frozen=True)
class Request:
    """A request resolved against a data set: sorted index arrays into its clips.

    `forget` and `remain` share the training set between them. `held_out` = test clips that match the request (of
    the removed class, of the same speaker). `nonmembers` = the test clips that a membership attack on `forget`
    may use, copies of training clips left out; `nonmembers_are` says in words which. `speaker_confounded`: they
    come from other speakers than `forget`, so that an attack may tell voices apart and not membership.
    `requested` = the clips that were asked for, without the copies that were added.

    `hash` identifies the kind of request, the clips' ids and their audio; `clips_hash` the same without the kind.
    A request is replayed with the parameters of its run, or as `forget=list` with the `request.csv` of its run: the
    same clips are forgotten (equal `clips_hash`), each checked against its `audio_hash`; `hash` then differs
    where the kind does, because the other sets do.
    """

    kind: str
    name: str
    forget: np.ndarray
    remain: np.ndarray
    test: np.ndarray
    held_out: np.ndarray
    nonmembers: np.ndarray
    nonmembers_are: str
    speaker_confounded: bool
    requested: np.ndarray
    hash: str
    clips_hash: str

    @property
    def n_requested(self) -> int:
        """Clips that were asked for."""
        return len(self.requested)

    @property
    def n_duplicates_added(self) -> int:
        """Copies of them in the training set that are forgotten with them."""
        return len(self.forget) - len(self.requested)

    @property
    def nonmember_set(self) -> str:
        """The evaluated set that holds the non-members."""
        return "held_out" if self.kind in ("class", "speaker") else "test"

    def sets(self) -> dict[str, np.ndarray]:
        """The sets that are evaluated, by name; `held_out` only where it has clips."""
        named = {"forget": self.forget, "remain": self.remain, "test": self.test}
        return named | ({"held_out": self.held_out} if len(self.held_out) else {})


@dataclass(frozen=True)
class Earlier:
    """An answered request: the clips that it forgot, and the test clips its membership is measured against."""

    clips: np.ndarray
    nonmembers: np.ndarray


def resolve_request(config: RequestParameters, clips: Clips, split: Split) -> Request:
    """Find the clips of the configured request.

    Items: ceil(|train| · p / 100), drawn without replacement by numpy's Generator(forget_seed) over the sorted
    ids, the same for all model seeds. Classes: Random(forget_seed).sample over the class indices, or the named
    classes; the test set loses them. Speakers: drawn likewise over the sorted speakers of the training set, or
    named. List: the ids of a file. Copies of requested recordings in the training set are added unless
    `duplicates=ignore`. Raises `UserError` where a name is not there, where a named speaker looks the same as a
    speaker that is not named, and where the request leaves nothing.
    """
    draw = {"item": _items, "class": _classes, "speaker": _speakers, "list": _listed}[config.forget]
    forget, matches_test, name = draw(config, clips, split)
    requested = np.sort(forget)
    if config.duplicates == "together":
        wanted = {clips.hashes[i] for i in requested}
        forget = np.array([i for i in split.train.tolist() if clips.hashes[i] in wanted], dtype=np.int64)
    else:
        forget = requested
    remain = np.setdiff1d(split.train, forget, assume_unique=True)
    if len(remain) == 0:
        raise UserError(f"forget={config.forget!r} takes all {len(forget)} training clips: ask for fewer")
    held_out = split.test[matches_test[split.test]]
    test = np.setdiff1d(split.test, held_out, assume_unique=True) if config.forget == "class" else split.test
    if len(test) == 0:
        raise UserError(f"forget={config.forget!r} leaves no test clips: ask for fewer classes")
    named = [[clips.ids[i], clips.hashes[i]] for i in forget.tolist()]
    request_hash = hash_of([config.forget, named])
    nonmembers = _nonmembers(config.forget, clips, split, forget, held_out)
    return Request(
        kind=config.forget,
        name=name or f"list-{request_hash[:8]}",
        forget=forget,
        remain=remain,
        test=test,
        held_out=held_out,
        nonmembers=nonmembers.clips,
        nonmembers_are=nonmembers.words,
        speaker_confounded=nonmembers.speaker_confounded,
        requested=requested,
        hash=request_hash,
        clips_hash=hash_of(named),
    )


@dataclass(frozen=True)
class _Nonmembers:
    clips: np.ndarray
    words: str
    speaker_confounded: bool


def _nonmembers(kind: str, clips: Clips, split: Split, forget: np.ndarray, held_out: np.ndarray) -> _Nonmembers:
    """Held-out clips of the distribution of the forget set, as near to it as the split has them.

    Items are drawn from the training set, so that the test set has their distribution where the split is random
    or keeps the speakers; a list may be of few speakers and classes, so that only test clips of the same speakers
    (and, where there are enough, of the same classes) compare with it.
    """
    speakers = np.array(clips.speakers)
    ours = np.setdiff1d(np.unique(speakers[forget]), [""])
    if kind == "speaker":
        own = np.intersect1d(held_out, split.nonmembers, assume_unique=True)
        return _Nonmembers(own, _counted(own, "held-out clips of the same speakers"), False)
    if kind == "list":
        return _nonmembers_of_list(clips, split, forget, ours)
    pool = split.nonmembers if kind == "item" else np.intersect1d(held_out, split.nonmembers, assume_unique=True)
    words = _counted(pool, "test clips" if kind == "item" else "held-out clips of the same classes")
    if split.kind == "random" or not len(pool):
        return _Nonmembers(pool, words, False)
    shared = np.isin(speakers[pool], ours).any()
    return _Nonmembers(pool, words if shared else f"{words}; {_other_speakers(ours)}", not shared)


def _nonmembers_of_list(clips: Clips, split: Split, forget: np.ndarray, ours: np.ndarray) -> _Nonmembers:
    labels, pool = clips.labels.numpy(), split.nonmembers
    same_class = np.isin(labels[pool], labels[forget])
    same_speaker = np.isin(np.array(clips.speakers)[pool], ours)
    both = pool[same_class & same_speaker]
    if len(both) >= ENOUGH_NONMEMBERS or (len(both) and len(both) == same_speaker.sum()):
        return _Nonmembers(both, _counted(both, "held-out clips of the same speakers and classes"), False)
    if same_speaker.any():
        chosen = pool[same_speaker]
        return _Nonmembers(chosen, _counted(chosen, "held-out clips of the same speakers, of any class"), False)
    chosen = pool[same_class] if same_class.any() else pool
    words = _counted(chosen, "held-out clips of the same classes" if same_class.any() else "test clips")
    return _Nonmembers(chosen, f"{words}; {_other_speakers(ours)}", True)


def _counted(chosen: np.ndarray, what: str) -> str:
    return f"{len(chosen)} {what}" if len(chosen) else f"none: the split leaves no {what}"


def _other_speakers(ours: np.ndarray) -> str:
    if not len(ours):
        return "the clips name no speakers, whether these share any is unknown"
    return "the split leaves no held-out clips of the same speakers"


def request_table(config: RequestParameters, clips: Clips, request: Request) -> pd.DataFrame:
    """The request as evidence: clip_id, label, speaker, audio_hash, requested (false: a copy that was added).

    The other columns of a request file (reason, requester, date) follow, empty for the copies.
    """
    asked = set(request.requested.tolist())
    table = pd.DataFrame(
        {
            "clip_id": [clips.ids[i] for i in request.forget],
            "label": [clips.class_names[clips.labels[i]] for i in request.forget],
            "speaker": [clips.speakers[i] for i in request.forget],
            "audio_hash": [clips.hashes[i] for i in request.forget],
            "requested": [i in asked for i in request.forget.tolist()],
        }
    )
    if request.kind != "list":
        return table
    assert config.forget_list is not None  # Config refuses forget=list without it
    roots = (clips.root, clips.root.resolve())
    ids = set(table["clip_id"])
    noted = {
        line.entry if line.entry in ids else as_id(line.entry, roots): {
            name: value for name, value in line.columns.items() if name not in (*table.columns, *ID_COLUMNS)
        }
        for line in read_lines(config.forget_list)
    }
    others = pd.DataFrame([noted.get(id_, {}) for id_ in table["clip_id"]], dtype=object).fillna("")
    return pd.concat([table, others], axis=1)


Drawn = tuple[np.ndarray, np.ndarray, str]


def _items(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    # Exactly: 8.8 % of 375 is 33, which floating-point numbers make 33.000000000000004 and its ceiling 34.
    n = math.ceil(len(split.train) * Fraction(str(config.forget_percentage)) / 100)
    forget = np.random.default_rng(config.forget_seed).choice(split.train, size=n, replace=False)
    return forget, np.zeros(len(clips), dtype=bool), f"item-{config.forget_percentage:g}"


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
    return _train_matches(split, matches, "forget=class"), matches, _name("class", names, count)


def _speakers(config: RequestParameters, clips: Clips, split: Split) -> Drawn:
    trained = sorted({clips.speakers[i] for i in split.train} - {""})
    composed = {unicodedata.normalize("NFC", name): name for name in trained}  # é may be one character or two
    names = tuple(
        dict.fromkeys(
            name if name in trained else composed.get(unicodedata.normalize("NFC", name), name)
            for name in config.forget_speakers
        )
    )
    unknown = sorted(set(names) - set(trained))
    if unknown:
        sought = set(map(looks, unknown))
        meant = [name for name in trained if looks(name) in sought]
        raise UserError(
            f"forget_speakers has {unknown}, not among the {len(trained)} speakers of the training set "
            f"({first_of(trained)})" + (f": did you mean {' or '.join(map(ascii, meant[:SHOWN]))}?" if meant else "")
        )
    chosen_looks = {looks(name): name for name in names}
    left = [name for name in trained if name not in names and looks(name) in chosen_looks]
    if left:
        raise UserError(
            f"forget_speakers={chosen_looks[looks(left[0])]!a} leaves out {left[0]!a}, which looks the same: "
            "name both, or rename one"
        )
    count = len(names) or config.forget_speakers_num
    if count >= len(trained):
        raise UserError(f"forget_speakers_num={count} but the training set has {len(trained)} speakers: ask for fewer")
    chosen = names or random.Random(config.forget_seed).sample(trained, count)
    matches = np.isin(np.array(clips.speakers), chosen)
    return _train_matches(split, matches, "forget=speaker"), matches, _name("speaker", names, count)


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
    roots = (clips.root, clips.root.resolve())
    trained, tested = set(split.train.tolist()), set(split.test.tolist())
    unreadable = {id_ for id_, _ in clips.skipped}
    problems: dict[str, list[str]] = {}
    chosen: dict[int, None] = {}
    for line in read_lines(config.forget_list):
        entry = line.entry
        id_ = entry if entry in position else as_id(entry, roots)
        index = position.get(id_)
        if index is None:
            problem = "left out as unreadable" if id_ in unreadable else "unknown"
        elif index in chosen:
            problem = "repeated"
        elif index in tested:
            problem = "in the test set"
        elif index not in trained:
            problem = "in no set (the validation list is unused)"
        elif line.columns.get("audio_hash", "") not in ("", clips.hashes[index]):
            problem = "not the recording of that audio_hash"
        else:
            chosen[index] = None
            continue
        problems.setdefault(problem, []).append(f"line {line.number} {shortened(entry)!r}")
    if problems:
        found = "; ".join(f"{len(lines)} {problem} ({first_of(lines)})" for problem, lines in problems.items())
        raise UserError(f"forget_list={str(config.forget_list)!r}: {found}: mend or remove these lines")
    if not chosen:
        raise UserError(f"forget_list={str(config.forget_list)!r} names no clip: give one id or path a line")
    return np.array(list(chosen), dtype=np.int64), np.zeros(len(clips), dtype=bool), ""
