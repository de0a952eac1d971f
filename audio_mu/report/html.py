"""The report as a self-contained page: no script, font or image from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import soundfile
from markupsafe import Markup, escape

from audio_mu.names import ORIGINAL
from audio_mu.printable import printable
from audio_mu.report import papers
from audio_mu.report.choice import best_method, by_distance
from audio_mu.report.classes import NO_CLASSES, Classes
from audio_mu.report.facts import Estimate, RequestFacts, figures_of, interval_number
from audio_mu.report.pages import environment
from audio_mu.report.rule import RULE, Verdict, verdicts
from audio_mu.report.summary import summary

PERCENT, NUMBER, FACTOR, SECONDS = "percent", "number", "factor", "seconds"
LARGEST_AUDIO = 6_000_000  # bytes of recordings in one page, before base64
SHOWN_CLIPS = 12  # per method
WIDE = 7  # methods, from which on a figure takes the page's whole width


@dataclass(frozen=True)
class Column:
    """A column of the table of methods; `about` is what the pointer shows."""

    metric: str
    heading: str
    kind: str
    about: str


COLUMNS = (
    Column("forget/accuracy", "Forget", PERCENT, "accuracy on the recordings to forget; the target is naive's"),
    Column("remain/accuracy", "Remain", PERCENT, "accuracy on the rest of the training set"),
    Column("test/accuracy", "Test", PERCENT, "accuracy on recordings never trained on"),
    Column("held_out/accuracy", "Held out", PERCENT, "accuracy on test recordings of the removed class or speaker"),
    *(
        Column(
            f"{name}/recording_accuracy",
            f"{name.capitalize()}, rec.",
            PERCENT,
            f"accuracy on the {name} set per recording, by the mean of the logits of its clips",
        )
        for name in ("forget", "remain", "test")
    ),
    Column("mia/score", "MIA score", PERCENT, "share of the forgotten recordings that the attack models call unseen"),
    Column("mia/auc", "MIA AUC", NUMBER, "how well an attack by the loss tells forgotten from unseen: 0.5 = chance"),
    Column("audit/rmia_auc", "RMIA", NUMBER, "AUC of an attack that knows retrained models: 0.5 = it finds nothing"),
    Column("audit/ulira_auc", "U-LiRA", NUMBER, "how well models are told from retrained ones: 0.5 = not at all"),
    Column("audit/lira_auc", "LiRA", NUMBER, "AUC of an attack that knows models of random halves: 0.5 = nothing"),
    Column("audit/rmia_online_auc", "RMIA online", NUMBER, "RMIA that knows models of random halves: 0.5 = nothing"),
    Column("audit/person_p", "Person p", NUMBER, "chance of looking so much learnt without being in the model"),
    Column("distance/js", "JS", NUMBER, "Jensen-Shannon divergence to naive on the forget set, nats"),
    Column("gap/tow", "ToW", NUMBER, "tug of war, of all three accuracies: 1 = the same as naive's"),
    Column("time/total_s", "Time", SECONDS, "seconds of the method's own computation"),
    Column("time/speedup", "Speed-up", FACTOR, "times as fast as retraining"),
)
CLASS_COLUMNS = tuple(
    Column(f"{name}/{figure}", f"{heading} {short}", PERCENT, f"{about}, {of}")
    for name, heading, of in (("forget", "Forget", "recordings to forget"), ("remain", "Remain", "training recordings"),
                              ("test", "Test", "test recordings"))
    for figure, short, about in (("accuracy", "acc.", "accuracy"), ("macro_f1", "F1", "mean of the classes' F1"),
                                 ("worst_class_accuracy", "worst", "lowest accuracy of a class"))
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A recording, by its path below the data root. hashes: of its audio, as it was measured."""

    clip_id: str
    label: str
    speaker: str
    hashes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Remembered:
    """A recording that a method still answers better than the retrained model.

    loss, naive_loss: mean cross-entropy over the seeds; ratio: exp of their mean difference, how many times as
    probable the method finds the right class (geometric mean); n_seeds of n have a ratio above 1.
    """

    method: str
    clip: Clip
    loss: float
    naive_loss: float
    ratio: float
    n_seeds: int
    n: int


