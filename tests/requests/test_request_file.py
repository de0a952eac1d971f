"""Request files: entries and their line numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.requests.request_file import read_lines


def test_line_numbers_of_a_list(tmp_path: Path) -> None:
    """Catches numbers that send the user to another line."""
    path = tmp_path / "list.csv"
    path.write_text("clip_id,reason\na.wav,x\n\nb.wav,y\n,no id\n")
    assert [(line.number, line.entry) for line in read_lines(path)] == [(2, "a.wav"), (4, "b.wav"), (5, "")]
    path.write_text("a.wav\n\nb.wav\n")
    assert [(line.number, line.entry) for line in read_lines(path)] == [(1, "a.wav"), (3, "b.wav")]


@pytest.mark.parametrize("header", ["Speaker", " SPEAKER ", "Nr.;Speaker", '"Speaker "'])
def test_a_header_as_a_spreadsheet_writes_it(tmp_path: Path, header: str) -> None:
    """Catches a list of people that is taken for a list of ids, and a column that is lost by its capitals."""
    path = tmp_path / "list.csv"
    row = "1;Ann" if ";" in header else "Ann"
    path.write_text(f"{header}\n{row}\n")
    assert [(line.number, line.entry, line.of_person) for line in read_lines(path)] == [(2, "Ann", True)]
    path.write_text("Reason,PATH,Audio_Hash\nx,a.wav,12\n")
    assert [(line.entry, line.columns) for line in read_lines(path)] == [
        ("a.wav", {"Reason": "x", "path": "a.wav", "audio_hash": "12"})
    ]


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Catches a traceback for a spreadsheet given as the list."""
    (tmp_path / "list.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_lines(tmp_path / "list.xlsx")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,clip_id\nb/p2_01.wav,a/p3_01.wav\n", r"line 2: columns clip_id and id disagree, 'a/p3_01.wav'"),
        ("id,reason,path\na.wav,x,a.wav\n,x,b.wav\n", r"line 3: columns id and path disagree, '' and 'b.wav'"),
        ("ID;Id\na.wav;b.wav\n", "column id twice"),
        ("speaker,Speaker\nann,bob\n", "column speaker twice"),
    ],
)
def test_columns_that_name_different_recordings(tmp_path: Path, text: str, complaint: str) -> None:
    """Catches the wrong person's recording forgotten, because one of two columns wins without a word."""
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_lines(tmp_path / "list.csv")


def test_columns_that_name_one_recording(tmp_path: Path) -> None:
    """Catches a list refused because it has the whole path beside the id."""
    (tmp_path / "list.csv").write_text("id,path,clip_id\na/x.wav,/data/a/x.wav,./a/x.wav\n"
                                       "a/y.wav,y.wav,a/y.wav#0.0-1.5\n,,\n")  # fmt: skip
    assert [line.entry for line in read_lines(tmp_path / "list.csv")] == ["./a/x.wav", "a/y.wav#0.0-1.5"]
