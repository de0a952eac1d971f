"""The pages: nothing from elsewhere, every name escaped, bounded in size, and alive in a browser."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

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
from tests.browser import Browser
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


def test_report_in_a_browser(browser: Browser, page: str, tmp_path: Path) -> None:
    """Catches a table that does not sort, a clip that does not play, a name that runs, an error in the console."""
    path = tmp_path / "report.html"
    path.write_text(page)
    browser.open(path.as_uri())
    heading = "#table thead th:nth-child(3) button"
    assert column(browser, "#table", 0) == list(MEANS)
    browser.click(heading)
    forget = [float(text) for text in column(browser, "#table", 2)]
    assert forget == sorted(forget)
    assert forget[0] == 60.0
    browser.click(heading)
    assert [float(text) for text in column(browser, "#table", 2)] == sorted(forget, reverse=True)
    speed_up = len(browser.script("return [...document.querySelectorAll('#table thead th')].map(e => e.textContent)"))
    browser.click(f"#table thead th:nth-child({speed_up}) button")
    assert column(browser, "#table", speed_up - 1)[-2:] == ["–", "–"]  # what is missing stays last
    assert set(browser.script("return [...document.querySelectorAll('#remembered tbody tr:not([hidden])')]"
                              ".map(r => r.dataset.method)")) == {"original"}  # fmt: skip
    browser.script(
        "const s = document.getElementById('method'); s.value = 'good'; s.dispatchEvent(new Event('change'))"
    )
    assert set(browser.script("return [...document.querySelectorAll('#remembered tbody tr:not([hidden])')]"
                              ".map(r => r.dataset.method)")) == {"good"}  # fmt: skip
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
    assert browser.script("return window.hacked === undefined")
    assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.problems() == []


def test_audio_data_survives_the_page(report: Report, page: str) -> None:
    """Catches recordings mixed up or cut by escaping."""
    data = json.loads(re.search(r'id="audio">(.*?)</script>', page, flags=re.DOTALL)[1])
    assert set(data) == set(report.audio)
    assert data[HOSTILE].startswith("data:audio/wav;base64,")
