"""Whether the lists of an unlearned model are whole: it goes into service with them, and the ledger quotes them."""

from __future__ import annotations

import pandas as pd

from audio_mu.errors import UserError
from audio_mu.store.artifacts import read_csv, read_json, way_back
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.system.hashing import hash_of

REQUEST, PER_CLIP, AUDIT = "request.csv", "audit/per_clip.csv", "audit/audit.json"


def check_lists(store: Store, run: Finished) -> None:
    """Raise `UserError` where the run's lists are not those that it was made with.

    Counts are compared with its audit, the recordings of the request with the request's hash.
    """
    about, tag = read_json(store, run.id, AUDIT), run.tags["request_hash"]
    try:
        n_forget, n_beside = about["request"]["n_forget"], about["population_attack"]["n_nonmembers"]
        kind, hashes = about["request"]["kind"], {about["request"]["hash"], tag}
        table = read_csv(store, run.id, REQUEST, dtype=str)
        trained = table.get("trained", pd.Series("True", table.index)) == "True"  # the others were asked for as well
        named, others = (table.loc[rows, ["clip_id", "audio_hash"]].to_numpy().tolist() for rows in (trained, ~trained))
        measured = read_csv(store, run.id, PER_CLIP, dtype=str)
        roles = measured["role"]
        forgotten = measured.loc[roles == "forget", "clip_id"].tolist()
        n_measured = int((roles == "nonmember").sum())
    except (KeyError, TypeError) as error:
        raise _broken(store, run, f"one of {REQUEST}, {PER_CLIP}, {AUDIT} lacks {error}") from None
    if len(named) != n_forget:
        raise _broken(store, run, f"{REQUEST} has {len(named)} of {n_forget} recordings")
    if {hash_of([kind, named, *([others] if others else [])])} != hashes:  # as `resolve_request` has made it
        raise _broken(store, run, f"the recordings of {REQUEST} are not those of request_hash={tag[:8]}")
    if sorted(forgotten) != sorted(id_ for id_, _ in named) or n_measured != n_beside:
        raise _broken(
            store,
            run,
            f"{PER_CLIP} has {len(forgotten)} of {n_forget} recordings and {n_measured} of {n_beside} non-members",
        )


def _broken(store: Store, run: Finished, problem: str) -> UserError:
    of = f"run {run.name}, {run.id[:8]}"
    return UserError(f"register: {problem} ({of}): {way_back(store.client, run.id)}")
