"""Traces of recordings in files: what names them is cut, everything else stays to the last byte."""

from __future__ import annotations

import io

import numpy as np
import pytest
from jinja2 import Environment

from audio_mu.erasure.redact import Sought
from audio_mu.system.hashing import sha256

HASH = "ab" * 32
SOUGHT = Sought(frozenset({"01/1_01_0.wav", "b/ü &.wav"}), frozenset({HASH}))


def test_rows_of_a_table_go_and_the_others_keep_every_byte() -> None:
    """Catches numbers written anew, a quoted cell with a line break torn apart, and a row that names a copy's audio."""
    lines = [
        "clip_id,label,loss,reason\n",
        "01/1_01_0.wav,1,0.1,\n",
        '01/1_01_1.wav,1,0.10000000000000001,"two\nlines"\n',
        "x/01/1_01_0.wav.wav,1,1e-07,\n",
        f"02/1_02_0.wav,1,2.50,{HASH}\n",
        '03/1_03_0.wav,1,3,"a copy of 01/1_01_0.wav, they say"\n',
        "03/1_03_1.wav,1,3,",
    ]
    change = SOUGHT.change("losses/forget.csv", "".join(lines).encode())
    assert change is not None and change.data is not None
    assert change.data.decode() == "".join(lines[i] for i in (0, 2, 6))
    assert change.cut == 4
    assert SOUGHT.change("losses/forget.csv", change.data) is None


def test_rows_of_arrays_go_with_their_logits() -> None:
    """Catches logits left behind without their names, rows out of order, and types that change."""
    ids = np.array(["01/1_01_1.wav", "01/1_01_0.wav", "02/2_02_2.wav"])
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, clip_id=ids, logits=logits, label=np.array([4, 5, 6]), other=np.arange(2))
    change = SOUGHT.change("logits/test.npz", buffer.getvalue())
    assert change is not None and change.data is not None
    with np.load(io.BytesIO(change.data), allow_pickle=False) as content:
        assert content["clip_id"].tolist() == [ids[0], ids[2]]
        assert content["clip_id"].dtype == ids.dtype
        np.testing.assert_array_equal(content["logits"], logits[[0, 2]])
        assert content["logits"].dtype == np.float32
        assert content["label"].tolist() == [4, 6]
        assert content["other"].tolist() == [0, 1]
    assert change.cut == 1
    assert SOUGHT.change("logits/test.npz", change.data) is None


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("notes.md", "first\nhear /data/01/1_01_0.wav.\nlast", "first\nlast"),
        ("notes.txt", "only other/x01/1_01_0.wav2 and 1_01_0.wav\n", "same"),
        ("report.html", "<td>b/ü &amp;.wav</td>", None),
        ("list.json", '["b/\\u00fc &.wav"]', None),
        ("any.yaml", "path: b/%C3%BC%20%26.wav\nkept: 1\n", "kept: 1\n"),
    ],
)
def test_other_text(path: str, text: str, expected: str | None) -> None:
    """Catches an id that a page or an address writes differently, and another id that merely contains this one."""
    change = SOUGHT.change(path, text.encode())
    if expected == "same":
        assert change is None
    else:
        assert change is not None
        assert change.data == (None if expected is None else expected.encode())


def test_a_page_names_quotes_as_its_template_writes_them() -> None:
    """Catches a report that plays a recording whose name has quotes, and stays because they are escaped in it."""
    name = "o'brien \"x\"/o'brien_1.wav"
    for filled in ("<td>{{ name }}</td>", "<script>const clips = {{ {name: 1} | tojson }}</script>"):
        page = Environment(autoescape=True).from_string(filled).render(name=name)
        assert name not in page
        assert Sought(frozenset({name}), frozenset()).change("report/x.html", page.encode()) is not None


def test_bytes_that_are_no_text_go_as_a_whole() -> None:
    """Catches a file of an unknown kind that names a recording being passed over."""
    change = SOUGHT.change("some.bin", b"\xff\xfe" + HASH.encode())
    assert change is not None and change.data is None
    assert SOUGHT.change("some.bin", b"\xff\xfe") is None
    assert SOUGHT.change("broken.npz", b"PK no archive, but \xff 01/1_01_0.wav") is not None


@pytest.mark.slow
def test_thousands_of_recordings_are_looked_up_at_once() -> None:
    """Catches a name that is missed, or found in another one, where thousands are looked up together."""
    ids = [
        f"{word:02d}/person {who}_{word:02d}_{take}.wav" for word in range(40) for who in range(30) for take in range(7)
    ]
    sought = Sought(frozenset(ids), frozenset(sha256(id_) for id_ in ids))
    others = [id_.replace("person", "guest") for id_ in ids]
    table = "clip_id,loss,audio_hash\n" + "".join(f"{id_},0.25,{sha256(id_)}\n" for id_ in others)
    kept = np.random.default_rng(0).bytes(1_000_000)
    files = {"losses.csv": table.encode(), "list.md": table.encode(), "plot.png": b"\xff" + kept}
    assert [sought.change(path, data) for path, data in files.items()] == [None, None, None]
    found = sought.change("plot.png", b"\xff" + kept + ids[-1].encode() + kept)
    assert found is not None and found.data is None
    found = sought.change("list.md", (table + f"and {ids[7]}, they say\n").encode())
    assert found is not None and found.data == table.encode()
