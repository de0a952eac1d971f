"""How fast this project is beside the study's way of working (`benchmarks.study_loop`), and beside the machine.

    python -m benchmarks.speed [--rounds 5] [--only train,evaluate] [--again] [--threads 2]

Every section measures in alternating pairs, takes medians (of the pairs' ratios too), and replaces its rows in
results/speed.csv; a section that is there already is left alone unless --again or --only asks for it. `--table` prints
the rows as the README's table. Five rounds take half an hour on two cores, half of it for one_seed. The cores must be
idle: beside other busy processes two threads are many times slower.

Recordings: those below AUDIO_MU_TEST_DATA/audiomnist_layout or, where it is not set, spoken digits, each written
several times with its own faint noise until there are 2,400 + 600.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import nn

from audio_mu.audit.attack_models import build_attack_network
from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.splits import split_clips
from audio_mu.data.synthetic import generate
from audio_mu.system.hashing import sha256
from audio_mu.models import build
from audio_mu.system.tuning import keep_freed_memory
from audio_mu.requests.request import resolve_request
from audio_mu.seeding import generator
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.training import Examples, OptimizerSettings, fit, predict
from audio_mu.unlearning import Settings
from audio_mu.workflows.attack import attack
from audio_mu.compute.pool import LocalEngine
from audio_mu.compute.jobs import Problem, UnlearnJob, unlearn_job
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn
from benchmarks import many_runs, study_loop
from benchmarks.study_loop import ClipList

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results" / "speed.csv"
SHAPE, CLASSES, BATCH = (32, 63), 10, 256
N_CLIPS, N_TRAIN = 3_000, 2_400
SPEECH_COMMANDS = 95_848
MEGAFLOPS = {"VGGish": 115.8, "CCT": 312.8, "ViT": 1_393.5}
"""Useful operations of one clip trained, forward and backward, as torch's counter has them (a multiply-add is two)."""

FACTS = {
    "pre-processing, after start-up": 6.0,
    "pre-processing, with start-up": 23.0,
    "forget/remain split of 84,843 clips": 25.0,
    "evaluation of 2,400 clips": 1.6,
    "VGGish epoch": 4.95,
    "CCT epoch": 6.55,
    "ViT epoch": 25.0,
    "one seed's nine methods": 186.0,
}
"""Seconds that the study's own code took on such a machine, for 2,400 + 600 clips and both cores."""


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, both ways of working, their ratio, and the target with its verdict.

    `unit` is that of `baseline` and `ours`. `note` holds what the study's own code took, where that is known.
    """

    section: str
    what: str
    baseline: float
    ours: float
    unit: str
    ratio: float
    target: str
    met: str
    note: str = ""


@dataclass(frozen=True)
class Context:
    """What the sections share: how often to measure, threads, a folder to work in, clips of the unlearn section."""

    rounds: int
    threads: int
    folder: Path
    unlearn_clips: int

    def recordings(self) -> Path:
        """A folder of 3,000 one-second recordings in AudioMNIST's layout, written once."""
        root = self.folder / "recordings"
        if not root.exists():
            write_recordings(root)
        return root


Section = Callable[[Context], list[Row]]


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Wall seconds of each piece of work, `rounds` times, in turn."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, values in zip(works, taken, strict=True):
            values.append(seconds(work))
    return taken


def ratio_row(
    section: str, what: str, baseline: Sequence[float], ours: Sequence[float], least: float, scale: float = 1
) -> Row:
    """Row of a comparison in which the baseline should take at least `least` times as long.

    `scale` tells how much larger the work of the study's own figure was.
    """
    ratio = statistics.median(b / o for b, o in zip(baseline, ours, strict=True))
    known = FACTS.get(what.partition(" (")[0].replace(", 1 thread", ""))
    note = "" if known is None or "1 thread" in what else f"the study's own code: {known / scale:.3g} s"
    return Row(
        section, what, statistics.median(baseline), statistics.median(ours), "s", ratio, f"at least {least:g}",
        verdict(ratio >= least), note,
    )  # fmt: skip


