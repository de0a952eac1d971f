"""Finding runs by their tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow.entities import Run as StoredRun

from audio_mu.store.handle import Store

PAGE = 1_000


@dataclass(frozen=True)
class Finished:
    """A finished run: its tags and last metrics."""

    id: str
    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    start_time: int


def _finished(run: StoredRun) -> Finished:
    return Finished(
        run.info.run_id, run.info.run_name, dict(run.data.tags), dict(run.data.metrics), run.info.start_time
    )


def find(store: Store, tags: Mapping[str, str], limit: int | None = None) -> list[Finished]:
    """Finished runs of the experiment that carry all these tags, the newest first."""
    condition = " and ".join(
        ["attributes.status = 'FINISHED'", *(f"tags.`{key}` = '{_quoted(value)}'" for key, value in tags.items())]
    )
    found: list[Finished] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id],
            condition,
            max_results=min(PAGE, limit or PAGE),
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found += [_finished(run) for run in page]
        store.artifact_roots.update((run.info.run_id, run.info.artifact_uri) for run in page)
        token = page.token
        if not token or (limit is not None and len(found) >= limit):
            return found[:limit]


def _quoted(value: str) -> str:
    return value.replace("'", "\\'")


def newest(store: Store, tags: Mapping[str, str]) -> Finished | None:
    """The newest finished run with these tags, or None."""
    return next(iter(find(store, tags, limit=1)), None)


def newest_by(runs: Iterable[Finished], *keys: str) -> dict[tuple[str, ...], Finished]:
    """Of runs ordered newest first, the first for each combination of these tags."""
    chosen: dict[tuple[str, ...], Finished] = {}
    for run in runs:
        chosen.setdefault(tuple(run.tags.get(key, "") for key in keys), run)
    return chosen
