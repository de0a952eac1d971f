"""Imports point downwards only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.imports import imported

ROOT = Path(__file__).resolve().parents[1]
LEVELS = [
    {"config", "seeding", "files", "processes", "errors", "progress", "own_code", "method_names", "cosine_curve"},
    {"data"},
    {"models"},
    {"request", "training"},
    {"unlearning", "audit"},
    {"store", "report"},
    {"workflows"},
    {"api"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FORBIDDEN = {"unlearning": {"audit", "data", "store"}, "audit": {"unlearning", "data", "store"}, "training": {"data"}}
MODULES = sorted((ROOT / "audio_mu").rglob("*.py"))


def part(module: str) -> str | None:
    """The part of the package that a module belongs to."""
    words = module.split(".")
    return words[1] if words[0] == "audio_mu" and len(words) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_downwards(path: Path) -> None:
    """Catches a layer that reaches up, sideways between methods and audits, or around the store to MLflow."""
    own = path.relative_to(ROOT / "audio_mu").parts[0].removesuffix(".py")
    names = imported(path)
    if own != "store":
        assert not {name for name in names if name.split(".")[0] == "mlflow"}
    if own == "__init__":
        return
    for name in names:
        target = part(name)
        if target is not None and target != own:
            assert LEVEL[target] <= LEVEL[own], f"{own} imports {target}"
            assert target not in FORBIDDEN.get(own, set()), f"{own} imports {target}"
