"""The pages: nothing from elsewhere, every name escaped, bounded in size, and alive in a browser."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audio_mu.report import papers
from audio_mu.report.classes import CalledNow, Classes
from audio_mu.report.facts import RequestFacts
from audio_mu.report.html import (
    Clip,
    Report,
    as_wav,
    remembered,
    render_report,
    within_limit,
)
from audio_mu.unlearning import METHODS
from tests.browser import ENTER, TAB, Browser
from tests.report.conftest import MEANS
from tests.report.pages import HOSTILE, Parsed

TONE = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def report(long: pd.DataFrame, request_facts: RequestFacts) -> Report:
    """A report whose clips, classes, speakers and request have hostile names."""
    generator = np.random.default_rng(0)
    names = [HOSTILE, *(f"0{i}/{i}_0{i}_0.wav" for i in range(1, 9))]

    def losses(scale: float) -> pd.DataFrame:
        return pd.DataFrame({seed: scale * generator.exponential(size=9) for seed in (40, 41)}, index=names)

    naive, clips = losses(1.0), {name: Clip(name, HOSTILE, HOSTILE) for name in names}
    rows = [row for method in ("original", "good") for row in remembered(method, losses(0.1), naive, clips)]
    curve = np.sqrt(1 - np.linspace(0, 1, 101) ** 4)
    return Report(
        title=f"audioMNIST {HOSTILE}",
        request=replace(request_facts, name=HOSTILE),
        examples=[Clip(name, HOSTILE, "") for name in names[:3]],
        class_counts={HOSTILE: 9},
        n_speakers=1,
        long=long,
        methods=list(MEANS),
        forget_losses={method: generator.exponential(size=50) for method in MEANS},
        roc_losses={m: [(generator.exponential(size=50), generator.exponential(size=90))] for m in MEANS},
        curves={"40": curve},
        remembered=rows,
        provenance=[("cell", HOSTILE)],
        audio={name: as_wav(TONE, 16_000) for name in names},
        notes=[HOSTILE],
        classes=Classes({("good", "test"): HOSTILE}, [CalledNow("good", HOSTILE, 9, HOSTILE)]),
    )


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    """That report, drawn once."""
    return render_report(report)


def test_names_from_files_are_text_wherever_they_stand(report: Report, page: str) -> None:
    """Catches a name that becomes an element, an attribute or a script of the page."""
    parsed = Parsed(page)
    assert parsed.tags.count("script") == 2
    assert "img" not in parsed.tags
    assert parsed.handlers == []


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    """Catches a font, script or image that needs a network, or that tells others who reads the report."""
    assert all(address.startswith(("#", "data:")) for address in Parsed(page).loads)
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.findall(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_figures_of_one_page_do_not_share_ids(page: str) -> None:
    """Catches a clip path or marker of one figure being used by another: ids hold for the whole page."""
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert page.count("<svg") == 6


def test_a_cell_of_one_method_or_without_naive_has_a_report(report: Report) -> None:
    """Catches a page that needs what the store may not have: naive, intervals, audio, non-members, curves."""
    bare = replace(report, methods=["original"], long=report.long[report.long["method"] == "original"], remembered=[],
                   roc_losses={}, curves={}, audio={}, forget_losses={"original": np.ones(3)})  # fmt: skip
    assert "before unlearning" in render_report(bare)
    page = render_report(replace(bare, long=bare.long[~bare.long["metric"].str.startswith("gap")]))
    assert "none is judged" in page
    assert 'class="play"' not in page


def test_recordings_stay_below_the_limit() -> None:
    """Catches a report of long recordings that grows without bound, and one long file that keeps out all others."""
    audio = [("a", b"x" * 4), ("long", b"x" * 100), ("b", b"x" * 6), ("c", b"x")]
    assert [name for name, _ in within_limit(audio, limit=10)] == ["a", "b"]


def test_wav_holds_the_samples() -> None:
    """Catches clipping to noise, a wrong rate, or a wrong byte order."""
    samples, rate = soundfile.read(io.BytesIO(as_wav(2 * TONE, 16_000)), dtype="float32")
    assert (len(samples), rate) == (16_000, 16_000)
    np.testing.assert_allclose(samples, np.clip(2 * TONE, -1, 1), atol=1e-4)


def test_remembered_are_those_that_naive_no_longer_knows() -> None:
    """Catches clips paired by position, the wrong sign, or clips that naive knows better."""
    clips = {name: Clip(name, "x", "s") for name in "abc"}
    own = pd.DataFrame({40: [0.1, 3.0, 1.0], 41: [0.3, 3.0, 1.2]}, index=["a", "b", "c"])
    naive = pd.DataFrame({40: [1.5, 0.5, 2.1], 41: [1.0, 0.5, 2.3]}, index=["c", "b", "a"])  # in another order
    rows = remembered("m", own, naive, clips)
    assert [(row.clip.clip_id, row.n_seeds, row.n) for row in rows] == [("a", 2, 2), ("c", 1, 2)]
    assert rows[0].ratio == pytest.approx(np.exp(2.0))
    assert (rows[1].loss, rows[1].naive_loss) == (pytest.approx(1.1), pytest.approx(1.25))


def column(browser: Browser, table: str, index: int) -> list[str]:
    """The text of a column's visible cells, intervals left out."""
    return browser.script(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].filter(r => !r.hidden)"
        ".map(r => r.cells[arguments[1]].firstChild.textContent.trim())", table, index
    )  # fmt: skip


