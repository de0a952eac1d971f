"""A deletion request: the training clips to forget, and the other sets that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from audio_mu.config import RequestParameters
from audio_mu.data.catalog import as_id, composed
from audio_mu.data.clips import Clips
from audio_mu.data.segments import Heard, recording_of
from audio_mu.data.splits import Split
from audio_mu.errors import UserError, counted
from audio_mu.requests.ledger import OF_CLASS, OF_PERSON, OF_RECORDINGS, SCOPE
from audio_mu.requests.named import DRAWS, Drawn
from audio_mu.requests.probable import NO_COPIES, NOT_SOUGHT, Seek
from audio_mu.requests.request_file import ID_COLUMNS, read_lines
from audio_mu.system.hashing import hash_of


class NeverTrainedError(UserError):
    """Nothing that a request means was trained on: `drawn` is what it means, `copies` what was looked for."""

    def __init__(self, asked: str, drawn: Drawn, copies: str) -> None:
        super().__init__(
            f"forget={asked!r} names {counted(len(drawn.untrained), 'recording')}, none of which was trained on: there "
            "is nothing to unlearn; with register=naive they enter the ledger, and no later training takes them in"
        )
        self.drawn, self.copies = drawn, copies


ENOUGH_NONMEMBERS = 10  # held-out clips of the same speakers and classes below which the classes are let go


@dataclass(frozen=True)
class Request:
    """A request resolved against a data set: sorted index arrays into its clips.

    `forget` and `remain` share the training set between them. `held_out` = test clips that match the request (of
    the removed class, of the same speaker). `nonmembers` = the test clips that a membership attack on `forget`
    may use, copies of training clips left out; `nonmembers_are` says in words which. `speaker_confounded`: they
    come from other speakers than `forget`, so that an attack may tell voices apart and not membership.
    `requested` = the clips that were asked for, without the copies that were added; `untrained` = those asked for that
    were never trained on: nothing is to be unlearned for them. `people` and `classes` are whom it is about as a whole.
    `copies` = the probable copies that were added to `forget` and `untrained`, each with its original; `copies_are`
    says in words what was looked for.

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
    untrained: np.ndarray
    people: tuple[str, ...]
    classes: tuple[str, ...]
    hash: str
    clips_hash: str
    copies: Mapping[int, int] = field(default_factory=dict)
    copies_are: str = NOT_SOUGHT

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


def resolve_request(config: RequestParameters, clips: Clips, split: Split, seek: Seek | None = None) -> Request:
    """Find the clips of the configured request.

    Items: ceil(|train| · p / 100), drawn without replacement by numpy's Generator(forget_seed) over the sorted
    ids, the same for all model seeds. Classes: Random(forget_seed).sample over the class indices, or the named
    classes; the test set loses them. Speakers: drawn likewise over the sorted speakers of the training set, or
    named. List: the ids of a file, or its people. Copies of requested recordings in the training set are added unless
    `duplicates=ignore`, and the probable copies that `seek` finds. Raises `UserError` where a name is not there, where
    a named speaker looks the same as a speaker that is not named, and where the request leaves nothing;
    `NeverTrainedError` where no model has learnt anything of it.
    """
    drawn = DRAWS[config.forget](config, clips, split)
    copies = seek(*_sides_of_search(clips, split, drawn)) if seek else NO_COPIES
    probable = np.array(sorted(copies.of), dtype=np.int64)
    requested, kind = np.sort(drawn.forget), drawn.kind or config.forget
    forget, untrained = _to_forget(config, clips, split, drawn, probable)
    if len(forget) == 0:
        raise NeverTrainedError(config.forget, replace(drawn, untrained=untrained, kind=kind), copies.searched)
    remain = np.setdiff1d(split.train, forget, assume_unique=True)
    if len(remain) == 0:
        raise UserError(f"forget={config.forget!r} takes all {counted(len(forget), 'training clip')}: ask for fewer")
    held_out = split.test[drawn.matches[split.test]]
    test = np.setdiff1d(split.test, held_out, assume_unique=True) if kind == "class" else split.test
    if len(test) == 0:
        raise UserError(f"forget={config.forget!r} leaves no test clips: ask for fewer classes")
    request_hash, hash_of_clips = _hashes(kind, clips, forget, untrained)
    fair = replace(split, nonmembers=np.setdiff1d(split.nonmembers, probable))
    nonmembers = _nonmembers(kind, clips, fair, forget, held_out)
    return Request(
        kind=kind,
        name=drawn.name or _list_name(request_hash),
        forget=forget,
        remain=remain,
        test=test,
        held_out=held_out,
        nonmembers=nonmembers.clips,
        nonmembers_are=nonmembers.words,
        speaker_confounded=nonmembers.speaker_confounded,
        requested=requested,
        untrained=untrained,
        people=drawn.people,
        classes=drawn.classes,
        hash=request_hash,
        clips_hash=hash_of_clips,
        copies=copies.of,
        copies_are=copies.searched,
    )


