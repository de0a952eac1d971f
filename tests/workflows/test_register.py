"""An unlearned model in the registry: with its evidence, as served, and refused where it fails the rule."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

import audio_mu.ask
from audio_mu.report.choice import NotAllowed, allowed_method, naive_is_left
from audio_mu.store.queries import Finished
from audio_mu.workflows.cells import CellRuns
from tests.conftest import FAST, Command
from tests.finished_store import Results
from tests.servers import free_port, model_server

NAME = "audio-mu.SyntheticDigits.logmel.VGGish"
# Long enough to learn more than guessing: models at chance are not judged.
TRAINED = {**FAST, "n_epochs": "16", "methods": "naive,omp,fine_tune"}


def cell(remain: float) -> CellRuns:
    """naive and omp on one seed, naive with this accuracy on the remain set and omp far below it."""
    own = {"remain/accuracy": remain - 0.2, "gap/remain_accuracy": -0.2, "gap/forget_accuracy": 0.0, "gap/tow": 0.8}
    metrics = {"naive": {"remain/accuracy": remain}, "omp": own}
    runs = {(name, 40): Finished(name, name, {}, values, 0) for name, values in metrics.items()}
    return CellRuns("c", "item-10", runs)


@pytest.mark.parametrize(("remain", "is_offered"), [(0.9, True), (0.3, False)])
@pytest.mark.parametrize("register", ["best", "omp"])
def test_naive_is_offered_unless_it_is_what_fails(register: str, remain: float, is_offered: bool) -> None:
    """Catches a user sent to a retrained model that is refused in turn."""
    runs = cell(remain)
    with pytest.raises(NotAllowed, match="is refused: "):
        allowed_method(register, runs.long(), runs.methods)
    assert naive_is_left(register, runs.long()) == is_offered


def test_the_refusal_of_best_says_how_many_were_compared() -> None:
    """Catches a choice among many whose refusal, or whose way on, tells of one."""
    many = cell(0.9).runs | {
        (f"m{i}", 40): Finished(f"m{i}", "", {}, {"gap/forget_accuracy": 0.0, "gap/tow": 0.5}, 0) for i in range(4)
    }
    runs = CellRuns("c", "item-10", many)
    with pytest.raises(NotAllowed) as raised:
        allowed_method("best", runs.long(), runs.methods)
    assert "no method meets the rule, of 5 compared; highest ToW: omp, accuracy lost" in str(raised.value)
    assert raised.value.reasons.startswith("omp, accuracy lost: seed 40 has not recovered")
    assert "\n" not in str(raised.value) and len(str(raised.value).split()) <= 30


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"register": "foo"}, "register='foo' is not among the methods"),
        ({"register": "original"}, "register='original' is not among the methods"),
        ({"register": "pop", "methods": "naive,omp"}, "register='pop' is not among the methods"),
        ({"register": "pop", "save_models": "none"}, "save_models='none'"),
        ({"register": "pop", "save_models": "naive"}, "save_models='naive'"),
    ],
)
def test_what_can_never_be_registered_is_refused_before_any_work(
    parameters: dict[str, str], words: str, entry: Command, tmp_path: Path
) -> None:
    """Catches hours of work for a model that could not be registered from the start."""
    done = entry("unlearn", tmp_path, **parameters)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, entry: Command, small_digits: Path) -> Results:
    """A chain whose retrained models are registered: naive meets the rule by definition."""
    folder = tmp_path_factory.mktemp("registered")
    done = entry("main", folder, data_dir=str(small_digits), register="naive", **TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "truncated" not in done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return Results(folder)


def test_the_unlearned_models_are_versions_with_evidence(chain: Results) -> None:
    """Catches an alias on the wrong seed or model, and a version that cannot say what it is."""
    naive = {seed: run for (method, seed), run in chain.methods().items() if method == "naive"}
    served = chain.client.get_model_version_by_alias(NAME, "unlearned")
    chosen = max(sorted(naive), key=lambda seed: naive[seed].data.metrics["remain/accuracy"])
    for seed in ("40", "41"):
        version = chain.client.get_model_version_by_alias(NAME, f"unlearned-seed-{seed}")
        base = chain.client.get_model_version_by_alias(NAME, f"seed-{seed}")
        assert (version.version == served.version) == (seed == chosen)
        assert version.run_id == naive[seed].info.run_id
        assert version.tags["request_hash"] == naive[seed].data.tags["request_hash"]
        assert (version.tags["method"], version.tags["seed"]) == ("naive", seed)
        assert int(version.tags["base_version"]) == base.version != version.version
        assert "method" not in base.tags
        assert version.description.startswith(f"# Unlearned model, seed {seed}: naive on item-10")
        assert base.description.startswith(f"# Base model, seed {seed}")
        assert version.description == text(chain, version.run_id, "model_card.md")
        assert base.description == text(chain, base.run_id, "model_card.md")
        original = chain.methods()["original", seed].data.metrics["forget/accuracy"]
        assert f"| forget | {original:.3f} | " in version.description
        evidence = text(chain, version.run_id, "evidence.md")
        assert version.tags["request_hash"] in evidence
        assert f"seed {seed}: {version.version}" in evidence
        assert "<!doctype html>" in text(chain, version.run_id, "evidence.html")
    printed = (chain.folder / "output.txt").read_text()
    assert re.search(rf"serve it .* mlflow models serve -m models:/{NAME}@unlearned .*-p 5001\n", printed)
    after = naive[chosen].data.metrics["test/accuracy"]
    assert re.search(rf"in service: seed {chosen}, .* test accuracy \d\.\d{{3}} → {after:.3f}", printed)
    assert re.search(r"forget \d\.\d{3} \(original \d\.\d{3}\), remain \d", printed)
    assert "unlearned" in chain.client.get_registered_model(NAME).description


def text(chain: Results, run_id: str, path: str) -> str:
    return Path(chain.client.download_artifacts(run_id, path)).read_text()


def test_the_registered_model_answers_as_the_unlearned_network_did(chain: Results, small_digits: Path) -> None:
    """Catches the base model's weights behind the alias, or a model that needs this project to be loaded."""
    import mlflow
    import soundfile

    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow.set_tracking_uri(f"sqlite:///{chain.folder / 'mlflow.db'}")
    version = chain.client.get_model_version_by_alias(NAME, "unlearned")
    with np.load(chain.client.download_artifacts(version.run_id, "logits/test.npz"), allow_pickle=False) as stored:
        ids, logits = stored["clip_id"][:5], stored["logits"][:5]
    waveforms = np.stack([soundfile.read(small_digits / id_, dtype="float32")[0] for id_ in ids])
    np.testing.assert_allclose(
        mlflow.pyfunc.load_model(f"models:/{NAME}@unlearned").predict(waveforms), logits, atol=1e-4
    )


