"""The recordings of a command: clips and their split, without those of answered requests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from audio_mu.config import Config
from audio_mu.config.commands import erasing
from audio_mu.data.catalog import composed, quoted
from audio_mu.data.clips import Clips, clips_digest, load_clips
from audio_mu.data.segments import Heard, without_format
from audio_mu.data.splits import Sides, Split, split_clips
from audio_mu.erasure.in_service import tell_served
from audio_mu.errors import UserError, counted
from audio_mu.progress import say_once
from audio_mu.requests.again import refuse_answered
from audio_mu.requests.held_out import held_out
from audio_mu.requests.later import add_copies
from audio_mu.requests.ledger import ERASING, SOUGHT, Entry, Ledger
from audio_mu.requests.ledger_file import Missing
from audio_mu.requests.other_names import keep_heard, names_here
from audio_mu.requests.probable import CopiesFoundError, probable_copies, seek_for
from audio_mu.requests.request import Earlier, NeverTrainedError, Request, resolve_request
from audio_mu.requests.same_people import check_people, refuse_other_people, unread_of
from audio_mu.requests.sides import keep_sides, read_sides
from audio_mu.store import queries
from audio_mu.store.handle import Store

NO_LEDGER = Ledger()


@dataclass(frozen=True)
class LeftOut:
    """An answered request, and how many clips it leaves out: its own, others of its people or classes.

    `held_out`: test clips of its people, which stay as non-members until they are erased. `copies`: id of a probable
    copy that has come since → id of the recording.
    """

    entry: Entry
    own: int
    others: int
    held_out: int
    copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> str:
        """The request's name."""
        return self.entry.request

    @property
    def _by_sound_alone(self) -> bool:
        """Whether nothing but the very samples tells its recordings: no name of a person or class does."""
        return not self.entry.gone and not self.entry.speakers and not self.entry.classes

    @property
    def told(self) -> str:
        """In words, for one line."""
        none = "none of its recordings is in the folder" if self._by_sound_alone else "none of its recordings is read"
        parts = [f"{self.own} of its recordings are left out" if self.own else none]
        if self._by_sound_alone and not self.own:
            parts.append("where they are in another format now, they cannot be told: keep the originals until `erase`")
        if self.entry.state == ERASING:
            finish = erasing(self.entry.hash[:8], self.entry.tags["dataset_name"], confirm=True)
            parts.append(f"its erasure was interrupted, what is left of it is there still: run `{finish}`")
        if self.others:
            whose = "of its classes" if self.entry.classes else "of the same people"
            parts.append(f"{self.others} more {whose} too")
        if self.copies:
            names = quoted([f"{id_} (of {of})" for id_, of in self.copies.items()])
            what = counted(len(self.copies), "probable copy")
            parts.append(f"also {what} that came since, for good: {names}")
        if self.held_out:
            parts.append(f"{self.held_out} held-out ones stay as non-members until `erase`")
        return ", ".join(parts)