def verdict(is_met: bool) -> str:
    """Yes or no."""
    return "yes" if is_met else "no"


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """So many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_recordings(root: Path) -> None:
    """Copies of recordings, each with faint noise of its own, until there are 3,000; no two are alike."""
    data = os.environ.get("AUDIO_MU_TEST_DATA")
    source = Path(data) / "audiomnist_layout" if data else generate(root.parent / "spoken", n_speakers=20, n_takes=5)
    paths = sorted(source.glob("[0-9][0-9]/*.wav"))
    draw = np.random.default_rng(0)
    for number in range(N_CLIPS):
        path = paths[number % len(paths)]
        samples, rate = soundfile.read(path, dtype="float32")
        digit, speaker, take = path.stem.split("_")
        target = root / speaker / f"{digit}_{speaker}_{int(take) + 100 * (number // len(paths))}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        noisy = samples + 1e-3 * draw.standard_normal(len(samples), dtype=np.float32)
        soundfile.write(target, noisy.clip(-1, 1), rate, subtype="PCM_16")


def some_features(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features [n, 1, 32, 63] and labels [n], where the arithmetic alone matters."""
    draw = generator(0)
    return torch.randn(n, 1, *SHAPE, generator=draw), torch.randint(CLASSES, (n,), generator=draw)


def as_list(features: torch.Tensor, labels: torch.Tensor) -> ClipList:
    """The same clips as a list of tensors, each with memory of its own."""
    return ClipList([clip.clone() for clip in features], labels.tolist())


@cache
def studys_way(architecture: str, n: int) -> tuple[nn.Module, ClipList, torch.optim.Optimizer]:
    """A plain network with clips and an optimiser, made once in a process."""
    network = study_loop.new_network(architecture, 0)
    return network, as_list(*some_features(n)), study_loop.optimizer_of(network)


@cache
def our_way(architecture: str, n: int) -> tuple[nn.Module, Examples, torch.optim.Optimizer]:
    """The same as this project trains it."""
    torch.manual_seed(0)
    network = build(architecture, SHAPE, CLASSES).to(memory_format=torch.channels_last)
    optimizer = OptimizerSettings("sgd", 0.01).build(network.parameters())
    return network, Examples(*some_features(n), torch.arange(n)), optimizer


def study_epoch(architecture: str, n: int, threads: int) -> None:
    """One pass of the study's loop."""
    network, clips, optimizer = studys_way(architecture, n)
    torch.set_num_threads(threads)
    study_loop.train_epoch(network, clips, optimizer)


def our_epoch(architecture: str, n: int, threads: int) -> None:
    """One pass of `fit`."""
    network, examples, optimizer = our_way(architecture, n)
    torch.set_num_threads(threads)
    fit(network, examples, optimizer, epochs=1, batch_size=BATCH, seed=0)


def study_evaluation(architecture: str, n: int, threads: int) -> None:
    """The figures of all clips, as the study's loop gets them."""
    network, clips, _ = studys_way(architecture, n)
    torch.set_num_threads(threads)
    study_loop.evaluate(network, clips)


def our_evaluation(architecture: str, n: int, threads: int) -> None:
    """The figures of all clips: logits once, and what follows from them."""
    from audio_mu.audit.performance import performance

    network, examples, _ = our_way(architecture, n)
    torch.set_num_threads(threads)
    performance(predict(network, examples.features, examples.indices), examples.labels.numpy())


@contextmanager
def two_processes() -> Iterator[tuple[ProcessPoolExecutor, ProcessPoolExecutor]]:
    """A process as it comes, for the study's way, and one that is set up as our workers are."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as study, ProcessPoolExecutor(1, spawn, keep_freed_memory) as ours:
        yield study, ours


def side_by_side(
    rounds: int, baseline: Callable[..., None], ours: Callable[..., None], *arguments: object
) -> list[list[float]]:
    """Wall seconds of both ways, each in its process, in turn; a first call of each is not counted."""
    with two_processes() as processes:
        works = [lambda p=p, w=w: p.submit(w, *arguments).result() for p, w in zip(processes, (baseline, ours))]
        for work in works:
            work()
        return pairs(rounds, *works)


def matrix_rate(threads: int, repeats: int = 5) -> float:
    """GFLOP/s of a single-precision matrix product of 2,048 squared: the machine's measured limit."""
    n = 2_048
    a, b = torch.randn(n, n), torch.randn(n, n)
    with torch_threads(threads):
        a @ b
        return 2 * n**3 / statistics.median(seconds(lambda: a @ b) for _ in range(repeats)) / 1e9