Ask = Callable[[str | bytes], requests.Response]


@pytest.fixture(scope="module", params=["seed-40", "unlearned"])
def ask(request: pytest.FixtureRequest, chain: Results) -> Iterator[tuple[str, Ask, str]]:
    """`mlflow models serve` of a base and of an unlearned version: (alias, what sends a body to it, its address)."""
    database, log = f"sqlite:///{chain.folder / 'mlflow.db'}", chain.folder / "serve.txt"
    session = requests.Session()
    session.trust_env = False  # no proxy between here and there
    session.headers["Connection"] = "close"  # the server closes it after an error of its own
    with model_server(f"models:/{NAME}@{request.param}", database, log) as url:

        def post(body: str | bytes) -> requests.Response:
            return session.post(f"{url}/invocations", body, headers={"Content-Type": "application/json"}, timeout=120)

        yield request.param, post, url


def test_a_served_model_is_asked_in_one_line(
    chain: Results, ask: tuple[str, Ask, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Catches recordings that are sent otherwise than they were trained on, and answers under other names."""
    import mlflow

    alias, _, url = ask
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{chain.folder / 'mlflow.db'}")
    noise = np.random.default_rng(1).normal(0, 0.1, (8_000, 2))
    soundfile.write(tmp_path / "stereo.flac", noise, 16_000)
    padded = np.zeros((1, 16_000), dtype=np.float32)
    padded[0, :8_000] = soundfile.read(tmp_path / "stereo.flac", dtype="float32")[0].mean(axis=1)
    model = f"models:/{NAME}@{alias}"
    names = mlflow.models.get_model_info(model).metadata["class_names"]
    best = names[int(mlflow.pyfunc.load_model(model).predict(padded).argmax())]
    recording = str(tmp_path / "stereo.flac")
    assert audio_mu.ask.main([url, recording, "--model", model]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{recording}: {best} ")
    for arguments, told in (
        ([url, recording, "--model", "models:/nobody@unlearned"], "is none of this project's registry"),
        ([url, str(tmp_path / "none.wav"), "--model", model], "none.wav"),
        ([f"http://127.0.0.1:{free_port()}", recording, "--model", model], "does not answer as a served model does"),
    ):
        assert audio_mu.ask.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_served_models_answer_waveforms_and_refuse_the_rest(
    chain: Results, ask: tuple[str, Ask, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches other logits than the model's, NaN as an answer, an error without a reason, and a server that dies."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    alias, post, _ = ask
    mlflow.set_tracking_uri(f"sqlite:///{chain.folder / 'mlflow.db'}")
    waveforms = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    body = json.dumps({"inputs": waveforms.tolist()})
    expected = mlflow.pyfunc.load_model(f"models:/{NAME}@{alias}").predict(waveforms)
    np.testing.assert_allclose(post(body).json()["predictions"], expected, atol=1e-4)
    row = json.dumps(waveforms[0].tolist())
    broken = {token: "[" + token + row[row.index(",") :] for token in ("NaN", "Infinity", "-Infinity", "1e39", "1e30")}
    for name, samples in broken.items():
        refused = post(f'{{"inputs": [{row}, {samples}]}}')
        assert refused.status_code == 400, name
        assert "waveforms must be finite numbers" in refused.text, name
    rubbish = {
        "too short": '{"inputs": [[0.1, 0.2]]}',
        "a row": f'{{"inputs": {row}}}',
        "a cube": f'{{"inputs": [[{row}]]}}',
        "uneven rows": f'{{"inputs": [{row}, [0.1]]}}',
        "text": json.dumps({"inputs": [["loud"] * 16_000]}),
        "null": f'{{"inputs": [[null{row[row.index(",") :]}]}}',
        "no rows": '{"inputs": []}',
        "no inputs": "{}",
        "nothing": "",
        "a list": "[1, 2]",
        "no JSON": os.urandom(10_000_000),
    }
    for name, content in rubbish.items():
        refused = post(content)
        assert 400 <= refused.status_code < 500, (name, refused.status_code)
        assert len(refused.json()["message"]) > 20, name
    assert post('{"inputs": ' + "[" * 100_000).status_code >= 400
    assert post(body).status_code == 200


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_a_poisoned_store_runs_no_code(
    chain: Results, entry: Command, own_cache: Path, small_digits: Path, tmp_path: Path
) -> None:
    """Catches an artifact, a model or a cached file that is unpickled: whoever wrote it could run what they like."""
    marker = tmp_path / "marker"
    poison = pickle.dumps(Payload(marker))
    pickle.loads(poison)
    assert marker.exists()  # it would work
    marker.unlink()
    base = chain.client.get_model_version_by_alias(NAME, "seed-40")
    model = Path(chain.client.get_logged_model(base.source.removeprefix("models:/")).artifact_location)
    places = {
        "model": model / "data" / "model.pt2",
        "logits/train.npz": Path(chain.client.get_run(base.run_id).info.artifact_uri) / "logits" / "train.npz",
    }
    for cached in own_cache.rglob("features.npy"):
        cached.write_bytes(poison)
    parameters = {
        "data_dir": str(small_digits), "methods": "naive", "forget_percentage": "22", "seeds": "40,41",
        "ledger": "ignore",  # the chain's request is answered: its version would be the base
    }  # fmt: skip
    for words, path in places.items():
        whole = path.read_bytes()  # fails where MLflow keeps it elsewhere
        path.write_bytes(poison)
        try:
            done = entry("unlearn", chain.folder, n_epoch_repair="1", **parameters)
        finally:
            path.write_bytes(whole)
        assert done.returncode == 2, done.stderr
        assert re.search(rf"error: .*{re.escape(words)}.* cannot be read", done.stderr), done.stderr
        assert not marker.exists()


def test_what_fails_the_rule_is_refused_with_the_reason(chain: Results, entry: Command, small_digits: Path) -> None:
    """Catches a wrecked model in service, a refusal without its reason, and finished work thrown away."""
    before = chain.client.get_model_version_by_alias(NAME, "unlearned").version
    wrecked = {
        "seeds": "40,41", "n_epoch_repair": "0", "methods": "naive,omp", "data_dir": str(small_digits),
        "ledger": "ignore",  # the chain has answered this request already
    }  # fmt: skip
    for register in ("omp", "best"):  # 95 % of the weights are gone and nothing is repaired
        done = entry("unlearn", chain.folder, register=register, **wrecked)
        assert done.returncode == 2
        assert f"error: register='{register}' is refused: " in done.stderr
        assert re.search(
            r"remain accuracy is \d+\.\d points below naive's \(± \d+\.\d points\), 1\.\d points are allowed",
            done.stdout,
        )
        assert re.search("go on with `.*entrypoints.unlearn .*--methods naive --register naive`", done.stderr)
        assert done.stderr.count("\n") == 1
        (run, *_) = chain.runs("tags.stage = 'unlearn' and tags.role = 'parent'")
        assert run.info.status == "FINISHED" and "points below naive's" in run.data.tags["registration_refused"]
    assert chain.client.get_model_version_by_alias(NAME, "unlearned").version == before
    assert len(chain.client.search_model_versions(f"name='{NAME}'")) == 4
    done = entry("unlearn", chain.folder, **wrecked)
    assert "reusing 6 finished runs" in done.stdout