@dataclass(frozen=True)
class Data:
    """The clips of a configuration and their split, in which no recording of the requests in `left_out` is.

    `digest` identifies the training clips, `tested` the test clips, `untouched` the training clips if the ledger left
    none out. `earlier`: name of the evaluated set → an answered request whose recordings can still be read. `missing`:
    requests that the store does not know, whose recordings are left out too.
    """

    clips: Clips
    split: Split
    left_out: tuple[LeftOut, ...]
    untouched: str
    earlier: Mapping[str, Earlier] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The digest of the training clips, which a base model is known by."""
        return _digest(self.clips, self.split.train)

    @cached_property
    def tested(self) -> str:
        """The digest of the test clips."""
        return _digest(self.clips, self.split.test)

    def digest_without(self, ids: Collection[str], hashes: Collection[str]) -> str:
        """The digest of the training clips once these recordings, by id or by audio, are forgotten too."""
        train = self.split.train
        return _digest(self.clips, train[~matching(self.clips, ids, hashes)[train]])

    def tested_on(self, ids: Collection[str]) -> Data:
        """The same with those test clips alone that a model has been evaluated on; the others are told."""
        ids = set(ids)
        seen = np.array([id_ in ids for id_ in self.clips.ids], dtype=bool)
        new = [self.clips.ids[i] for i in self.split.test if not seen[i]]
        if not new:
            return self
        what = counted(len(new), "test recording")
        say_once(f"{what} newer than the base models: left out ({quoted(new)})")
        test, nonmembers = (own[seen[own]] for own in (self.split.test, self.split.nonmembers))
        return replace(self, split=replace(self.split, test=test, nonmembers=nonmembers))


def data_to_train(config: Config, store: Store, ledger: Ledger) -> Data:
    """Clips and split; recordings that have no side yet get theirs, for good."""
    tell_served(store, ledger, config.data.label)
    if config.store.ledger == "respect":
        _refuse_other_pattern(config, store, ledger)
    data = load_data(config, ledger, _known(config, store))
    if data.split.drawn:
        kept = keep_sides(store, config.data, data.split.drawn)
        if any(kept[key] != side for key, side in data.split.drawn.items()):
            data = load_data(config, ledger, kept)
    _enter_copies(config, store, data)
    return data


def data_of_bases(config: Config, store: Store, ledger: Ledger) -> Data:
    """Clips and split; recordings that no training has given a side have no part in it, and are told.

    Requests that the store does not know are answered one by one: for the one that is asked for now, the recordings of
    all of them are there, as they were for the models of the store.
    """
    known = _known(config, store)
    data = load_data(config, ledger, known, draw=not known)
    if data.missing and _answers_missing(config, whole := without_missing(config, store, ledger), data.missing):
        data = whole
    if len(data.split.waiting):
        waiting = [data.clips.ids[i] for i in data.split.waiting]
        what = counted(len(waiting), "recording")
        say_once(f"{what} newer than the last `train`: left out until the next one ({quoted(waiting)})")
    _enter_copies(config, store, data)
    return data


def without_missing(config: Config, store: Store, ledger: Ledger) -> Data:
    """The data as models know them that were trained before the requests that the store does not know."""
    known = _known(config, store)
    return load_data(config, replace(ledger, missing=()), known, draw=not known)


def _answers_missing(config: Config, whole: Data, missing: Sequence[Missing]) -> bool:
    """Whether the request covers one of these on the training side."""
    try:
        request = resolve_request(config.request, whole.clips, whole.split)
    except UserError:
        return False
    rows = [np.flatnonzero(matching(whole.clips, (), known.hashes)) for known in missing]
    trained = [np.intersect1d(own, whole.split.train) for own in rows]
    return any(len(own) and np.isin(own, request.forget).all() for own in trained)


def resolve(config: Config, data: Data) -> Request:
    """The request among what the ledger leaves. Raises `UserError`, with what it leaves out, where it is not there."""
    try:
        return resolve_request(config.request, data.clips, data.split, seek_for(config.request, data.clips))
    except UserError as error:
        drawn = error.drawn if isinstance(error, NeverTrainedError) else None
        ids = {data.clips.ids[i] for i in drawn.untrained} if drawn else frozenset[str]()
        refuse_answered(config, [found.entry for found in data.left_out], drawn, ids)
        if isinstance(error, (CopiesFoundError, NeverTrainedError)) or not data.left_out:
            raise
        names = ", ".join(entry.request for entry in data.left_out)
        raise UserError(f"{error} (answered requests are left out: {names}; {_taken_in(data.left_out)})") from None


def _taken_in(left_out: Sequence[LeftOut]) -> str:
    """What ledger=ignore does with these: what is erased stays out."""
    gone = [found.request for found in left_out if found.entry.gone]
    if len(gone) == len(left_out):
        return "erased, they stay out with ledger=ignore too"
    return "ledger=ignore takes them in" + (f" but for what is erased: {', '.join(gone)}" if gone else "")


def _enter_copies(config: Config, store: Store, data: Data) -> None:
    """Probable copies of answered recordings become the request's, known by hash when their originals are gone.

    So do the names that its person has here.
    """
    for found in data.left_out:
        if found.entry.is_elsewhere(config.data.label):
            keep_heard(store, found.entry, data.clips, config.data.label)
        if found.copies:
            add_copies(store, found.entry, [row for row in data.clips.identity if row[0] in found.copies])


def _known(config: Config, store: Store) -> Sides:
    return {} if config.data.split == "official" else read_sides(store, config.data)


def load_data(config: Config, ledger: Ledger = NO_LEDGER, known: Sides | None = None, draw: bool = True) -> Data:
    """Clips and split of a configuration, without the recordings of the requests that the ledger leaves out.

    Whoever has a side keeps it. Raises `UserError` where there is nothing to train or test on.
    """
    clips = load_clips(config.data, ledger.barred)
    whole = split_clips(config.data.split, config.data.split_seed, clips, known, draw)
    out, trained = np.zeros(len(clips), dtype=bool), np.isin(np.arange(len(clips)), whole.train)
    scopes, left_out, earlier = [], [], {}
    for entry in ledger.left_out(config.store.ledger):
        elsewhere = entry.is_elsewhere(config.data.label)
        own, scope, held = of_entry(clips, entry, elsewhere)
        check_people(clips, entry, scope, elsewhere, config.store.ledger == "respect")
        others = scope & ~own & (trained | ~held | bool(entry.classes))
        out |= own | others
        unread = unread_of(clips, entry) if elsewhere else (0, 0)  # of its own data set the request is told anyway
        n_own, n_others = int(own.sum()) + unread[0], int(others.sum()) + unread[1]
        if not elsewhere or n_own or n_others:
            left_out.append(LeftOut(entry, n_own, n_others, int((scope & ~own & ~others).sum())))
            scopes.append(scope & (not elsewhere and entry.tags.get(SOUGHT) == "true"))
        if not elsewhere and not entry.gone:
            earlier[ledger.set_name(entry)] = entry
    missing = ledger.missing if config.store.ledger == "respect" else ()
    for known_elsewhere in missing:
        out |= matching(clips, (), known_elsewhere.hashes)
    left_out = _with_later_copies(clips, left_out, scopes, out)
    train, test, nonmembers = (rows[~out[rows]] for rows in (whole.train, whole.test, whole.nonmembers))
    if len(train) == 0 or len(test) == 0:
        raise UserError(
            f"the answered requests of {config.data.label} leave {len(train)} training and {len(test)} "
            "test clips: both are needed; give data_dir with more recordings"
        )
    stays, away = ({file for file, is_out in zip(clips.files, out) if is_out == side} for side in (False, True))
    away -= stays  # get no side that would outlive them
    drawn = {key: side for key, side in whole.drawn.items() if key not in away}
    waiting = whole.waiting[~out[whole.waiting]]
    split = replace(whole, train=train, test=test, nonmembers=nonmembers, drawn=drawn, waiting=waiting)
    found = {name: _earlier(clips, split, entry) for name, entry in earlier.items()}
    readable = {name: known for name, known in found.items() if len(known.clips)}
    return Data(clips, split, tuple(left_out), _digest(clips, whole.train), readable, missing)


def _with_later_copies(
    clips: Clips, left_out: list[LeftOut], scopes: list[np.ndarray], out: np.ndarray
) -> list[LeftOut]:
    """The same with the probable copies of recordings in these scopes, bool [n] each, which are added to `out`.

    Only requests whose probable copies were looked for when they were answered have a scope here, and only recordings
    whose files are still there: whatever is found has come since.
    """
    barred = np.logical_or.reduce([np.zeros(len(clips), dtype=bool), *scopes])
    if not barred.any():
        return left_out
    found = probable_copies(clips, np.flatnonzero(barred), np.flatnonzero(~barred & ~out))
    out[list(found.of)] = True
    firsts = {i: found.first(i) for i in found.of}
    return [
        replace(entry, copies={clips.ids[i]: clips.ids[found.of[i]] for i, j in firsts.items() if scope[j]})
        for entry, scope in zip(left_out, scopes)
    ]


def _refuse_other_pattern(config: Config, store: Store, ledger: Ledger) -> None:
    """Raise `UserError` where there are other people than when somebody was answered.

    The recordings of then may be gone, so that the names of today's files decide.
    """
    for entry in ledger.entries:
        run = queries.run_of(store, entry.answering_runs[0]) if entry.speakers and entry.answers else None
        refuse_other_people(
            config.data,
            run.params if run is not None else {},
            f"which request {entry.request} ({entry.hash[:8]}) was answered, and nobody would be kept out: give that "
            "one (ledger=ignore for an experiment)",
        )


def of_entry(clips: Clips, entry: Entry, elsewhere: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which clips are recordings of an answered request, which all of its people or classes, and which of these were
    held out when it was answered: bool [n] each.

    `elsewhere`: it is of another data set, whose ids and classes mean other recordings and whose people may have other
    names here. What was held out of them is known by id and hash too: names of people and classes change. What has
    the name of a recording that is gone, but for its format, is that recording.
    """
    own = matching(clips, () if elsewhere else entry.ids, entry.hashes)
    if not elsewhere:  # a folder that was encoded anew
        gone = Heard(map(without_format, entry.ids.difference(clips.ids)))
        own = own | np.array([without_format(id_) in gone for id_ in clips.ids], dtype=bool)
    tested = replace(entry, recordings=held_out(entry))
    held = matching(clips, () if elsewhere else tested.ids, tested.hashes)
    speakers = entry.speakers | (names_here(clips, entry).names if elsewhere else frozenset())
    scope = own | held | np.array([composed(name) in speakers for name in clips.speakers], dtype=bool)
    if entry.classes and not elsewhere:
        scope = scope | np.array([clips.class_names[label] in entry.classes for label in clips.labels.tolist()])
    return own, scope, held


