"""The evidence record: what a reader without the program finds on its first page, and nothing twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from audio_mu.report.evidence import evidence
from audio_mu.report.facts import RequestFacts, figures_of
from audio_mu.report.record import (
    Record,
    Service,
    asked,
    compared,
    record_markdown,
    remains,
    render_record,
)
from audio_mu.report.rule import judge
from tests.browser import Browser
from tests.report.pages import HOSTILE, Parsed

SERVICE = Service("audio-mu.mine", {40: "1", 41: "2"}, {40: "3", 41: "4"}, "4", "2026-11-27 14:55 UTC")
A4_BETWEEN_MARGINS = 695  # pixels: 210 mm less two margins of 13 mm


def record_of(method: str, long: pd.DataFrame, request: RequestFacts) -> Record:
    """A record of an invented cell."""
    figures = {name: figures_of(long, name) for name in (method, "naive", "original")}
    params = {"forget": "speaker", "forget_speakers": "17"}
    facts = [
        ("Asked", [asked(params, request), f"By {HOSTILE}."]),
        ("In service", [SERVICE.words]),
        ("Compared", [compared(request, method, 5, has_naive=True, adopted=False)]),
        ("Remains", remains(SERVICE, {})),
    ]
    verdict = judge(method, figures[method], figures["original"])
    found = evidence(method, long, request)
    return Record(method, f"{method}, {HOSTILE}", found, verdict, facts, figures, [("run", HOSTILE)])


def test_names_are_text(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches a name that becomes an element, an attribute or a script of the record."""
    record = record_of("good", long, request_facts)
    parsed = Parsed(render_record(record))
    assert ("script" not in parsed.tags, "img" not in parsed.tags, parsed.handlers) == (True, True, [])
    assert "<script" not in re.sub(r"\\.", "", record_markdown(record))


def test_naive_is_not_shown_beside_itself(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches a column of the target that repeats the column of naive, and figures under another's heading."""
    own, other = (record_of(method, long, request_facts) for method in ("naive", "good"))
    assert own.headings == ["before", "after (retrained)"]
    assert dict(own.rows(first=True))["recognised of the recordings to forget"] == [
        "99.0 % [98.8, 99.2]",
        "90.0 % [89.8, 90.2]",
    ]
    assert [cell[:6] for cell in dict(other.rows(first=True))["recognised of the recordings to forget"]] == [
        "99.0 %",
        "90.0 %",
        "91.0 %",
    ]
    for record in (own, other):
        widths = {len(cells) for first in (True, False) for _, cells in record.rows(first)}
        assert widths == {len(record.headings)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "Version 4 of audio-mu.mine (seed 41), since 2026-11-27 14:55 UTC."),
        ({"served": "9"}, "From 2026-11-27 14:55 UTC versions seed 40: 3, seed 41: 4 of audio-mu.mine were in service; "
                          "now version 9, a later one, is there."),
        ({"served": ""}, "now none is there any more."),
        ({"after": {}}, "Nothing: the models of this record were not put into service."),
    ],
)  # fmt: skip
def test_what_is_in_service(changed: dict[str, object], words: str) -> None:
    """Catches a record that calls a replaced version the one in service."""
    assert replace(SERVICE, **changed).words.endswith(words)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"forget": "item", "forget_percentage": "10"}, "10 % of the training recordings, drawn by lot"),
        ({"forget": "class", "forget_class_names": "yes,no"}, "everything of class yes, no"),
        ({"forget": "class", "forget_classes_num": "2"}, "everything of 2 classes drawn by lot"),
        ({"forget": "speaker", "forget_speakers": "17"}, "everything of speaker 17"),
        ({"forget": "list", "forget_list": "/home/me/list.csv"}, "the recordings of a list"),
    ],
)
def test_what_was_asked(params: dict[str, str], words: str, request_facts: RequestFacts) -> None:
    """Catches a kind of request that has no words, or those of another one."""
    expected = f"To forget {words}: 144 recordings of the 1,440 that the model was trained on (request item-10, hash "
    assert asked(params, request_facts).startswith(expected)


def test_what_remains_before_and_after_an_erasure() -> None:
    """Catches a listing taken for an erasure, and a record that goes on about base models which are gone."""
    (before,) = remains(SERVICE, {"found": []})
    assert before.startswith("Not erased yet: the models before (versions seed 40: 1, seed 41: 2)")
    done = {
        "finished_at": "2026-11-28T09:30:00+00:00",
        "remains": [{"what": "backups", "why": "out of reach"}],
        "search_afterwards": {"runs": 12, "found": []},
    }
    assert remains(SERVICE, done) == [
        "Erased on 2026-11-28 09:30 UTC; searched afterwards: 12 runs; nothing left beside what is named here.",
        "backups: out of reach.",
    ]


def test_the_first_sheet_holds_what_its_readers_need(
    browser: Browser, long: pd.DataFrame, request_facts: RequestFacts, tmp_path: Path
) -> None:
    """Catches a column that is cut on paper, and an answer that begins on the second sheet."""
    page, sheet = tmp_path / "evidence.html", tmp_path / "evidence.pdf"
    page.write_text(render_record(record_of("good", long, request_facts)))
    browser.open(page.as_uri())
    browser.on_paper(A4_BETWEEN_MARGINS)
    ends = "return [...document.querySelectorAll('th, td, dd, li')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.script(ends)) <= A4_BETWEEN_MARGINS
    sheets = "return document.querySelector('.details').getBoundingClientRect().top / (696 / 184 * 273)"
    assert browser.script(sheets) < 1
    browser.on_paper(None)
    sheet.write_bytes(browser.printed())
    assert browser.problems() == []
    if shutil.which("pdftotext") is None:
        return
    text = subprocess.check_output(["pdftotext", "-layout", "-l", "1", str(sheet), "-"], text=True)
    words = " ".join(text.split())
    for expected in ("everything of speaker 17", "since 2026-11-27", "91.0 % [90.8, 91.2]", "no proof of deletion"):
        assert expected in words
