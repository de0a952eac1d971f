"""The command that has answered a request, run again."""

from __future__ import annotations

from collections.abc import Sequence, Set

from audio_mu.config import Config
from audio_mu.data.catalog import composed
from audio_mu.errors import UserError, first_of
from audio_mu.names import NONE
from audio_mu.requests.held_out import held_out
from audio_mu.requests.into_service import ROLE, STAGE, finish_interrupted
from audio_mu.requests.ledger import ANSWERED, Entry, read_ledger
from audio_mu.requests.named import Drawn
from audio_mu.store import queries, registry
from audio_mu.store.handle import Store
from audio_mu.store.runs import say_all
from audio_mu.system.hashing import hash_of


def asked_of(config: Config) -> str:
    """What a command was asked to register, whatever it was called by: `main` and `unlearn` ask alike."""
    given = {
        name: text
        for name, text in config.as_text().items()
        if (name, text) != ("labels", "") and name not in ("references", "references_by")
    }
    return hash_of([given, config.methods.register])  # as of versions that knew no labels and no references


def resumed(config: Config, store: Store) -> str | None:
    """The cell of this very command where it has answered its request already; None where there is work to do.

    An earlier one that was killed while its models went into service is finished first. Draws and lists are new
    requests: a draw is made among what is left, and a file may have new lines.
    """
    asked, name = asked_of(config), config.registered_model
    for tags in finish_interrupted(store):
        if tags.get("asked") == asked:
            say_all(f"request {tags['request']} is answered: its unlearned models are in service")
            return tags["cell"]
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
        if all(registry.by_number(store, name, version) for version in answer.after.values()):
            versions = ", ".join(f"seed {seed}: version {version}" for seed, version in answer.after.items())
            say_all(f"request {entry.tags['asked_request']} is answered ({name}, {versions}): there is nothing to do")
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