# -- sections ----------------------------------------------------------------------------------------------------------


def features(context: Context) -> list[Row]:
    """Pre-processing of 3,000 recordings in processes of their own, with and without their start-up; a cached start."""
    root = context.recordings()
    taken: dict[str, list[tuple[float, float]]] = {"study": [], "ours": [], "cached": []}
    for _ in range(context.rounds):
        with tempfile.TemporaryDirectory(dir=context.folder) as cache:
            for way, values in taken.items():  # the third finds what the second has made
                who = "study" if way == "study" else "ours"
                values.append(_child("prepare", who, str(root), cache, str(context.threads)))
    after = {way: [own for _, own in values] for way, values in taken.items()}
    whole = {way: [total for total, _ in values] for way, values in taken.items()}
    return [
        ratio_row("features", "pre-processing, after start-up", after["study"], after["ours"], 4),
        ratio_row("features", "pre-processing, with start-up", whole["study"], whole["ours"], 8),
        ratio_row("features", "features of a cached start", after["study"], after["cached"], 100),
    ]


def _child(task: str, *arguments: str) -> tuple[float, float]:
    """Wall seconds of a process of `benchmarks.children` with its start-up, and the number that it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.children", task, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout.split()[-1])


def split(context: Context) -> list[Row]:
    """Forget and remain sets of a data set of Speech Commands' size."""
    n_train = 84_843
    ids = tuple(f"word{i % 35:02d}/{i * 7919 % 2618:08x}_nohash_{i}.wav" for i in range(SPEECH_COMMANDS))
    parts = ("train",) * n_train + ("test",) * (SPEECH_COMMANDS - n_train)
    speakers = tuple(id_[7:15] for id_ in ids)
    clips = Clips(
        torch.zeros(1), Path(), torch.arange(SPEECH_COMMANDS) % 35, ids, speakers, tuple(map(sha256, ids)), parts,
        tuple(f"word{i:02d}" for i in range(35)), {}, (), Path(), "",
    )  # fmt: skip
    config = Config.from_text({"dataset": "SpeechCommands"}).resolved()
    base = split_clips("official", 42, parts, speakers, clips.hashes)
    (ours,) = pairs(context.rounds, lambda: resolve_request(config, clips, base))
    baseline = seconds(lambda: study_loop.split(ids[:n_train], 10))  # half a minute: once is enough
    middle = statistics.median(ours)
    what = "forget/remain split of 84,843 clips"
    note = f"the study's own code: {FACTS[what]:g} s"
    return [
        Row("split", what, baseline, middle, "s", baseline / middle, "ours below 0.05", verdict(middle < 0.05), note)
    ]


def evaluate(context: Context) -> list[Row]:
    """One evaluation pass over 2,400 clips: logits and their figures."""
    rows = []
    for threads in sorted({1, context.threads}):
        baseline, ours = side_by_side(context.rounds, study_evaluation, our_evaluation, "VGGish", N_TRAIN, threads)
        rows.append(ratio_row("evaluate", f"evaluation of 2,400 clips{_thread_note(threads)}", baseline, ours, 1.5))
    return rows


def _thread_note(threads: int) -> str:
    return f", {threads} thread{'' if threads == 1 else 's'}"


