"""The plan of rooms: imports point strictly downwards, no circle over files, nothing too large to read at once."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.imports import imported

LEVELS = (
    "printable", "errors", "names", "cosine_curve", "progress", "seeding", "system", "own_code", "config", "data",
    "models", "optimizer", "training", "sharding", "unlearning", "store", "requests", "audit", "compute", "report",
    "erasure", "base_models", "workflows", "api", "ask", "cli", "__main__",
)  # fmt: skip
"""The parts of the package, the lowest first: a part imports those before it alone."""
FORBIDDEN = {
    "unlearning": {"audit", "data", "store"},
    "audit": {"unlearning", "data", "store"},
    "training": {"data"},
    "sharding": {"data"},
}
WITHOUT_TORCH = ("printable", "errors", "names", "cosine_curve", "progress", "system", "own_code", "config", "cli")
"""Parts that a wrong parameter, --help or a comparison reads: none of them waits for torch."""
PACKAGE = ROOT / "audio_mu"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, MOST_WORKFLOWS = 350, 50, 20


def named(path: Path) -> str:
    """The name of a file's module, and the test's id."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {named(path) for path in MODULES}


def part(module: str) -> str | None:
    """The part of the package that a module belongs to."""
    words = module.split(".")
    return words[1] if words[0] == "audio_mu" and len(words) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_downwards(path: Path) -> None:
    """Catches a part that reaches up or sideways, between methods and audits, or around the store to MLflow."""
    own, names = part(named(path)), imported(path)
    if own != "store":
        assert not {name for name in names if name.split(".")[0] == "mlflow"}
    if own in WITHOUT_TORCH:
        assert not {name for name in names if name.split(".")[0] in ("torch", "torchaudio")}
    for name in names & NAMES:
        target = part(name)
        if own is None or target is None or target == own:
            continue
        assert LEVELS.index(target) < LEVELS.index(own), f"{own} imports {target}"
        assert target not in FORBIDDEN.get(own, set()), f"{own} imports {target}"


def test_no_circle_over_files() -> None:
    """Catches two files that need each other, type-checking imports and imports within functions among them."""
    graph = {named(path): (imported(path) & NAMES) - {named(path), named(path.parent)} for path in MODULES}
    # `from package import sibling` names the package as well, whose __init__ is being read at that moment.
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_files_and_functions_can_be_read_at_once(path: Path) -> None:
    """Catches a file or a function that has grown beyond what one looks through."""
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, node.name


def test_workflows_hold_commands_and_what_only_they_share() -> None:
    """Catches a workflows/ that becomes the drawer for everything again."""
    assert len(list((PACKAGE / "workflows").glob("*.py"))) <= MOST_WORKFLOWS


def test_the_plan_of_rooms_names_every_file() -> None:
    """Catches a file that a newcomer does not find in docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = [named(path) for path in MODULES if path.stem != "__init__" and f"{path.stem}.py" not in page]
    assert missing == []