BY_DISTANCE = ["naive", "remembers_by_loss", "good"]  # ToW knows accuracies alone
A4_BETWEEN_MARGINS = 1047  # pixels: 297 mm less two margins of 10 mm


@pytest.fixture
def opened(browser: Browser, page: str, tmp_path: Path) -> Browser:
    """The report in a browser's window, which has no complaint about it before and after."""
    path = tmp_path / "report.html"
    path.write_text(page)
    browser.open(path.as_uri())
    yield browser
    browser.on_paper(None)
    assert browser.problems() == []
    assert browser.script("return window.hacked === undefined")


def test_the_nearest_methods_stand_first_and_one_is_recommended(opened: Browser, report: Report) -> None:
    """Catches a table in another order, a recommendation of what does not meet the rule, none that can be seen."""
    assert column(opened, "#table", 0)[:3] == BY_DISTANCE
    tow = [row.mean for name in column(opened, "#table", 0)[1:] for row in report.long.itertuples()
           if (row.method, row.metric) == (name, "gap/tow")]  # fmt: skip
    assert tow == sorted(tow, reverse=True)
    marked = "return [...document.querySelectorAll('tr.recommended th')].map(e => e.innerText.replace(/\\s+/g, ' '))"
    assert opened.script(marked) == ["good recommended"]
    assert opened.script("return document.querySelector('.summary .verdict').innerText").startswith("Recommended: good")
    words = opened.script("return [...document.querySelectorAll('#table .pill')].map(e => e.innerText)")
    assert {"target", "meets the rule", "not forgotten", "over-unlearned", "accuracy lost"} <= set(words)


