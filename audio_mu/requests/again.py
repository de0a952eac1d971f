"""The command that has answered a request, run again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence, Set

from audio_mu.config import BASE_FIELDS, PARAMETERS, Config
from audio_mu.config.recipe import OLDER
from audio_mu.data.catalog import composed
from audio_mu.errors import UserError, first_of
from audio_mu.names import NONE
from audio_mu.requests.held_out import held_out
from audio_mu.requests.into_service import ROLE, STAGE, finish_interrupted
from audio_mu.requests.ledger import ANSWERED, Entry, read_ledger
from audio_mu.requests.named import Drawn
from audio_mu.store import queries, registry
from audio_mu.store.handle import Store
from audio_mu.store.registry import Version
from audio_mu.store.runs import say_all
from audio_mu.system.hashing import hash_of

ASKED = (
    "dataset", "dataset_name", "data_dir", "pipeline", "bad_files", "speaker_pattern", "architecture", "seeds",
    "forget", "forget_percentage", "forget_classes_num", "forget_class_names", "forget_speakers_num", "forget_speakers",
    "forget_list", "forget_seed", "duplicates", "copies", "n_epoch_impair", "n_epoch_repair", "impair_learning_rate",
    "repair_learning_rate", "methods", "method_config", "register", "ledger",
)  # fmt: skip
"""Parameters that tell the commands of two answers apart, in every entry's hash: no name is ever added here."""
ASKED_SINCE = ("labels",)
"""Those that came later: at their default they are in no hash, so that earlier answers are still known by theirs."""
NOT_ASKED = (
    "weights", "trained_on", "n_attack_models", "attack_feature", "references", "references_by", "n_trials",
    "deep_audits", "robust_audits", "save_models", "device", "threads", "workers", "engine", "task_minutes", "request",
    "confirm", "force",
)  # fmt: skip
"""Those with which the same command asks for the same: of machine, audits and other entry points."""


def asked_of(config: Config) -> str:
    """What a command was asked to register, as a hash, whatever it was called by: `main` and `unlearn` ask alike.

    The parameters of base models have no part in it: `unlearn` takes from the version what it was not given.
    """
    given = config.as_text((*ASKED, *ASKED_SINCE))
    return hash_of({name: text for name, text in given.items() if name in ASKED or text != PARAMETERS[name].text})


def _of_recipe(config: Config, versions: Iterable[Version | None]) -> bool:
    """Whether an answer's models were trained with every parameter of base models that was given."""
    given = config.as_text(config.given & {*BASE_FIELDS})
    recipes = [OLDER | json.loads(found.tags.get("recipe", "{}")) for found in versions if found is not None]
    return all(recipe.get(name, text) == text for recipe in recipes for name, text in given.items())


def resumed(config: Config, store: Store) -> str | None:
    """The cell of this very command where it has answered its request already; None where there is work to do.

    An earlier one that was killed while its models went into service is finished first. Draws and lists are new
    requests: a draw is made among what is left, and a file may have new lines.
    """
    asked, name = asked_of(config), config.registered_model
    for tags in finish_interrupted(store):
        numbers = json.loads(tags.get("versions_after", "{}")).values()
        versions = [registry.by_number(store, name, number) for number in numbers]  # none: never trained on
        if tags.get("asked") == asked and _of_recipe(config, versions):
            served = ": its unlearned models are in service" if versions else " (never trained on)"
            say_all(f"request {tags['request']} is answered{served}")
            return tags.get("cell", "")
    named = config.request.forget_speakers or config.request.forget_class_names
    if not named or config.methods.register == NONE or config.store.force:
        return None
    tags = {"stage": STAGE, "role": ROLE, "asked": asked}
    if not queries.find(store, tags, everywhere=True):  # before the whole ledger is read
        return None
    for entry in read_ledger(store, config.data.label).entries:
        if entry.state != ANSWERED or entry.tags.get("asked") != asked:
            continue
        if not entry.answers:
            say_all(f"request {entry.tags['asked_request']} is answered (never trained on): there is nothing to do")
            return ""
        if (answer := entry.answers.get(name)) is None:
            continue
        versions = [registry.by_number(store, name, version) for version in answer.after.values()]
        if all(versions) and _of_recipe(config, versions):
            served = ", ".join(f"seed {seed}: version {version}" for seed, version in answer.after.items())
            say_all(f"request {entry.tags['asked_request']} is answered ({name}, {served}): there is nothing to do")
            return answer.cell
    return None


def refuse_answered(config: Config, entries: Sequence[Entry], drawn: Drawn | None, ids: Set[str]) -> None:
    """Raise `UserError` where a request names people, classes or recordings that are answered already.

    entries: in the ledger's order, those that another command may have answered with other parameters. drawn, ids: what
    a request means of which nothing was trained on, if it came so far, and its clips. The way out is said: nothing is
    left to do, or whom to leave out.
    """
    request = config.request
    people = {composed(name): name for name in (*request.forget_speakers, *(drawn.people if drawn else ()))}
    classes = {*request.forget_class_names}
    own = {entry.hash: entry.ids | {*held_out(entry)["clip_id"]} for entry in entries}
    listed = ids if not people and ids and ids <= frozenset().union(*own.values()) else frozenset[str]()
    removed = {entry.hash: entry.classes & classes for entry in entries if not entry.is_elsewhere(config.data.label)}
    found = [e for e in entries if e.speakers & people.keys() or removed.get(e.hash) or own[e.hash] & listed]
    if not found:
        return
    answered = frozenset().union(*(entry.speakers | entry.classes for entry in found))
    named = sorted([name for key, name in people.items() if key in answered] + list(classes & answered))
    left = [name for name in (*people, *classes) if name not in answered]
    end = f"leave {'it' if len(named) == 1 else 'them'} out" if left else "there is nothing to do"
    what = f"{first_of(named)} {'is' if len(named) == 1 else 'are'}" if named else f"forget={request.forget!r} is"
    raise UserError(f"{what} answered already: {'; '.join(_told(entry, entries) for entry in found)}: {end}")


def _told(entry: Entry, entries: Sequence[Entry]) -> str:
    """Which answered request that was, when, and what is in service since."""
    newest = {name: answer for other in entries for name, answer in other.answers.items() if name in entry.answers}
    served = [
        f"{name} {', '.join(f'seed {seed}: version {version}' for seed, version in answer.after.items())}"
        for name, answer in newest.items()
    ]
    since = f"its versions in service are {' and '.join(served)}" if served else "no model had learnt anything of it"
    erased = ", erased since" if entry.gone else ""
    return f"request {entry.request}, {entry.hash[:8]}, on {entry.tags['answered_at'][:10]}{erased}; {since}"