def _epochs(context: Context, architecture: str, n: int, least: float, threads: Sequence[int]) -> list[Row]:
    """A training epoch of `n` clips, and its useful operations a second beside a matrix product's."""
    section, rows = architecture.lower(), []
    for count in threads:
        baseline, ours = side_by_side(context.rounds, study_epoch, our_epoch, architecture, n, count)
        limit = statistics.median(matrix_rate(count) for _ in range(3))
        what = f"{architecture} epoch of {n:,} clips{_thread_note(count)}"
        row = ratio_row(section, what, baseline, ours, least)
        if count > 1:
            row = replace(row, note=f"the study's own code: {FACTS[f'{architecture} epoch'] * n / N_TRAIN:.3g} s")
        rate = MEGAFLOPS[architecture] * n / row.ours / 1e3
        least_share = 0.62 if architecture == "VGGish" else 0.0
        rows += [
            row,
            Row(
                section, f"{architecture} epoch, useful rate beside a matrix product's{_thread_note(count)}", limit,
                rate, "GFLOP/s", rate / limit, f"at least {least_share:g}" if least_share else "shown",
                verdict(rate / limit >= least_share) if least_share else "",
            ),
        ]  # fmt: skip
    return rows


def vggish(context: Context) -> list[Row]:
    """VGGish with one thread and with all."""
    return _epochs(context, "VGGish", N_TRAIN, 1.6, sorted({1, context.threads}))