def learnt_from(
    config: Config, clips: Clips, entries: Iterable[Entry], rows: np.ndarray
) -> Iterator[tuple[Entry, int]]:
    """The answered requests that have recordings, or others of their people or classes, among these clips; how many."""
    for entry in entries:
        if held := int(of_entry(clips, entry, entry.is_elsewhere(config.data.label))[1][rows].sum()):
            yield entry, held


def _earlier(clips: Clips, split: Split, entry: Entry) -> Earlier:
    forgotten = set(entry.recordings.loc[entry.recordings["forgotten"] == "True", "clip_id"])
    nonmembers = set(entry.nonmembers["clip_id"])
    return Earlier(
        np.array([i for i, id_ in enumerate(clips.ids) if id_ in forgotten], dtype=np.int64),
        np.array([i for i in split.nonmembers if clips.ids[i] in nonmembers], dtype=np.int64),
    )


def matching(clips: Clips, ids: Collection[str], hashes: Collection[str]) -> np.ndarray:
    """Which clips are one of these recordings, or share sound with a part, by id, by audio or by the file's samples:
    bool [n]."""
    by_id, by_sound, rows = Heard(ids), Heard(hashes), zip(clips.ids, clips.hashes, clips.sources, clips.contents)
    found = [id_ in by_id or hash_ in hashes or source in hashes or of in by_sound for id_, hash_, source, of in rows]
    return np.array(found, dtype=bool)


def _digest(clips: Clips, rows: Iterable[int]) -> str:
    identity = clips.identity
    return clips_digest(identity[i] for i in rows)
