"""A project's folder that was moved or copied: its database names the artifacts' folders by their old, whole paths.

    python -m audio_mu.store.moved mlflow.db

has the database name the folders beside it, after a copy of it was made.
"""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from audio_mu.errors import UserError, counted
from audio_mu.progress import complain, say
from audio_mu.store.queries import PAGE, every
from audio_mu.system.writing import locked

FILE = "file://"
BACKUP = ".before-move"
ADDRESSES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
"""Where MLflow's database has whole paths of artifacts."""


def refuse_moved(client: MlflowClient, database: Path) -> None:
    """Raise `UserError` where the artifacts lie beside the database and are recorded elsewhere.

    Whatever is written would go into the old folder, made anew, or into that of the original.
    """
    for experiment in every(client.search_experiments, view_type=ViewType.ALL, max_results=PAGE):
        location = experiment.artifact_location
        if (beside := _beside(database, location)) is None or not _holds_run(client, beside, location):
            continue
        original = Path(location.removeprefix(FILE))
        command = f"python -m audio_mu.store.moved {shlex.quote(str(database))}"
        why = "was copied, and would write into the original's folder" if original.is_dir() else "was moved"
        raise UserError(
            f"this project {why}: its files lie in {str(beside)!r}, the database names {str(original)!r}: put the "
            f"folder back, or run `{command}`, which has the database name the new folder and keeps a copy of it"
        )


def _beside(database: Path, location: str) -> Path | None:
    """The folder beside the database that an artifact location has become; None where it is where it says."""
    if not location.startswith(("/", FILE)):
        return None  # no folder of this machine
    recorded, top = Path(location.removeprefix(FILE)), database.parent
    if recorded.resolve().is_relative_to(top.resolve()):
        return None
    ends = (Path(*recorded.parts[start:]) for start in range(1, len(recorded.parts)))
    found = next((top / end for end in ends if (top / end).is_dir()), None)
    return None if found is None or found.resolve() == recorded.resolve() else found


def _holds_run(client: MlflowClient, folder: Path, location: str) -> bool:
    """Whether a folder has the files of a run that the store knows at the recorded location."""
    return any(_is_run(client, path.name, location) for path in _run_folders(folder))


def _run_folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if len(path.name) == 32 and path.is_dir())


def _is_run(client: MlflowClient, run_id: str, location: str) -> bool:
    try:
        return client.get_run(run_id).info.artifact_uri.startswith(f"{location}/{run_id}")
    except MlflowException:
        return False


def follow(database: Path) -> int:
    """Have a database name the folders beside it; return how many addresses were changed.

    All or none in one transaction; before it the database is copied to `<name>.before-move`. Raises `UserError` where
    nothing was moved.
    """
    with locked(database), closing(sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True)) as connection:
        moves = _moves(database, [row[0] for row in connection.execute("select artifact_location from experiments")])
        if not moves:
            raise UserError(f"{str(database)!r}: no folder of artifacts beside it that it names elsewhere")
        with closing(sqlite3.connect(database.with_name(database.name + BACKUP))) as backup:
            connection.backup(backup)
        with connection:
            changed = 0
            for table, column in ADDRESSES:
                for old, new in moves.items():
                    changed += connection.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or "
                        f"substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    ).rowcount
    return changed


def _moves(database: Path, locations: list[str]) -> Mapping[str, str]:
    """Old → new artifact locations, of experiments without any files too."""
    moves: dict[str, str] = {}
    for location in locations:
        if (beside := _beside(database, location)) is not None:
            scheme = FILE if location.startswith(FILE) else ""
            end = str(beside.relative_to(database.parent))
            old, new = location.removesuffix(f"/{end}"), f"{scheme}{database.parent}"
            moves |= {other: new + other.removeprefix(old) for other in locations if other.startswith(f"{old}/")}
    return moves


def main(arguments: list[str]) -> int:
    """`python -m audio_mu.store.moved <database>`; return the exit code."""
    try:
        if len(arguments) != 1 or not Path(arguments[0]).is_file():
            raise UserError("give the file of the database: python -m audio_mu.store.moved mlflow.db")
        database = Path(arguments[0]).resolve()
        changed = counted(follow(database), "address")
        say(
            f"{database} names the folders beside it ({changed}); as it was: {database.name}{BACKUP}, delete it when "
            "all is well"
        )
    except (UserError, sqlite3.Error) as error:
        complain(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
