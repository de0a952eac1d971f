"""The report of one chosen cell, and the evidence record of one of its methods."""

from __future__ import annotations

import json

import pandas as pd

from audio_mu.config import BASE_FIELDS, REPAIR_FIELDS, Config
from audio_mu.config.commands import command
from audio_mu.config.recipe import OLDER
from audio_mu.errors import UserError
from audio_mu.names import BEST, NONE
from audio_mu.own_code import name_of
from audio_mu.progress import say
from audio_mu.report.choice import best_method, closest
from audio_mu.report.evidence import Choice
from audio_mu.requests.ledger import Answer, read_ledger
from audio_mu.store import queries, registry
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.workflows.cells import CellRuns, load_cell
from audio_mu.workflows.compare import compare
from audio_mu.workflows.gather import choice_of, compared_words, make_record, write_record
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
        answer = _answer(store, config, cell)
        in_service = None if answer is None else _in_service(store, config, cell, answer)
        method, choice = _recorded(cell, method_asked, in_service, long)
        after = answer.after if answer is not None and answer.method == method else {}
        record = make_record(store, config, cell, method, choice, {int(seed): v for seed, v in after.items()})
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


def _answer(store: Store, config: Config, cell: CellRuns) -> Answer | None:
    """How the cell has answered its request; None where it has not."""
    name = config.registered_model
    entries = read_ledger(store, config.data.label).of_model(name)
    return next((entry.answers[name] for entry in reversed(entries) if entry.answers[name].cell == cell.id), None)


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
