"""The command that has answered a request, run again."""

from __future__ import annotations

from audio_mu.config import Config
from audio_mu.names import NONE
from audio_mu.requests.ledger import ANSWERED, ROLE, STAGE, finish_interrupted, read_ledger
from audio_mu.store import queries, registry
from audio_mu.store.handle import Store
from audio_mu.store.runs import say_all
from audio_mu.system.hashing import hash_of


def asked_of(config: Config) -> str:
    """What a command was asked to register, whatever it was called by: `main` and `unlearn` ask alike."""
    given = {name: text for name, text in config.as_text().items() if (name, text) != ("labels", "")}
    return hash_of([given, config.methods.register])  # as of versions that knew no labels


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
