"""The files below one address, on this machine or behind a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from audio_mu.store.faults import temporary_folder
from audio_mu.store.private import HALF_WRITTEN
from audio_mu.system.writing import write_atomic


class Files:
    """The artifacts below one address, as paths. Writing replaces a file as a whole."""

    def __init__(self, uri: str) -> None:
        self.uri, self._repository = uri, (repository := get_artifact_repository(uri))
        # None where they are not on this machine.
        self.folder = Path(repository.artifact_dir) if isinstance(repository, LocalArtifactRepository) else None

    def listed(self, folder: str | None = None) -> list[str]:
        """Paths of the files of one folder, or at the top."""
        return [entry.path for entry in self._entries(folder) if not entry.is_dir]

    def paths(self, folder: str | None = None) -> Iterator[str]:
        """Paths of all files, those in folders too."""
        for entry in self._entries(folder):
            if entry.is_dir:
                yield from self.paths(entry.path)
            else:
                yield entry.path

    def _entries(self, folder: str | None) -> list[FileInfo]:
        """What a folder holds; a link is no artifact, wherever it leads."""
        if folder and self._is_link(folder):
            return []
        return [entry for entry in self._repository.list_artifacts(folder) if not self._is_link(entry.path)]

    def _is_link(self, path: str) -> bool:
        return self.folder is not None and (self.folder / path).resolve() != self.folder.resolve() / path

    def links(self) -> list[Path]:
        """The links in the folder, none of which is followed."""
        if self.folder is None:
            return []
        return sorted(path for path in self.folder.rglob("*") if path.is_symlink())

    @contextmanager
    def opened(self, path: str) -> Iterator[Path]:
        """A file to be read on this machine: where it is, or a copy that is gone afterwards.

        Raises OSError for a link, wherever it leads.
        """
        if self._is_link(path):
            raise OSError(f"{path} is a link, and none is followed")
        if self.folder is not None:  # copies would take most of a comparison's reading
            yield Path(self._repository.download_artifacts(path))
        else:
            with temporary_folder() as folder:  # MLflow's own copy would stay behind
                yield Path(self._repository.download_artifacts(path, str(folder)))

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        with self.opened(path) as local:
            return local.read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all. Raises ValueError for a path that leads out of the folder."""
        if ".." in PurePosixPath(path).parts or path.startswith("/"):
            raise ValueError(f"{path!r} is no path below a run")
        if self.folder is not None:
            write_atomic(self.folder / path, data)
            return
        with temporary_folder() as folder:
            local = folder / Path(path).name
            local.write_bytes(data)
            parent = Path(path).parent.as_posix()
            self._repository.log_artifact(str(local), None if parent == "." else parent)

    def delete(self, path: str | None = None) -> None:
        """Delete a file, or everything."""
        self._repository.delete_artifacts(path)

    def half_written(self) -> list[Path]:
        """Files that a killed writer has left, which no listing shows; a store on another machine has its own."""
        return sorted(self.folder.rglob(f"{HALF_WRITTEN}*")) if self.folder is not None else []