def cct(context: Context) -> list[Row]:
    """CCT with all threads."""
    return _epochs(context, "CCT", N_TRAIN // 2, 1.3, [context.threads])


def vit(context: Context) -> list[Row]:
    """ViT with all threads."""
    return _epochs(context, "ViT", N_TRAIN // 4, 1.1, [context.threads])


def one_seed(context: Context) -> list[Row]:
    """One seed's nine methods: our command's work with its workers and its store, models kept, against the study's."""
    n = context.unlearn_clips
    with tempfile.TemporaryDirectory(dir=context.folder) as name, torch_threads(context.threads):
        folder = Path(name)
        root = folder / "recordings"
        for path in sorted(context.recordings().glob("*/*.wav"))[:: N_CLIPS // n]:
            target = root / path.relative_to(context.recordings())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
        given = {"dataset": "audioMNIST", "data_dir": str(root), "seeds": "40", "n_epochs": "2", "n_epoch_repair": "1",
                 "force": "true", "duplicates": "ignore"}  # fmt: skip
        config = Config.from_text(given)
        study = _study_seed(config, folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["AUDIO_MU_CACHE"] = str(folder / "cache")
        store = open_store()
        with LocalEngine(max(1, context.threads)) as engine:
            train(config, store, engine)
        attack(config, store)

        def ours() -> None:
            with LocalEngine(max(1, context.threads)) as engine:
                unlearn(config, store, engine)

        baseline, taken = pairs(context.rounds, study, ours)
    row = ratio_row("one_seed", f"one seed's nine methods ({n:,} clips)", baseline, taken, 5, N_CLIPS / n)
    return [row]


def _study_seed(config: Config, folder: Path) -> Callable[[], None]:
    recordings = sorted(config.data_dir.glob("*/*.wav"))
    clips = study_loop.load(study_loop.preprocess(recordings, folder / "files"))
    order = np.random.default_rng(42).permutation(len(clips)).tolist()
    n_train = len(clips) * N_TRAIN // N_CLIPS
    trained, test = order[:n_train], order[n_train:]
    n_forget = -(-n_train // 10)
    parts = {"forget": trained[:n_forget], "remain": trained[n_forget:], "test": test}
    sets = {name: clips.part(part) for name, part in parts.items()}
    base = study_loop.new_network("VGGish", 40)
    attacks = [build_attack_network().eval() for _ in range(3)]
    return lambda: study_loop.SeedUnlearning(base, sets, attacks, folder / "study", 40).run(naive_epochs=2)


def five_seeds(context: Context) -> list[Row]:
    """Five seeds' jobs through the engine: two workers of one thread, one of one, one of two; pools already warm."""
    values, labels = some_features(500)
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        np.save(Path(folder) / "features.npy", values.numpy())
        problem = Problem(Path(folder) / "features.npy", labels.numpy(), "VGGish", CLASSES, "cpu", 1)
        order = [(seed, method) for seed in range(5) for method in ("naive", "fine_tune", "pop")]
        jobs = {t: [_seed_job(replace(problem, threads=t), *which) for which in order] for t in (1, 2)}
        with LocalEngine(2) as two, LocalEngine(1) as one, LocalEngine(1) as wide:
            works = [(two, 1), (one, 1), (wide, 2)]
            for engine, threads in works:
                list(engine.run(unlearn_job, jobs[threads][: engine.workers], "warm up"))
            taken = pairs(
                context.rounds,
                *(lambda e=engine, t=threads: list(e.run(unlearn_job, jobs[t], "seeds")) for engine, threads in works),
            )
    parallel, alone, threaded = taken
    return [
        ratio_row("five_seeds", "five seeds: one worker of 1 thread / two workers of 1 thread", alone, parallel, 1.7),
        ratio_row(
            "five_seeds", "five seeds: one worker of 2 threads / two workers of 1 thread", threaded, parallel, 1.0
        ),
    ]


def _seed_job(problem: Problem, seed: int, method: str) -> UnlearnJob:
    order = np.random.default_rng(42).permutation(len(problem.labels))
    forget, remain, test = np.split(order, [40, 400])
    state = {name: value.numpy() for name, value in problem.initialise(seed).state_dict().items()}
    return UnlearnJob(
        problem=problem, seed=seed, method=method, request="item", base_state=state,
        sets={"forget": forget, "remain": remain, "test": test},
        settings=Settings(OptimizerSettings("sgd", 0.01), BATCH, n_epochs=2, n_epoch_repair=1), hyper_parameters={},
        best_on=None,
    )  # fmt: skip


def scaling(context: Context) -> list[Row]:
    """Seconds of an epoch from 1,000 to 16,000 clips: cost a clip at each size beside that at 1,000."""
    sizes = [1_000, 2_000, 4_000, 8_000, 16_000]
    per_clip = {}
    with two_processes() as (_, ours):
        for n in (sizes[0], *sizes):  # the first one warms up
            epoch = partial(our_epoch, "VGGish", n, context.threads)
            (taken,) = pairs(max(1, min(context.rounds, 8_000 // n)), lambda e=epoch: ours.submit(e).result())
            per_clip[n] = statistics.median(taken) / n
    first = per_clip[sizes[0]]
    return [
        Row(
            "scaling", f"VGGish epoch of {n:,} clips, per clip beside 1,000's", 1e3 * first, 1e3 * per_clip[n],
            "ms a clip", per_clip[n] / first, "at most 1.15", verdict(per_clip[n] <= 1.15 * first),
        )
        for n in sizes[1:]
    ]  # fmt: skip


def memory(context: Context) -> list[Row]:
    """Peak memory of a process that trains on features of Speech Commands' size, mapped from their file."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        path = Path(folder) / "features.npy"
        mapped = np.lib.format.open_memmap(path, "w+", np.float32, (SPEECH_COMMANDS, 1, *SHAPE))
        for start in range(0, SPEECH_COMMANDS, 8_192):
            part = mapped[start : start + 8_192]
            part[:] = np.random.default_rng(start).standard_normal(part.shape, dtype=np.float32)
        mapped.flush()
        own = mapped.nbytes / 1e6
        del mapped, part
        peak = _child("train", str(path), str(context.threads))[1]
    limit = own + 1_000
    return [
        Row(
            "memory", f"peak while training on {SPEECH_COMMANDS:,} x 32 x 63, beside features + 1 GB", limit, peak,
            "MB",
            limit / peak, "ours at most the limit", verdict(peak <= limit),
        )
    ]  # fmt: skip


def start_up(context: Context) -> list[Row]:
    """The answer to --help."""
    command = [sys.executable, "-m", "entrypoints.unlearn", "--help"]
    (taken,) = pairs(context.rounds, lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True))
    middle = statistics.median(taken)
    return [_limit_row("start_up", "python -m entrypoints.unlearn --help", middle, 1.0)]


def _limit_row(section: str, what: str, value: float, limit: float, note: str = "") -> Row:
    return Row(section, what, limit, value, "s", limit / value, f"at most {limit:g} s", verdict(value <= limit), note)


def compare(context: Context) -> list[Row]:
    """`compare` on a store of 10,000 runs, start-up included."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        taken = many_runs.measure(Path(folder), 10_000, context.rounds)
    return [_limit_row("compare", "compare on a store of 10,000 runs", statistics.median(taken), 5.0)]


def demo(context: Context) -> list[Row]:
    """Where the time of `make demo`'s chain goes that is not arithmetic. Once: it takes minutes."""
    with tempfile.TemporaryDirectory(dir=context.folder) as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"PYTHONPATH": str(ROOT), "AUDIO_MU_CACHE": str(folder / "cache")}
        command = [sys.executable, "-m", "benchmarks.demo_cost", str(folder / "cost.json")]
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        cost = json.loads((folder / "cost.json").read_text())
    rows = [
        Row("demo", f"demo: {group}", cost["wall"], wall, "s", wall / cost["wall"], "shown", "", f"{cpu:.1f} CPU s")
        for group, (wall, cpu) in sorted(cost["groups"].items(), key=lambda item: -item[1][0])
    ]
    total = sum(wall for wall, _ in cost["groups"].values())
    share = total / cost["wall"]
    note = f"{sum(cpu for _, cpu in cost['groups'].values()):.1f} of the chain's {cost['cpu']:.0f} CPU s"
    return [
        *rows,
        Row(
            "demo",
            "demo: all that MLflow costs",
            cost["wall"],
            total,
            "s",
            share,
            "at most 0.2",
            verdict(share <= 0.2),
            note,
        ),
    ]


SECTIONS: dict[str, Section] = {
    "start_up": start_up,
    "vggish": vggish,
    "cct": cct,
    "vit": vit,
    "evaluate": evaluate,
    "features": features,
    "split": split,
    "scaling": scaling,
    "memory": memory,
    "five_seeds": five_seeds,
    "compare": compare,
    "one_seed": one_seed,
    "demo": demo,
}


def stored() -> pd.DataFrame:
    """The rows so far."""
    names = list(Row.__dataclass_fields__)
    return pd.read_csv(TABLE, keep_default_na=False) if TABLE.exists() else pd.DataFrame(columns=names)


def markdown(rows: pd.DataFrame) -> str:
    """The table of the README."""
    lines = ["| what | baseline | ours | unit | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {float(row.baseline):.3g} | {float(row.ours):.3g} | {row.unit} | {float(row.ratio):.3g} "
        f"| {row.target} | {row.met or '–'} |"
        for row in rows.itertuples()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure the sections that are asked for or missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help=f"sections with commas: {', '.join(SECTIONS)}")
    parser.add_argument("--again", action="store_true", help="measure what the table has already, too")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--unlearn-clips", type=int, default=N_CLIPS, help="clips of one_seed: 3000 is the study's")
    parser.add_argument("--table", action="store_true", help="print the rows and measure nothing")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or list(SECTIONS)
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--only: no section {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    if not arguments.table:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(arguments.rounds, arguments.threads, Path(folder), arguments.unlearn_clips)
            for name in chosen:
                if arguments.only or arguments.again or name not in set(stored()["section"]):
                    measure(name, context)
    print(markdown(stored()))


def measure(name: str, context: Context) -> None:
    """Measure one section and put its rows into the table."""
    start = time.perf_counter()
    rows = pd.DataFrame([asdict(row) for row in SECTIONS[name](context)])
    before = stored()
    table = pd.concat([before[before["section"] != name], rows]).sort_values(
        "section", key=lambda column: column.map(list(SECTIONS).index), kind="stable"
    )
    table.to_csv(TABLE, index=False, float_format="%.4g")
    print(f"== {name}, {time.perf_counter() - start:.0f} s\n{markdown(rows)}\n", flush=True)