def _hashes(kind: str, clips: Clips, forget: np.ndarray, untrained: np.ndarray) -> tuple[str, str]:
    """The hashes of a request and of what it has forgotten."""
    named, others = ([[clips.ids[i], clips.hashes[i]] for i in rows.tolist()] for rows in (forget, untrained))
    return hash_of([kind, named, *([others] if others else [])]), hash_of(named)


def _list_name(request_hash: str) -> str:
    return f"list-{request_hash[:8]}"


def named_recordings(drawn: Drawn, clips: Clips) -> tuple[str, str]:
    """Name and hash of a request of which nothing was trained on."""
    request_hash, _ = _hashes(drawn.kind, clips, drawn.forget[:0], drawn.untrained)
    return drawn.name or _list_name(request_hash), request_hash


def _to_forget(
    config: RequestParameters, clips: Clips, split: Split, drawn: Drawn, probable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The training clips to forget with their copies, and what else was asked for or is a probable copy."""
    asked = np.union1d(drawn.forget, np.intersect1d(probable, split.train))
    untrained = np.union1d(drawn.untrained, np.setdiff1d(probable, split.train))
    forget = _copies_of(clips, split.train, [*asked, *untrained]) if config.duplicates == "together" else asked
    return forget, untrained


def _sides_of_search(clips: Clips, split: Split, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """What was asked for and all else that its people say; and all others that would stay, copies by hash left out."""
    named = np.concatenate([drawn.forget, drawn.untrained])
    asked = np.union1d(named, np.flatnonzero(drawn.matches))
    there = np.concatenate([split.train, split.test, split.waiting])
    return asked, np.setdiff1d(there, [*asked, *_copies_of(clips, there, named)])


def _copies_of(clips: Clips, among: np.ndarray, asked: Sequence[int] | np.ndarray) -> np.ndarray:
    """Those that are one of `asked`, a copy by the clip's audio or by the file's, or share a recording's sound."""
    wanted = {hash_ for i in asked for hash_ in (clips.hashes[i], clips.sources[i])}
    heard = Heard(clips.contents[i] for i in asked)
    ours = (
        i
        for i in among.tolist()
        if not wanted.isdisjoint((clips.hashes[i], clips.sources[i])) or clips.contents[i] in heard
    )
    return np.array([*ours], dtype=np.int64)


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
    if split.kind in ("random", "study") or not len(pool):
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
    """The request as evidence: clip_id, label, speaker, audio_hash, source_hash, requested (false: a copy that was
    added), trained (false: never trained on), scope (person, class, recordings) and copy_of (of a probable copy).

    The other columns of a request file (reason, requester, date) follow, empty for the copies.
    """
    asked = {*request.requested.tolist(), *request.untrained.tolist()} - request.copies.keys()
    rows = [*request.forget.tolist(), *request.untrained.tolist()]
    whole = {**dict.fromkeys(request.people, OF_PERSON), **dict.fromkeys(request.classes, OF_CLASS)}
    labels = {i: clips.class_names[clips.labels[i]] for i in rows}
    table = pd.DataFrame(
        {
            **clips.table(rows),
            "requested": [i in asked for i in rows],
            "trained": [place < len(request.forget) for place in range(len(rows))],
            SCOPE: [whole.get(labels[i] if request.classes else clips.speakers[i], OF_RECORDINGS) for i in rows],
            "copy_of": [clips.ids[request.copies[i]] if i in request.copies else "" for i in rows],
        }
    )
    if config.forget != "list":
        return table
    assert config.forget_list is not None  # Config refuses forget=list without it
    roots = (clips.root, clips.root.resolve())
    ids = set(table["clip_id"])
    noted = {}
    for line in read_lines(config.forget_list):
        notes = {name: value for name, value in line.columns.items() if name not in (*table.columns, *ID_COLUMNS)}
        noted[composed(line.entry if line.of_person or line.entry in ids else as_id(line.entry, roots))] = notes
    keys = map(composed, table["speaker" if request.people else "clip_id"])
    others = pd.DataFrame([noted.get(key, noted.get(recording_of(key), {})) for key in keys], dtype=object).fillna("")
    return pd.concat([table, others], axis=1)
