"""Erase an answered request: everything in the store and the caches that holds or derives from its recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from audio_mu.config import Config
from audio_mu.config.commands import erasing
from audio_mu.config.reads import in_force
from audio_mu.erasure.find import Finding, Search, cached
from audio_mu.erasure.remains import NOT_OURS, Remaining, remaining
from audio_mu.errors import UserError, counted
from audio_mu.names import UNLEARNED
from audio_mu.printable import without_passwords
from audio_mu.progress import bar, say
from audio_mu.requests import ledger_file
from audio_mu.requests.later import add_said
from audio_mu.requests.ledger import ERASED, ERASING, ERASURE, RECORDINGS, Entry, keep_file, read_ledger
from audio_mu.requests.other_names import called_in_lists, keep_called
from audio_mu.store import queries, registry, removal
from audio_mu.store.artifacts import list_files, read_json
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.runs import CONTRACT_VERSION, Run, open_run
from audio_mu.system.hashing import sha256

PAGE = "erasure.md"
SHOWN, SURE = 3, 8
ALL = "all"
TAGS = ("dataset", "dataset_name", "request", "request_hash", "pipeline", "architecture")


def erase(config: Config, store: Store) -> str:
    """List what holds or derives from an answered request's recordings; with `confirm=true` remove it.

    What is done is found from what is there, models first, then caches and artifacts. So an interrupted erasure is
    finished by running it again, and a finished one finds nothing. `request=all` repeats every erasure that the ledger
    or the file of `AUDIO_MU_LEDGER` knows. Returns the id of its run, the last one's. Raises `UserError` where the
    ledger has no such request.
    """
    if config.store.request != ALL:
        return [_erase_one(config, store, entry) for entry in _chosen(config, store)][-1]
    known = ledger_file.erased()
    repeated = [
        _erase_one(config, store, entry)
        for entry in read_ledger(store).entries
        if entry.gone or (entry.hash, sha256(entry.tags["dataset_name"])) in known
    ]
    if not repeated:
        raise UserError("request='all' repeats erasures, and there was none: give the hash of an answered request")
    return repeated[-1]


def _erase_one(config: Config, store: Store, entry: Entry) -> str:
    tags = {name: entry.tags[name] for name in TAGS} | {"confirmed": str(config.store.confirm).lower()}
    with open_run(store, "erase", f"erase {entry.request}", tags, in_force(config, "erase"), config.as_text()) as run:
        entry = next(known for known in read_ledger(store).entries if known.run_id == entry.run_id)  # see `add_said`
        entry = _with_names(config, store, entry)
        search = Search(store, entry)
        entry = search.entry
        if entry.run_id in search.runs and not search.runs[entry.run_id].is_own:
            where = search.runs[entry.run_id].artifact_uri
            raise UserError(f"the ledger's entry of {entry.request} names {where!r}, outside of this store: restore it")
        findings = search.findings()
        _tell(entry, findings, config.store.confirm)
        for where, what in sorted(search.foreign.items()):
            say(f"  {what}: {where}: {NOT_OURS}")
        if config.store.confirm:
            with registry_locked(store):  # nothing goes into service meanwhile
                _erase(config, search, findings, run)
        else:
            _write([run], entry, {"found": [finding.row for finding in findings], "refused": sorted(search.foreign)})
            say(f"all of them: {run.address(PAGE)}")
            command = erasing(entry.hash[:SURE], entry.tags["dataset_name"], confirm=True)
            say(f"nothing was changed; to remove them: `{command}`")
    return run.id


def _with_names(config: Config, store: Store, entry: Entry) -> Entry:
    """The entry with what its person is called in other data sets, kept before the lists that say so are cut."""
    trained = queries.find(store, {"stage": "train", "role": "seed"}, everywhere=True)
    others = {run.tags.get("dataset_name", "") for run in trained} - {entry.tags["dataset_name"], ""}
    entry = called_in_lists(store, entry, sorted(others))
    if config.store.confirm:
        keep_called(store, entry)
    return entry


def _erase(config: Config, search: Search, findings: Sequence[Finding], run: Run) -> None:
    """Remove what was found, search once more, and write the record. Raises `UserError` where something is left."""
    store, entry = search.store, search.entry
    own = [Run(store, run_id, "") for run_id in entry.run_ids]
    known = read_json(store, own[0].id, ERASURE) if ERASURE in list_files(store, own[0].id) else {}
    ended = "" if findings else known.get("finished_at", "")  # else a second look at what is erased
    record = _begin(own, entry, findings, known)
    for other in read_ledger(store).entries:
        if other.run_id != entry.run_id and all(search.runs[id_].is_own for id_ in other.run_ids if id_ in search.runs):
            add_said(store, other, cached(other))  # before the caches that know it go
    served = [name for name in entry.answers if registry.by_alias(store, name, UNLEARNED)]
    for finding in bar(findings, len(findings), "erasing"):
        finding.act()
    removal.compact(store)
    after = Search(store, entry, search.descent)
    left, finished_at = after.findings(), _now()
    remains = [*_unserved(store, served), *remaining(config.data, after)]
    record |= {
        "finished_at": ended or finished_at,
        "remains": [vars(part) for part in remains],
        "search_afterwards": {**after.searched, "found": [finding.row for finding in left]},
    }
    _write([*own, run], entry, record)
    if left:
        raise UserError(f"{counted(len(left), 'find')} left ({left[0].where}): is something else writing? run it again")
    for held in own:
        held.tags({"state": ERASED, "erased_at": finished_at})
    keep_file(store)
    searched = _counts(after.searched)
    say(f"erased request {entry.request}; searched afterwards: {searched}; found nothing but the ledger's entry")
    for part in remains:
        say(f"remains: {part.what}: {part.why}")
    say(f"record: {run.address(PAGE)}")


def _unserved(store: Store, served: Sequence[str]) -> list[Remaining]:
    """The models of which nothing is in service any more."""
    why = "the version in service had learned the recordings; the next request that is answered puts one there again"
    return [
        Remaining(f"no version behind {name}@{UNLEARNED}", why)
        for name in served
        if registry.by_alias(store, name, UNLEARNED) is None
    ]


def _chosen(config: Config, store: Store) -> Sequence[Entry]:
    """The entry that `request` names, or those of the people whom one command answered. Raises `UserError` where it
    names none or several."""
    asked, entries = config.store.request, read_ledger(store).entries
    if config.store.confirm and len(asked) < SURE:
        raise UserError(f"request={asked!r} is short to remove something: give {SURE} characters of the hash")
    matching = [entry for entry in entries if asked and (entry.hash.startswith(asked) or entry.asked.startswith(asked))]
    if config.data.dataset_name or len({entry.tags["dataset_name"] for entry in matching}) > 1:
        matching = [entry for entry in matching if entry.tags["dataset_name"] == config.data.label]
    if len({(entry.asked, entry.tags["dataset_name"]) for entry in matching}) != 1:
        listed = ", ".join(
            f"{entry.hash[:8]} ({entry.request}, {entry.state}, dataset_name={entry.tags['dataset_name']})"
            for entry in entries
        )
        of = f" with dataset_name={config.data.label!r}" if config.data.dataset_name else ""
        raise UserError(
            f"request={asked!r} names {len(matching)} answered requests{of} of this experiment: give the hash of "
            f"one: {listed or 'there is none, unlearn with register=best answers a request'}"
        )
    return matching


def _begin(runs: Sequence[Run], entry: Entry, findings: Sequence[Finding], known: Mapping[str, Any]) -> dict[str, Any]:
    """The record with everything found so far, by an interrupted erasure too, in the ledger before anything is done."""
    rows = [*known.get("found", []), *(finding.row for finding in findings)]
    found = list({json.dumps(row, sort_keys=True): row for row in rows}.values())
    for run in runs:
        run.csv(RECORDINGS, entry.recordings)  # with all that its people say, before any list of it is cut
        run.tags({"state": ERASING})
    record = {"started_at": known.get("started_at", _now()), "found": found}
    _write(runs, entry, record)
    return record


def _write(runs: Sequence[Run], entry: Entry, record: Mapping[str, Any]) -> None:
    about = {
        "contract_version": CONTRACT_VERSION,
        "request": entry.request,
        "request_hash": entry.hash,
        "dataset_name": entry.tags["dataset_name"],
        "n_recordings": len(entry.recordings),
        **record,
    }
    for run in runs:
        run.text(ERASURE, without_passwords(json.dumps(about, indent=1, ensure_ascii=False)))
        run.text(PAGE, _page(about))


def _page(record: Mapping[str, Any]) -> str:
    """The record for people."""
    done = "finished_at" in record
    begun = "started_at" in record
    title = f"Erasure of request {record['request']}"
    lines = [f"# {title}" if begun else f"# {title}: what would be done", "", f"request hash {record['request_hash']}, "
             f"{record['n_recordings']} recordings of {record['dataset_name']}"]  # fmt: skip
    if not begun:
        lines += ["", "**This is a listing, no record of an erasure: nothing was changed.**"]
    if done:
        lines += [f"started {record['started_at']}, finished {record['finished_at']}"]
    heading, verb = "Found", "to be " if begun else "would be "
    if done:
        heading, verb = "Removed, rewritten and retired", ""
    lines += ["", f"## {heading}", "", *(f"- {r['what']}, {r['where']}: {verb}{r['action']}" for r in record["found"])]
    if done:
        searched = record["search_afterwards"]
        counts = _counts({what: n for what, n in searched.items() if what != "found"})
        lines += ["", "## What remains, and why", "", *(f"- {r['what']}: {r['why']}" for r in record["remains"])]
        lines += ["", "## Search afterwards", "", f"{counts}; {len(searched['found'])} finds beside the ledger's entry"]
    return "\n".join(lines) + "\n"


def _tell(entry: Entry, findings: Sequence[Finding], confirmed: bool) -> None:
    """What was found, by kind, on the screen."""
    verb = "will be" if confirmed else "would be"
    say(f"request {entry.request} ({entry.hash[:8]}, {entry.state}): {counted(len(findings), 'find')}")
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.what, finding.action), []).append(finding.where)
    for (what, action), places in groups.items():
        listed = "; ".join(places[:SHOWN]) + ("; …" if len(places) > SHOWN else "")
        say(f"  {len(places)} x {what}: {verb} {action}: {listed}")


def _counts(searched: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in searched.items())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
