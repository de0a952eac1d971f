"""The report of one chosen cell, and the evidence record of one of its methods, put together from the store."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from audio_mu.audit.across_seeds import SEEDS_OF_ULIRA
from audio_mu.config import BASE_FIELDS, REPAIR_FIELDS, Config
from audio_mu.config.commands import command
from audio_mu.config.recipe import OLDER
from audio_mu.errors import UserError
from audio_mu.names import ADOPTED, BEST, EXACT, NAIVE, NONE, ORIGINAL, UNLEARNED
from audio_mu.own_code import name_of
from audio_mu.progress import say
from audio_mu.report.choice import best_method, candidates, closest
from audio_mu.report.evidence import Choice, evidence
from audio_mu.report.facts import figures_of
from audio_mu.report.record import (
    Record,
    Service,
    asked,
    by_seed,
    compared,
    moment,
    record_markdown,
    remains,
    render_record,
)
from audio_mu.report.rule import judge
from audio_mu.requests.ledger import ERASED, ERASURE, Answer, Entry, read_ledger
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import read_json
from audio_mu.store.failed import refuse_left_out
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import USER, Run
from audio_mu.workflows.cells import CellRuns, ComparedCell, compare_cell, load_cell
from audio_mu.workflows.compare import compare
from audio_mu.workflows.gather import provenance, request_facts
from audio_mu.workflows.stage import base_tags, stage_run

COPIES = ("duplicates", "copies")
"""Parameters of a request that choose a cell only where they are given."""


def report(config: Config, store: Store) -> str:
    """Write comparison and report of the newest cell of the configured request, and an evidence record.

    Needs no recordings. The record is of `register`'s method, of the only one in `methods`, of the one that has
    answered the request, or of the best one.
    Returns the run's id. Raises `UserError` where the store has no such cell.
    """
    cell = load_cell(store, choose_cell(config, store))
    method_asked = _method_asked(config, cell)
    with stage_run(store, None, "report", config, {"cell": cell.id, "request": cell.request}) as run:
        long = compare(config, store, run, cell.id)
        name, entry = config.registered_model, _entry(store, config, cell)
        answer = None if entry is None else entry.answers[name]
        in_service = None if answer is None else _in_service(store, config, cell, answer)
        method, choice = _recorded(cell, method_asked, in_service, long)
        service, erased = service_of(cell, method, name), {}
        if entry is not None and answer is not None and answer.method == method:
            served = registry.by_alias(store, name, UNLEARNED)
            after = {int(seed): version for seed, version in answer.after.items()}
            since = moment(entry.tags["answered_at"])
            service = service_of(cell, method, name, after, served.version if served else "", since)
        if entry is not None and entry.state == ERASED:
            erased = read_json(store, entry.run_id, ERASURE)
        record = make_record(store, cell, method, choice, service, erased)
        write_record(run, record)
        say(f"{record.evidence.headline}\nevidence record: {run.address('evidence.html')}")
    return run.id


def choose_cell(config: Config, store: Store) -> str:
    """The newest cell whose runs had the configured request, and every other setting that was given explicitly."""
    tags = {**base_tags(config), "stage": "unlearn", "role": "method"}
    newest = queries.newest_by(queries.find(store, tags), "cell")
    given = [name for name in (*BASE_FIELDS, *REPAIR_FIELDS, *COPIES) if name in config.given]
    wanted = config.as_text(name for name in config.request.in_force if name not in COPIES) | config.as_text(given)
    matching = [cell for (cell,), run in newest.items() if wanted.items() <= _settings(store, run).items()]
    if not matching:
        settings = ", ".join(f"{name}={value}" for name, value in wanted.items() if value)
        raise UserError(
            f"no finished unlearning of {config.registered_model} with {settings} in this experiment: run "
            f"`{command('unlearn')}` first"
        )
    if len(matching) > 1:
        say(f"{len(matching)} cells match: taking the newest, {matching[0]}; more parameters choose another one")
    return matching[0]


def _settings(store: Store, run: Finished) -> dict[str, str]:
    """The request and the recipes of a run's cell."""
    return OLDER | store.client.get_run(run.id).data.params | json.loads(run.tags["repair"])


def _method_asked(config: Config, cell: CellRuns) -> str | None:
    """The method that was named, or None. Raises `UserError` where the cell does not have it."""
    named = config.methods.register if config.methods.register not in (NONE, BEST) else None
    if named is None and len(config.methods.methods) == 1 and config.methods.methods[0] not in ("study", "all"):
        named = name_of(config.methods.methods[0])
    if named is not None and named not in cell.methods:
        raise UserError(f"{named!r} has no finished run in this cell: choose from {', '.join(cell.methods)}")
    return named


def _entry(store: Store, config: Config, cell: CellRuns) -> Entry | None:
    """The ledger's entry of the request that the cell has answered; None where it has not."""
    name = config.registered_model
    entries = read_ledger(store, config.data.label).of_model(name)
    return next((entry for entry in reversed(entries) if entry.answers[name].cell == cell.id), None)


def _in_service(store: Store, config: Config, cell: CellRuns, answer: Answer) -> tuple[str, Choice]:
    """The method that has answered the request, chosen as its versions say."""
    versions = (registry.of_run(store, config.registered_model, run) for run in answer.runs.values())
    compared = next((int(version.tags.get("compared", 1)) for version in versions if version is not None), 1)
    how = f"chosen as the best of {compared} on these figures" if compared > 1 else "asked for by name"
    words = f"{answer.method} has answered the request, {how}; {compared_words(cell)}."
    return answer.method, Choice(words, compared)


