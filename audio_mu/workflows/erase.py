"""Erase an answered request: everything in the store and the caches that holds or derives from its recordings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from audio_mu.config import Config
from audio_mu.config.reads import in_force
from audio_mu.erasure.descent import Lineage
from audio_mu.erasure.redact import Sought
from audio_mu.erasure.remains import remaining
from audio_mu.errors import UserError
from audio_mu.progress import bar, say
from audio_mu.requests.ledger import (
    ERASED,
    ERASING,
    NONMEMBERS,
    RECORDINGS,
    RETIRED,
    ROLE,
    STAGE,
    Entry,
    Ledger,
    read_ledger,
)
from audio_mu.store import registry, removal
from audio_mu.store.artifacts import list_files, read_json
from audio_mu.store.handle import Store
from audio_mu.store.registry import Version
from audio_mu.store.removal import AnyRun, Files
from audio_mu.store.runs import CONTRACT_VERSION, Run, open_run
from audio_mu.system.writing import cache_root, locked

RECORD, PAGE = "erasure.json", "erasure.md"
SHOWN, SURE = 3, 8
REMOVED, REWRITTEN, RETIRE = "removed", "rewritten without them", "removed, figures stay"


@dataclass(frozen=True)
class Finding:
    """Something that holds or derives from the recordings, and what becomes of it. It names none of them."""

    what: str
    where: str
    action: str
    act: Callable[[], None]

    @property
    def row(self) -> dict[str, str]:
        """As the record has it."""
        return {"what": self.what, "where": self.where, "action": self.action}


def erase(config: Config, store: Store) -> str:
    """List what holds or derives from an answered request's recordings; with `confirm=true` remove it.

    What is done is found from what is there, models first, then caches and artifacts, so that an interrupted erasure
    is finished by running it again and a finished one finds nothing. Returns the id of its run. Raises `UserError`
    where the ledger has no such request.
    """
    ledger = read_ledger(store)
    entry = _chosen(config, ledger)
    tags = {name: entry.tags[name] for name in ("dataset", "dataset_name", "request", "request_hash")}
    tags |= {"pipeline": entry.tags["pipeline"], "architecture": entry.tags["architecture"]}
    tags["confirmed"] = str(config.store.confirm).lower()
    with open_run(store, "erase", f"erase {entry.request}", tags, in_force(config, "erase"), config.as_text()) as run:
        erasure = Erasure(store, entry)
        findings = erasure.findings()
        _tell(entry, findings, config.store.confirm)
        if not config.store.confirm:
            _write([run], entry, {"found": [finding.row for finding in findings]})
            say(f"all of them: {run.address(PAGE)}")
            say(
                "nothing was changed; to remove them: "
                f"`mlflow run . -e erase -P request={entry.hash[:8]} -P confirm=true`"
            )
            return run.id
        own = Run(store, entry.run_id, "")
        record = _begin(store, own, entry, findings)
        for finding in bar(findings, len(findings), "erasing"):
            finding.act()
        removal.compact(store)
        after = Erasure(store, entry)
        # The lists that say what a model has seen are cut by now: who held the recordings was known before.
        after.lineage = erasure.lineage
        left = after.findings()
        record |= {
            "finished_at": _now(),
            "remains": [vars(part) for part in remaining(config, store, entry, after.runs, after.lineage)],
            "search_afterwards": {**after.searched, "found": [finding.row for finding in left]},
        }
        _write([own, run], entry, record)
        if left:
            raise UserError(f"{len(left)} finds are left ({left[0].where}): is something else writing? run it again")
        own.tags({"state": ERASED, "erased_at": record["finished_at"]})
        searched = ", ".join(f"{n} {what}" for what, n in after.searched.items())
        say(f"erased request {entry.request}; searched afterwards: {searched}; found nothing but the ledger's entry")
        for part in record["remains"]:
            say(f"remains: {part['what']}: {part['why']}")
        say(f"record: {run.address(PAGE)}")
    return run.id


def _chosen(config: Config, ledger: Ledger) -> Entry:
    """The entry that `request` names. Raises `UserError` where it names none or several."""
    asked = config.store.request
    if config.store.confirm and len(asked) < SURE:
        raise UserError(f"request={asked!r} is short to remove something: give {SURE} characters of the hash")
    matching = [entry for entry in ledger.entries if asked and entry.hash.startswith(asked)]
    if config.data.dataset_name or len(matching) > 1:
        matching = [entry for entry in matching if entry.tags["dataset_name"] == config.data.label]
    if len(matching) != 1:
        listed = ", ".join(
            f"{entry.hash[:8]} ({entry.request}, {entry.state}, dataset_name={entry.tags['dataset_name']})"
            for entry in ledger.entries
        )
        of = f" with dataset_name={config.data.label!r}" if config.data.dataset_name else ""
        raise UserError(
            f"request={asked!r} names {len(matching)} answered requests{of} of this experiment: give the hash of "
            f"one: {listed or 'there is none, unlearn with register=best answers a request'}"
        )
    return matching[0]


class Erasure:
    """Everything in the store and the caches that holds or derives from the recordings of one request."""

    def __init__(self, store: Store, entry: Entry) -> None:
        self.store, self.entry = store, entry
        self.runs = {run.id: run for run in removal.every_run(store)}
        self.lineage = Lineage(self.runs, entry)
        self.searched = {"runs": len(self.runs), "artifacts": 0, "feature caches": 0}
        self._by_id_and_hash, self._by_hash = Sought(entry.ids, entry.hashes), Sought(frozenset(), entry.hashes)
        answered = [run for answer in entry.answers.values() for run in answer.runs.values() if run in self.runs]
        self._data_dirs = {_data_dir(self.runs[run]) for run in answered} - {""}

    def findings(self) -> list[Finding]:
        """All of it, in the order in which it must go: what a model has seen is read from lists that go later."""
        return [*self._models(), *self._caches(), *self._artifacts(), *self._tags()]

    def _sought(self, run: AnyRun) -> Sought:
        """What to look for in a run: ids mean something among recordings of the same data set alone, hashes always."""
        own, tags = self.entry.tags, run.tags
        same = tags.get("dataset_name", own["dataset_name"]) == own["dataset_name"] or (
            tags.get("dataset") == own["dataset"] and _data_dir(run) in self._data_dirs
        )
        return self._by_id_and_hash if same else self._by_hash

    def _models(self) -> Iterator[Finding]:
        for run in self.runs.values():
            if not run.models or not self._sought(run).ids or not self.lineage.holds(run.id):
                continue
            versions = registry.versions_of(self.store, run.id, run.models)
            if (RETIRED in run.tags or not run.active) and not versions and not self._logged(run):
                continue
            attack = run.tags.get("stage") == "attack"
            named = "".join(f", {v.name} version {v.version}{self._aliases(v)}" for v in versions)
            what = "attack models" if attack else ("base model" if run.tags.get("stage") == "train" else "model")
            yield Finding(what, _named(run) + named, RETIRE if attack else REMOVED, partial(self._remove_models, run))

    def _remove_models(self, run: AnyRun) -> None:
        for version in registry.versions_of(self.store, run.id, run.models):
            removal.remove_version(self.store, version)
        for model in self._logged(run):
            removal.remove_model(self.store, model)
        if run.active:
            Run(self.store, run.id, run.name).tags({RETIRED: self.entry.hash})

    def _logged(self, run: AnyRun) -> list:
        found = (removal.logged_model(self.store, model_id) for model_id in sorted(run.models))
        return [model for model in found if model is not None]

    def _aliases(self, version: Version) -> str:
        return "".join(f" @{alias}" for alias in removal.aliases_of(self.store, version))

    def _caches(self) -> Iterator[Finding]:
        root = cache_root() / "features"
        for folder in sorted(root.glob("*")) if root.is_dir() else []:
            if not folder.is_dir():
                continue
            self.searched["feature caches"] += 1
            if _half_built(folder):
                what = "feature cache, half built"
            elif _cache_names(folder, self.entry.hashes, self.entry.ids):
                what = "feature cache"
            else:
                continue
            yield Finding(what, folder.name, REMOVED, partial(_remove_cache, folder))

    def _artifacts(self) -> Iterator[Finding]:
        for run in bar(self.runs.values(), len(self.runs), "runs searched"):
            files, sought = run.files, self._sought(run)
            is_entry = run.finished and (run.tags.get("stage"), run.tags.get("role")) == (STAGE, ROLE)
            for path in files.paths():
                self.searched["artifacts"] += 1
                if is_entry and path in (RECORDINGS, NONMEMBERS):  # who has which place in the split
                    continue
                change = sought.change(path, files.read(path))
                if change is None:
                    continue
                where = f"{_named(run, path)}: {change.cut}" if change.data is not None else _named(run, path)
                action = REMOVED if change.data is None else REWRITTEN
                yield Finding("artifact", where, action, partial(_rewrite, files, path, sought))
            for left in files.half_written():
                yield Finding("half-written artifact", _named(run), REMOVED, partial(left.unlink, missing_ok=True))

    def _tags(self) -> Iterator[Finding]:
        for run in self.runs.values():
            sought = self._sought(run)
            for key, value in run.tags.items():
                if run.active and sought.named_in(value):
                    change = partial(Run(self.store, run.id, run.name).tags, {key: sought.cut(value)})
                    yield Finding("tag", _named(run, key), REWRITTEN, change)


def _data_dir(run: AnyRun) -> str:
    """The folder that a run read, however it was written: a tag of stages, a parameter of all under `mlflow run`."""
    given = run.tags.get("data_dir") or run.params.get("data_dir", "")
    return str(Path(given).resolve()) if given else ""


def _named(run: AnyRun, path: str = "") -> str:
    return f"run {run.name} ({run.id[:8]})" + (f" {path}" if path else "")


def _rewrite(files: Files, path: str, sought: Sought) -> None:
    change = sought.change(path, files.read(path))
    if change is None:
        return
    if change.data is None:
        files.delete(path)
    else:
        files.write(path, change.data)


def _half_built(folder: Path) -> bool:
    """Whether a killed writer has left this: what it holds cannot be told."""
    return folder.name.startswith(".") or not (folder / "index.json").is_file()


def _cache_names(folder: Path, hashes: frozenset[str], ids: frozenset[str]) -> bool:
    """Whether a cache may hold one of the recordings: the audio, or by its id at another clip length.

    Of another data set whose ids are alike too: a cache that goes without need is built anew.
    """
    try:
        index = json.loads((folder / "index.json").read_text())
        return bool(hashes & set(index["hashes"]) or ids & {*index["ids"], *(row[0] for row in index["skipped"])})
    except (ValueError, KeyError, TypeError):
        return True  # unreadable: it would be built anew anyway


def _remove_cache(folder: Path) -> None:
    # A half-built one is named .<cache>.<random>.tmp; whoever builds it holds the cache's lock.
    name = folder.name.split(".")[1] if folder.name.startswith(".") else folder.name
    with locked(folder.with_name(name)):
        shutil.rmtree(folder, ignore_errors=True)  # the search afterwards tells what could not go


def _begin(store: Store, own: Run, entry: Entry, findings: Sequence[Finding]) -> dict[str, object]:
    """The record with everything found so far, by an interrupted erasure too, in the ledger before anything is done."""
    known = read_json(store, own.id, RECORD) if RECORD in list_files(store, own.id) else {}
    found = {json.dumps(row, sort_keys=True): row for row in known.get("found", [])}
    found |= {json.dumps(finding.row, sort_keys=True): finding.row for finding in findings}
    own.tags({"state": ERASING})
    record = {"started_at": known.get("started_at", _now()), "found": list(found.values())}
    _write([own], entry, record)
    return record


def _write(runs: Sequence[Run], entry: Entry, record: Mapping[str, object]) -> None:
    about = {
        "contract_version": CONTRACT_VERSION,
        "request": entry.request,
        "request_hash": entry.hash,
        "dataset_name": entry.tags["dataset_name"],
        "n_recordings": len(entry.recordings),
        **record,
    }
    for run in runs:
        run.text(RECORD, json.dumps(about, indent=1, ensure_ascii=False))
        run.text(PAGE, _page(about))


def _page(record: Mapping) -> str:
    """The record for people."""
    done = "finished_at" in record
    lines = [f"# Erasure of request {record['request']}", "", f"request hash {record['request_hash']}, "
             f"{record['n_recordings']} recordings of {record['dataset_name']}"]  # fmt: skip
    if done:
        lines += [f"started {record['started_at']}, finished {record['finished_at']}"]
    heading = "Removed, rewritten and retired" if done else "Found, to be removed, rewritten or retired"
    lines += ["", f"## {heading}", "", *(f"- {r['what']}, {r['where']}: {r['action']}" for r in record["found"])]
    if done:
        searched = record["search_afterwards"]
        counts = ", ".join(f"{n} {what}" for what, n in searched.items() if what != "found")
        lines += ["", "## What remains, and why", "", *(f"- {r['what']}: {r['why']}" for r in record["remains"])]
        lines += ["", "## Search afterwards", "", f"{counts}; {len(searched['found'])} finds beside the ledger's entry"]
    return "\n".join(lines) + "\n"


def _tell(entry: Entry, findings: Sequence[Finding], confirmed: bool) -> None:
    """What was found, by kind, on the screen."""
    verb = "will be" if confirmed else "would be"
    say(f"request {entry.request} ({entry.hash[:8]}, {entry.state}): {len(findings)} finds")
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.what, finding.action), []).append(finding.where)
    for (what, action), places in groups.items():
        listed = "; ".join(places[:SHOWN]) + ("; …" if len(places) > SHOWN else "")
        say(f"  {len(places)} x {what}: {verb} {action}: {listed}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