@dataclass(frozen=True)
class Report:
    """Everything that the report of one cell shows.

    long: the cell's rows of the long table. forget_losses: method → losses of all seeds. roc_losses: method → per
    seed (losses of the forget set, of the non-members). curves: seed → cosine at 101 prune rates. audio: clip id →
    WAV bytes. provenance: name, value. settings: method → what was in force in it. chain: the answered requests in
    their order, as text, or None. classes: what is said of single classes.
    """

    title: str
    request: RequestFacts
    examples: Sequence[Clip]
    class_counts: Mapping[str, int]
    n_speakers: int
    long: pd.DataFrame
    methods: Sequence[str]
    forget_losses: Mapping[str, np.ndarray]
    roc_losses: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
    curves: Mapping[str, np.ndarray]
    remembered: Sequence[Remembered]
    provenance: Sequence[tuple[str, str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    audio: Mapping[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    chain: pd.DataFrame | None = None
    classes: Classes = NO_CLASSES


def remembered(method: str, losses: pd.DataFrame, naive: pd.DataFrame, clips: Mapping[str, Clip]) -> list[Remembered]:
    """Recordings of the forget set that a method knows better than naive, the best known first.

    losses, naive: a row for each recording, by its id, and a column for each of the same seeds.
    """
    own = losses.to_numpy(float).T
    target = naive.reindex(losses.index).to_numpy(float).T
    difference = target - own
    mean = difference.mean(axis=0)
    return [
        Remembered(
            method, clips[str(losses.index[i])], float(own[:, i].mean()), float(target[:, i].mean()),
            float(np.exp(mean[i])), int((difference[:, i] > 0).sum()), len(own),
        )
        for i in np.argsort(-mean, kind="stable")
        if mean[i] > 0
    ]  # fmt: skip


def as_wav(waveform: np.ndarray, rate: int) -> bytes:
    """A waveform [samples] as a 16-bit WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def render_report(report: Report) -> str:
    """The report as one HTML page; methods stand by their distance to naive."""
    report = replace(report, methods=by_distance(report.long, report.methods))
    judged, best = verdicts(report.long, report.methods), best_method(report.long, report.methods)
    columns, class_columns = (_filled(report.long, known) for known in (COLUMNS, CLASS_COLUMNS))
    return environment().get_template("report.html.j2").render(
        report=report,
        summary=summary(report.long, report.methods, report.request),
        answer=judged[best] if best else None,
        best=best,
        rule=RULE.text,
        columns=columns,
        rows=[_row(report.long, method, columns, judged[method]) for method in report.methods],
        class_columns=class_columns if any("_" in column.metric for column in class_columns) else [],
        class_rows=_class_rows(report, class_columns),
        every=_every_figure(report.long, report.methods),
        drawn=_drawn(report, judged),
        groups=[m for m in report.methods if any(r.method == m for r in report.remembered)],
        audio={printable(clip_id): _data_uri(data) for clip_id, data in within_limit(report.audio.items())},
        n_seeds=max((int(n) for n in report.long["n"]), default=0),
        sources={method: papers.METHODS.get(method, "") for method in report.methods},
        measures=[source for metric, source in papers.MEASURES.items() if (report.long["metric"] == metric).any()],
    )  # fmt: skip


def _filled(long: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """The columns that any method has a figure for; runs of earlier versions lack some."""
    return [column for column in columns if (long["metric"] == column.metric).any()]


def within_limit(audio: Iterable[tuple[str, bytes]], limit: int = LARGEST_AUDIO) -> list[tuple[str, bytes]]:
    """The first recordings whose bytes together stay within the limit."""
    kept, total = [], 0
    for clip_id, data in audio:
        if total + len(data) <= limit:
            kept.append((clip_id, data))
            total += len(data)
    return kept


def _data_uri(data: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class _Entry:
    value: float | None
    text: str
    interval: str


@dataclass(frozen=True)
class _Row:
    method: str
    verdict: Verdict
    entries: Sequence[_Entry]


def _row(long: pd.DataFrame, method: str, columns: Sequence[Column], verdict: Verdict) -> _Row:
    known = figures_of(long, method)
    return _Row(method, verdict, [_entry(known.get(column.metric), column.kind) for column in columns])


def _class_rows(report: Report, columns: Sequence[Column]) -> list[tuple[str, list[tuple[_Entry, str]]]]:
    """Per method its entries of the table of classes, each with the class that it is of."""
    rows = []
    for method in report.methods:
        known, worst = figures_of(report.long, method), report.classes.worst
        named = [worst.get((method, c.metric.partition("/")[0]), "") if "worst" in c.metric else "" for c in columns]
        rows.append((method, [(_entry(known.get(c.metric), c.kind), name) for c, name in zip(columns, named)]))
    return rows


def _entry(estimate: Estimate | None, kind: str) -> _Entry:
    if estimate is None:
        return _Entry(None, "–", "")
    scale, digits, unit = {PERCENT: (100, 1, ""), NUMBER: (1, 3, ""), FACTOR: (1, 1, "×"), SECONDS: (1, 1, " s")}[kind]
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"[{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"
    return _Entry(estimate.mean, f"{scale * estimate.mean:.{digits}f}{unit}", interval)


def _every_figure(long: pd.DataFrame, methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """metric → its estimate for each method, for the table of all figures."""
    known = {method: figures_of(long, method) for method in methods}
    metrics = sorted(set(long["metric"]))
    return [(m, [interval_number(known[of][m]) if m in known[of] else "–" for of in methods]) for m in metrics]


@dataclass(frozen=True)
class _Drawn:
    heading: str
    caption: str
    svg: Markup
    wide: bool


def _drawn(report: Report, judged: Mapping[str, Verdict]) -> list[_Drawn]:
    # matplotlib: a second, which commands without a report need not wait
    from audio_mu.report import canvas, figures

    shapes = {"passed": (canvas.GOOD, "o"), "over-unlearned": (canvas.WARN, "^"), "not-judged": (canvas.AXIS, "v"),
              "reference": (canvas.INK, "D"), "untouched": (canvas.COLOURS[ORIGINAL], "s")}  # fmt: skip
    marks = {m: canvas.Mark(*shapes.get(verdict.style, (canvas.BAD, "X"))) for m, verdict in judged.items()}
    long, methods, metrics = report.long, report.methods, ("forget/accuracy", "test/accuracy")
    candidates = [
        (
            "Forgetting against accuracy", False, figures.trade_off_figure(long, methods, marks), metrics,
            "The target is naive, where the dotted lines cross: neither more nor less than retraining forgets. "
            "Diamond: naive, square: original, circle: meets the rule, cross: does not, triangle up: over-unlearned, "
            "triangle down: not judged. Bars: 95 % intervals.",
        ),
        (
            "Speed against gap", False, figures.speed_figure(long, methods, marks), ("time/speedup", "gap/tow"),
            "To the right is faster than retraining, to the bottom closer to it (ToW nearer to 1).",
        ),
        (
            "Membership inference", len(methods) > WIDE,
            figures.mia_figure(long, methods, marks=marks), ("mia/score", "mia/auc"),
            "The dashed line is naive, its band naive's interval. A good method lies on it, not beyond it.",
        ),
        (
            "Losses of the forgotten recordings", True,
            figures.forget_loss_figure(report.forget_losses, methods, marks=marks), ("forget/loss",),
            "All seeds. Lower losses than naive's are recordings still known, higher ones are set apart by unlearning.",
        ),
        (
            "ROC of the attack by the loss", True,
            figures.roc_figure(report.roc_losses, methods, marks) if report.roc_losses else None, ("mia/auc",),
            "Both axes logarithmic, mean over the seeds: the left end shows what an attack finds that may hardly be "
            "wrong. The grey diagonal is guessing.",
        ),
        (
            "Cosine against prune rate", False, figures.prune_figure(report.curves), (),
            "How similar the pruned network is to the base model; thin lines are seeds, dots the cuts of their mean.",
        ),
    ]  # fmt: skip
    return [
        _Drawn(
            heading, caption, _labelled(canvas.as_svg(figure, f"figure{i}"), heading, _spoken(long, methods, of)), wide
        )
        for i, (heading, wide, figure, of, caption) in enumerate(candidates)
        if figure is not None
    ]


def _spoken(long: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str]) -> str:
    """The figures behind a drawing in words, for those who do not see it."""
    known = {method: figures_of(long, method) for method in methods}
    said = {m: [f"{name} {of[name].mean:.3f}" for name in metrics if name in of] for m, of in known.items()}
    return "; ".join(f"{method}: {', '.join(words)}" for method, words in said.items() if words)


def _labelled(svg: str, heading: str, words: str) -> Markup:
    """A drawing that is read out as one picture, not as the numbers on its axes."""
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(f"{heading}. {words}")}"', 1))
