"""The evidence record of one method as a page: what was asked, what is in service, what was compared, what remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audio_mu.errors import counted, first_of
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.report.evidence import RECORD_ROWS, Evidence
from audio_mu.report.facts import Figures, RequestFacts
from audio_mu.report.pages import environment
from audio_mu.report.rule import RULE, Verdict

FIRST_ROWS = ("forget/accuracy", "remain/accuracy", "test/accuracy", "held_out/accuracy", "mia/auc", "audit/rmia_auc")
"""Metrics of the first table, for a reader who is no engineer; the others follow in the details."""
SHOWN_NAMES = 8


@dataclass(frozen=True)
class Service:
    """What of a record's method is in service.

    name: registered model. before, after: seed → version. served: the version behind the alias `unlearned`, empty for
    none. since: when this method's versions went into service.
    """

    name: str
    before: Mapping[int, str]
    after: Mapping[int, str] = field(default_factory=dict)
    served: str = ""
    since: str = ""

    @property
    def words(self) -> str:
        """Which version is in service since when, as a sentence."""
        if not self.after:
            return "Nothing: the models of this record were not put into service."
        own = {version: seed for seed, version in self.after.items()}
        if self.served in own:
            return f"Version {self.served} of {self.name} (seed {own[self.served]}), since {self.since}."
        now = f"version {self.served}, a later one, is there" if self.served else "none is there any more"
        return f"From {self.since} versions {by_seed(self.after)} of {self.name} were in service; now {now}."


@dataclass(frozen=True)
class Record:
    """Everything on the evidence record of one method. facts: heading, sentences. figures: of each method, by name."""

    method: str
    title: str
    evidence: Evidence
    verdict: Verdict
    facts: Sequence[tuple[str, Sequence[str]]]
    figures: Mapping[str, Figures]
    provenance: Sequence[tuple[str, str]]

    @property
    def seeds(self) -> int:
        """Over how many seeds its figures are means."""
        return max((figure.n for figure in self.figures[self.method].values()), default=0)

    @property
    def headings(self) -> list[str]:
        """Of the tables' columns; naive is its own target."""
        return ["before", "after (retrained)"] if self.method == NAIVE else ["before", "retrained (target)", "after"]

    def rows(self, first: bool) -> list[tuple[str, list[str]]]:
        """The rows of the first table, or those of the details: what was measured, and its figures."""
        shown = list(dict.fromkeys((ORIGINAL, NAIVE, self.method)))
        known = {metric: of for metric, of in RECORD_ROWS.items() if metric in self.figures[self.method]}
        return [
            (name, [written(self.figures[of][metric]) if metric in self.figures[of] else "–" for of in shown])
            for metric, (name, written) in known.items()
            if (metric in FIRST_ROWS) is first
        ]


def by_seed(values: Mapping[int, str]) -> str:
    """Values of each seed in words."""
    return ", ".join(f"seed {seed}: {value}" for seed, value in sorted(values.items()))


def moment(when: str | float) -> str:
    """A time as people read it: of an ISO text, or of milliseconds since 1970."""
    at = datetime.fromisoformat(when) if isinstance(when, str) else datetime.fromtimestamp(when / 1000, UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def asked(params: Mapping[str, str], request: RequestFacts) -> str:
    """What was asked to be forgotten, in words. params: of a run that answered it."""

    def named(parameter: str, of: str, drawn: str) -> str:
        names = [name for name in params.get(parameter, "").split(",") if name]
        return f"everything of {of} {first_of(names, SHOWN_NAMES)}" if names else f"everything of {drawn} drawn by lot"

    words = {
        "item": f"{params.get('forget_percentage')} % of the training recordings, drawn by lot",
        "class": named("forget_class_names", "class", counted(int(params.get("forget_classes_num", 1)), "class")),
        "speaker": named("forget_speakers", "speaker", counted(int(params.get("forget_speakers_num", 1)), "speaker")),
        "list": "the recordings of a list",
    }[params["forget"]]
    return (
        f"To forget {words}: {counted(request.n_forget, 'recording')} of the {request.n_forget + request.n_remain:,} "
        f"that the model was trained on (request {request.name}, hash {request.hash[:8]})."
    )


def compared(request: RequestFacts, method: str, seeds: int, has_naive: bool, adopted: bool) -> str:
    """What was compared with what."""
    elsewhere = " (trained elsewhere, and adopted)" if adopted else ""
    many = f"{seeds} models each" if adopted else f"each trained {seeds} times from different random seeds"
    each = "one model each, of one seed" if seeds == 1 else many
    with_naive = " and with one retrained without the recordings (naive)" if has_naive and method != NAIVE else ""
    return (
        f"The model {'retrained without the recordings' if method == NAIVE else f'unlearned by {method}'} with the one "
        f"before{elsewhere}{with_naive}, {each}: their answers on the "
        f"{request.n_forget:,} recordings to forget, the {request.n_remain:,} others that were trained on and "
        f"{request.n_test:,} that never were, and attacks that try to tell forgotten from unseen recordings."
    )


def remains(service: Service, erased: Mapping[str, Any]) -> list[str]:
    """What is left of the recordings, before an erasure or after it. erased: the record of it, or nothing."""
    if "finished_at" not in erased:
        return [
            f"Not erased yet: the models before (versions {by_seed(service.before)}), which have learnt them, the "
            "recordings themselves and what was made of them stay until the command erase has removed them. What it "
            "lists without confirm=true is no record of an erasure."
        ]
    searched = erased["search_afterwards"]
    counts = ", ".join(f"{n} {what}" for what, n in searched.items() if what != "found")
    found = counted(len(searched["found"]), "find") if searched["found"] else "nothing"
    when = moment(erased["finished_at"])
    return [
        f"Erased on {when}; searched afterwards: {counts}; {found} left beside what is named here.",
        *(f"{part['what']}: {part['why']}." for part in erased["remains"]),
    ]


def render_record(record: Record) -> str:
    """The evidence record as one HTML page."""
    return environment().get_template("evidence.html.j2").render(record=record, rule=RULE.text)


def record_markdown(record: Record) -> str:
    """The evidence record as Markdown; what comes from files or users is escaped."""
    lines = [f"# Evidence record: {_plain(record.title)}", "", f"**{_plain(record.evidence.headline)}**", ""]
    for heading, sentences in record.facts:
        lines += [f"- **{heading}.** {_plain(' '.join(sentences))}"]
    lines += ["", *_table(record, first=True)]
    lines += ["", "## What it does not show", "", *(f"- {_plain(line)}" for line in record.evidence.does_not_show)]
    lines += ["", "## In detail", "", *(f"- {_plain(sentence)}" for sentence in record.evidence.shows)]
    lines += [f"- Rule: {RULE.text}.", "", *_table(record, first=False)]
    lines += ["", "## Provenance", "", "| | |", "|---|---|"]
    lines += [f"| {_plain(name)} | {_plain(value)} |" for name, value in record.provenance]
    return "\n".join(lines) + "\n"


def _table(record: Record, first: bool) -> list[str]:
    columns = ["", *record.headings]
    rows = [[name, *cells] for name, cells in record.rows(first)]
    return ["| " + " | ".join(map(_plain, row)) + " |" for row in (columns, ["---"] * len(columns), *rows)]


def _plain(text: str) -> str:
    for character in "\\`*<>|[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