def test_keys_alone_sort_the_table(opened: Browser) -> None:
    """Catches headings that only a mouse can reach."""
    for _ in range(12):
        opened.press(TAB)
        if opened.script("return document.activeElement.closest('#table thead th:nth-child(3)') !== null"):
            break
    opened.press(ENTER)
    forget = [float(text) for text in column(opened, "#table", 2)]
    assert forget == sorted(forget)
    assert opened.script("return document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    opened.press(ENTER)
    assert [float(text) for text in column(opened, "#table", 2)] == sorted(forget, reverse=True)


def test_paper_shows_every_column(opened: Browser, tmp_path: Path) -> None:
    """Catches columns that are cut at the sheet's edge, and a report that cannot be printed."""
    sheet = tmp_path / "report.pdf"
    sheet.write_bytes(opened.printed())
    assert sheet.read_bytes().startswith(b"%PDF")
    opened.on_paper(A4_BETWEEN_MARGINS)
    ends = "return [...document.querySelectorAll('table th, table td')].map(e => e.getBoundingClientRect().right)"
    assert max(opened.script(ends)) <= A4_BETWEEN_MARGINS
    if shutil.which("pdftotext") is not None:
        text = subprocess.check_output(["pdftotext", "-layout", "-l", "1", str(sheet), "-"], text=True)
        for heading in ("Method", "Verdict", "Forget", "Remain", "Test", "MIA AUC", "ToW", "Time", "Speed-up"):
            assert heading in text


def test_a_phone_keeps_the_names_in_sight(opened: Browser) -> None:
    """Catches figures whose method has been scrolled away, and a page that is wider than the screen."""
    opened.resize(390, 844)
    assert opened.script("return document.documentElement.scrollWidth <= window.innerWidth")
    left = "return document.querySelector('#table tbody th').getBoundingClientRect().left"
    before = opened.script(left)
    opened.script("document.getElementById('table').parentElement.scrollLeft = 300")
    assert opened.script("return document.getElementById('table').parentElement.scrollLeft") > 200
    assert opened.script(left) == pytest.approx(before, abs=2)


def test_a_drawing_is_read_out_as_one_picture(page: str) -> None:
    """Catches figures that a screen reader spells out as the numbers on their axes, or passes over."""
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', page)
    assert len(labels) == 6
    assert labels[0].startswith("Forgetting against accuracy. naive: forget/accuracy 0.900, test/accuracy 0.950; ")


def test_every_method_of_others_has_its_publication() -> None:
    """Catches a new method without a reference; the study's own need none."""
    own = {"naive", "label_smoothing", "cosine", "pop", "orthogonal", "cosine_thesis", "pop_thesis", "fast_retrain"}
    assert set(METHODS) - own == set(papers.METHODS)


def headings(browser: Browser) -> list[str]:
    """The headings of the table of methods."""
    return browser.script("return [...document.querySelectorAll('#table thead th')].map(e => e.textContent.trim())")


def test_report_in_a_browser(opened: Browser) -> None:
    """Catches a table that does not sort, a clip that does not play, a name that runs, an error in the console."""
    browser = opened
    heading = "#table thead th:nth-child(3) button"
    browser.click(heading)
    forget = [float(text) for text in column(browser, "#table", 2)]
    assert forget == sorted(forget)
    assert forget[0] == 60.0
    tow = [text.startswith("ToW") for text in headings(browser)].index(True)
    browser.click(f"#table thead th:nth-child({tow + 1}) button")
    browser.click(f"#table thead th:nth-child({tow + 1}) button")
    assert column(browser, "#table", 0)[:2] == BY_DISTANCE[1:]
    assert column(browser, "#table", tow)[-1] == "–"  # what is missing stays last
    assert set(browser.script("return [...document.querySelectorAll('#remembered tbody tr:not([hidden])')]"
                              ".map(r => r.dataset.method)")) == {"good"}  # fmt: skip
    browser.script(
        "const s = document.getElementById('method'); s.value = 'original'; s.dispatchEvent(new Event('change'))"
    )
    assert set(browser.script("return [...document.querySelectorAll('#remembered tbody tr:not([hidden])')]"
                              ".map(r => r.dataset.method)")) == {"original"}  # fmt: skip
    browser.script(
        "const play = HTMLMediaElement.prototype.play; HTMLMediaElement.prototype.play = function () "
        "{ window.playing = this; return play.call(this) }"
    )
    browser.click("#remembered tbody tr:not([hidden]) .play")
    assert browser.until("return window.playing && window.playing.currentTime > 0.05")
    assert browser.script("return window.playing.duration") == pytest.approx(1.0, abs=0.01)
    browser.until("return document.querySelectorAll('.play[aria-pressed=\"true\"]').length === 0")  # it ends by itself
    browser.click("#theme")
    assert browser.script("return document.documentElement.dataset.theme") in ("light", "dark")
    assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_audio_data_survives_the_page(report: Report, page: str) -> None:
    """Catches recordings mixed up or cut by escaping."""
    data = json.loads(re.search(r'id="audio">(.*?)</script>', page, flags=re.DOTALL)[1])
    assert set(data) == set(report.audio)
    assert data[HOSTILE].startswith("data:audio/wav;base64,")
