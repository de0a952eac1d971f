"""How the pages are rendered: every name from a store or a folder is text, and shown as it may be shown."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audio_mu.printable import printable
from audio_mu.report.facts import percent


def _shown(value: object) -> object:
    """What a template writes: no text of a store or a folder reaches a page but as it may be shown."""
    if isinstance(value, Markup):
        return Markup(printable(value))  # escaped already
    return printable(value) if isinstance(value, str) else value


def environment() -> Environment:
    """The templates of `templates/`, with every value escaped."""
    found = Environment(
        loader=PackageLoader("audio_mu.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    found.filters["percent"] = percent
    found.filters["printable"] = printable
    return found