def _recorded(
    cell: CellRuns, asked: str | None, in_service: tuple[str, Choice] | None, long: pd.DataFrame
) -> tuple[str, Choice]:
    """The method that the record is of, and why."""
    if asked is not None:
        return asked, Choice(f"This record of {asked} was asked for by name; {compared_words(cell)}.")
    if in_service is not None:
        return in_service
    if (best := best_method(long, cell.methods)) is not None:
        return best, choice_of(BEST, cell, best)
    method = closest(long, cell.methods) or cell.methods[-1]
    return method, Choice(f"No method meets the rule as the best of those compared; {method} has the highest ToW.")


def service_of(
    cell: CellRuns, method: str, name: str, after: Mapping[int, str] | None = None, served: str = "", since: str = ""
) -> Service:
    """What of a method is in service: nothing without versions `after`; those that go there now without `since`."""
    before = {seed: run.tags["base_version"] for seed, run in cell.of(method).items()}
    return Service(name, before, after or {}, served, since or moment(1000 * time.time()))


def write_record(run: Run, record: Record) -> None:
    """Write an evidence record into a run as evidence.html and evidence.md."""
    run.text("evidence.html", render_record(record))
    run.text("evidence.md", record_markdown(record))


def choice_of(asked: str, cell: CellRuns, method: str) -> Choice:
    """How a method came to go into service: by its name, or as the best of those that were compared."""
    n = len(candidates(cell.methods))
    if asked == BEST and method in EXACT:
        return Choice(f"{method} was taken because it is retraining itself; {compared_words(cell)}.")
    if asked == BEST:
        words = (
            f"{method} was chosen on these figures, as the highest ToW of those that meet the rule among {n} compared; "
            f"each had to show that it has forgotten at 5 % divided by {n}."
        )
        return Choice(words, max(1, n))
    return Choice(f"{method} was asked for by name; {compared_words(cell)}.")


def compared_words(cell: CellRuns) -> str:
    """How many methods a cell has compared."""
    n = len(candidates(cell.methods))
    measure = "compared with naive" if NAIVE in cell.methods else "measured, without a naive to compare with,"
    return f"{n} {'method was' if n == 1 else 'methods were'} {measure} on these recordings"


def make_record(
    store: Store, cell: CellRuns, method: str, choice: Choice, service: Service,
    answered: Mapping[str, Any] | None = None,
) -> Record:  # fmt: skip
    """The evidence record of a method of a cell. Its audits across seeds are made here, from the stored logits.

    `answered`: what the request's erasure has written, nothing before it.
    """
    request = request_facts(store, cell)
    refuse_left_out(store, cell.runs, method, NAIVE, ORIGINAL)
    compared_cell = compare_cell(store, cell.only((method, NAIVE, ORIGINAL)))
    long, choice = compared_cell.long, replace(choice, left_out=_left_out(compared_cell))
    figures = {name: figures_of(long, name) for name in (method, NAIVE, ORIGINAL)}
    runs = cell.of(method)
    params = store.client.get_run(cell.any_run.id).data.params
    copies = request.copies or "copies were not looked for"
    return Record(
        method=method,
        title=f"{method}, {cell.title}",
        evidence=evidence(method, long, request, choice=choice),
        verdict=judge(method, figures[method], figures[ORIGINAL] or None, compared=choice.compared),
        facts=[
            ("Asked", [asked(params, request), _asked_by(store, cell)]),
            ("In service", [service.words, choice.words]),
            ("Searched", [f"{copies[0].upper()}{copies[1:]}."]),
            ("Compared", [compared(request, method, len(runs), bool(figures[NAIVE]), ADOPTED in runs[min(runs)].tags)]),
            ("Remains", remains(service, answered or {})),
        ],
        figures=figures,
        provenance=[
            ("request hash", request.hash),
            ("recordings", f"{request.n_forget} forgotten, {request.n_remain} kept"),
            ("model", service.name),
            ("versions before", by_seed(service.before)),
            ("versions after", by_seed(service.after) if service.after else "not registered"),
            ("runs", by_seed({seed: run.id for seed, run in runs.items()})),
            *provenance(cell, params),
        ],
    )


def _asked_by(store: Store, cell: CellRuns) -> str:
    """Whose command has unlearned the request, and when."""
    run = queries.run_of(store, cell.any_run.tags.get("mlflow.parentRunId", "")) or cell.any_run
    who, host = run.tags.get(USER, "a user whose name was not recorded"), run.tags.get("host", "")
    at = f" on {host}" if host else ""
    return f"By a command of {who}{at}, {moment(run.start_time)}; in whose name, no record of this program says."


def _left_out(cell: ComparedCell) -> list[str]:
    """What a record's audits lack, as sentences, and the commands that make it."""
    notes = [*([cell.erased] if cell.erased else []), *cell.audit.notes]
    lines = [f"{note[0].upper()}{note[1:]}." for note in notes]
    seeds, naive = cell.runs.seeds, cell.runs.of(NAIVE)
    if not naive:
        lines.append("A retrained model makes them: `-e unlearn` of the same request with naive among the methods.")
    elif len(naive) < SEEDS_OF_ULIRA:
        more = [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + SEEDS_OF_ULIRA - len(naive))]
        wanted = ",".join(map(str, more))
        new = more[len(seeds) :]
        files = ",".join(f"{seed}=FILE" for seed in new) if len(new) > 1 else f"FILE -P seeds={new[0]}"
        made = "`-e train`, "
        if ADOPTED in cell.runs.any_run.tags:
            made = f"further trainings of the same model, adopted with `-e adopt -P weights={files}`; then "
        lines.append(f"More seeds make them: {made}`-e attack` and `-e unlearn` with seeds={wanted}.")
    return lines
