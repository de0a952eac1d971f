"""Tuning: what is drawn, what the trials may see, what is chosen, and what of it is done again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from audio_mu import api
from audio_mu.audit.rehearsal import Score
from audio_mu.config import REPAIR_FIELDS, Config
from audio_mu.errors import UserError
from audio_mu.report.trials import recommendation, trials_table, tuned_yaml
from audio_mu.unlearning import METHODS, choice, log_uniform, method, of_recipe_rate
from audio_mu.unlearning.trials import Trial, draw_trials
from audio_mu.workflows.method_settings import check_methods, hyper_parameters_of, method_settings
from audio_mu.workflows.tune import rehearse

SEED = 42


@pytest.mark.parametrize("name", sorted(name for name, m in METHODS.items() if m.search))
def test_declared_ranges_hold_values_that_the_method_takes(name: str, tmp_path: Path) -> None:
    """Catches a misspelt range, a default far outside its range, and values that `method_config` refuses."""
    registered = METHODS[name]
    trials = draw_trials(name, registered.search, 4, 0.01, SEED)
    file = tmp_path / "tuned.yaml"
    for trial in trials:
        file.write_text(yaml.safe_dump({name: dict(trial.values)}))
        config = Config.from_text({"methods": name, "method_config": str(file)})
        assert check_methods(config) == (name,)
        given = hyper_parameters_of(trial.values)
        assert set(given) <= set(registered.hyper_parameters)
        assert all(type(value) in (int, float) for value in trial.values.values())
    for key, value_range in registered.search.items():
        default = registered.hyper_parameters.get(key)
        if default is not None and hasattr(value_range, "low"):
            assert value_range.low <= default <= value_range.high


def test_every_method_but_naive_can_be_tuned() -> None:
    """Catches a method that came without ranges."""
    assert {name for name, registered in METHODS.items() if registered.search} == set(METHODS) - {
        "naive",
        "exact_shards",
    }


def test_draws_are_the_published_values_first_then_different_and_repeatable() -> None:
    """Catches a search that can end below the published values, repeats itself, or changes with its length."""
    ranges = {"rate": log_uniform(0.001, 0.1), "epochs": choice(1, 2)}
    short, long = (draw_trials("some", ranges, n, 0.01, SEED) for n in (4, 9))
    assert short == long[:4]
    assert long[0] == Trial("some", 0, {})
    assert len({json.dumps(t.values) for t in long}) == 9
    assert draw_trials("other", ranges, 4, 0.01, SEED)[1].values != short[1].values
    assert draw_trials("some", ranges, 4, 0.01, SEED + 1)[1].values != short[1].values
    assert len(draw_trials("some", {"epochs": choice(1, 2)}, 9, 0.01, SEED)) == 3


def test_ranges_are_uniform_in_the_logarithm_and_follow_the_recipe() -> None:
    """Catches a uniform draw, in which nine tenths of the values lie in the highest decade, and a fixed rate."""
    generator = np.random.default_rng(0)
    drawn = np.array([log_uniform(0.001, 1).draw(generator, 7.0) for _ in range(600)])
    assert drawn.min() >= 0.001 and drawn.max() <= 1
    counts = np.histogram(np.log10(drawn), bins=3, range=(-3, 0))[0]
    assert counts.min() > 150
    scaled = [of_recipe_rate(0.5, 2).draw(generator, 0.01) for _ in range(50)]
    assert min(scaled) >= 0.005 and max(scaled) <= 0.02


def test_score_counts_both_directions_of_the_forget_gap_but_only_losses_of_accuracy() -> None:
    """Catches a score that rewards forgetting beyond the retrained network, or punishes a better accuracy."""
    reference = Score(0.9, 0.9, 0.3, 0.8)
    assert Score(0.7, 0.9, 0.3, 0.8).against(reference) == pytest.approx(0.2)
    assert Score(1.0, 0.9, 0.3, 0.9).against(reference) == pytest.approx(0.1)
    assert Score(0.9, 0.9, 0.3, 0.5).against(reference) == pytest.approx(0.3)


def score(confidence: float, validation: float = 0.9, error: float = 0.02) -> Score:
    return Score(confidence, 0.9, 0.3, validation, error)


def searched(base: Score, reference: Score, **scores: Score) -> tuple[pd.DataFrame, str, dict]:
    """Table, recommendation and tuned.yaml of a search of three trials of salun and one of scrub."""
    trials = [Trial("salun", i, {"rate": i} if i else {}) for i in range(3)] + [Trial("scrub", 0, {})]
    found = {trial.key: scores[f"{trial.method}{trial.number}"] for trial in trials}
    table = trials_table(trials, found, reference, base)
    best = table[table["chosen"]]
    keys = set(zip(best["method"], best["trial"]))
    chosen = {trial.method: trial.values for trial in trials if (trial.method, trial.number) in keys}
    text = tuned_yaml("audio-mu.x", "item-10", table, chosen)
    return table, recommendation(table, reference, base, "COMMAND"), yaml.safe_load(text) or {}


def test_trials_no_better_than_nothing_are_marked() -> None:
    """Catches values recommended that are worse than leaving the model alone, or better by luck alone."""
    table, words, tuned = searched(
        score(0.98), score(0.80), salun0=score(0.97), salun1=score(0.82), salun2=score(0.99), scrub0=score(0.98, 0.5)
    )  # fmt: skip
    better = {(row.method, row.trial): row.better for row in table.itertuples()}
    assert better == {("salun", 0): "perhaps", ("salun", 1): "surely", ("salun", 2): "no", ("scrub", 0): "no"}
    assert tuned == {"salun": {"rate": 1}}
    assert words == "use it (not of scrub: not surely better than doing nothing): COMMAND"


def test_nothing_is_recommended_where_nothing_can_be_told() -> None:
    """Catches a near no-op called tuned: the untouched network cannot be told from a retrained one on this request."""
    trials = {"salun0": score(0.97), "salun1": score(0.935), "salun2": score(0.9), "scrub0": score(0.94)}
    table, words, tuned = searched(score(0.972, error=0.012), score(0.933, error=0.022), **trials)
    assert words.startswith(
        "nothing is recommended: the forget confidence of a network that nothing was done to (0.972)"
    )
    assert "surely" not in set(table["better"])
    assert tuned == {}
    unsure = {name: score(0.93, error=0.1) for name in trials}
    _, words, tuned = searched(score(0.98), score(0.80), **unsure)
    assert words.startswith("nothing is recommended: no trial is surely better")
    assert tuned == {}


def test_diverged_trials_are_never_better() -> None:
    """Catches figures that are not finite and compare as true."""
    nan = Score(math.nan, math.nan, math.nan, math.nan)
    table, _, _ = searched(score(0.98), score(0.8), salun0=nan, salun1=nan, salun2=nan, scrub0=nan)
    assert set(table["better"]) == {"no"}


def data(hashes: list[str]) -> SimpleNamespace:
    n = len(hashes)
    ids, labels = tuple(map(str, range(n))), torch.arange(n) % 2
    clips = SimpleNamespace(hashes=tuple(hashes), ids=ids, labels=labels, recordings=np.arange(n))
    return SimpleNamespace(clips=clips)


def test_validation_part_is_held_out_from_everything() -> None:
    """Catches test clips in the rehearsal, and validation on clips (or copies) that a network was trained on."""
    forget, remain, test = np.arange(10), np.arange(10, 74), np.arange(74, 90)
    request = SimpleNamespace(forget=forget, remain=remain, test=test, kind="item")
    config = Config.from_text({})
    clean = rehearse(config, data([f"h{i}" for i in range(90)]), request)
    assert len(clean.validation) == 8
    assert set(clean.validation) | set(clean.fit) == set(remain)
    assert not set(clean.validation) & set(clean.fit)
    first, *others = clean.validation
    copied = [f"h{i}" for i in range(90)]
    copied[first] = copied[forget[3]]
    copied[others[0]] = copied[clean.fit[0]]
    assert set(rehearse(config, data(copied), request).validation) == set(others[1:])
    with pytest.raises(UserError, match="none can validate"):
        rehearse(config, data(["same"] * 90), request)
    assert set(np.concatenate(list(clean.sets.values()))).isdisjoint(test)
    assert clean.base_seed != clean.reference_seed


def test_settings_of_one_method_win_over_the_configured_ones(tmp_path: Path) -> None:
    """Catches repair settings in `method_config` that are ignored, sent to every method, or not checked."""
    config = Config.from_text({"n_epoch_impair": "2", "repair_learning_rate": "0.5"})
    values = {"n_epoch_impair": 3, "impair_learning_rate": 0.25, "prune_rate": 0.5}
    settings = method_settings(config, values)
    assert (settings.n_epoch_impair, settings.impair_learning_rate, settings.repair_learning_rate) == (3, 0.25, 0.5)
    assert hyper_parameters_of(values) == {"prune_rate": 0.5}
    file = tmp_path / "config.yaml"
    for wrong, words in [
        ({"gradient_ascent": {"impair_learning_rate": -1}}, "impair_learning_rate='-1'"),
        ({"pop": {"impair_learning_rate": 0.1}}, "pop takes n_epoch_repair, repair_learning_rate"),
        ({"delete": {"repair_learning_rate": 0.1}}, "delete takes epochs, learning_rate, impair_learning_rate"),
        ({"naive": {"repair_learning_rate": 0.1}}, "naive takes no hyper-parameters"),
        ({"ssd": {"n_epoch_repair": 3}}, r"ssd takes alpha, dampening, got \{'n_epoch_repair': 3\}"),
        ({"omp": {"prune_rate": 95}}, "omp: prune_rate=95 is not allowed: give a number from 0 to 1"),
        ({"eu_k": {"epochs": -3}}, "eu_k: epochs=-3 is not allowed: give a whole number from 1 on"),
        ({"eu_k": {"epochs": 2.5}}, "eu_k: epochs=2.5 is not allowed: give a whole number"),
        ({"neggrad_plus": {"remain_weight": 95}}, "remain_weight=95 is not allowed: give a number from 0 to 1"),
        ({"ssd": {"alpha": -1}}, "ssd: alpha=-1 is not allowed: give a number from 0 on"),
        ({"scrub": {"epochs": 10**10}}, "scrub: epochs=10000000000 is not of the kind of its default, 10"),
    ]:
        file.write_text(yaml.safe_dump(wrong))
        with pytest.raises(UserError, match=words):
            check_methods(Config.from_text({"method_config": str(file)}))


def test_a_range_of_what_a_method_does_not_have_is_refused() -> None:
    """Catches a search over a name that no run would read."""
    with pytest.raises(ValueError, match="rates"):

        @method(reads={"remain"}, search={"rates": choice(1)})
        def some(task: object, *, rate: float = 1.0) -> None:
            """Nothing."""

    assert "some" not in METHODS
    assert not set(REPAIR_FIELDS) & set(METHODS["naive"].configurable)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("tune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path / 'mlflow.db'}")
        patch.chdir(path)
        yield path


def runs(folder: Path, condition: str) -> list:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return list(MlflowClient(uri, uri).search_runs(["0"], condition, order_by=["attributes.start_time ASC"]))


def test_search_on_a_real_store(
    folder: Path, small_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches unequal budgets, a tuned.yaml that cannot be used, finished trials run again, and the worst chosen."""
    settings = {
        "data_dir": small_digits,
        "seeds": 40,
        "n_epochs": 3,
        "n_epoch_repair": 1,
        "batch_size": 16,
        "workers": 1,
    }
    api.train(**settings)
    first = api.tune(**settings, methods="naive,pop,delete", n_trials=2)
    assert "nothing to tune: naive" in capsys.readouterr().out
    assert first.groupby("method").size().to_dict() == {"pop": 2, "delete": 2}

    table = api.tune(**settings, methods=["pop", "delete"], n_trials=3)
    said = capsys.readouterr().out
    assert "reusing 4 finished trials" in said
    assert len(runs(folder, "tags.role = 'trial'")) == 6
    assert len(runs(folder, "tags.role = 'reference'")) == 1
    pd.testing.assert_frame_equal(
        first.drop(columns="chosen").sort_values(["method", "trial"]).reset_index(drop=True),
        table[table["trial"] < 2].drop(columns="chosen").sort_values(["method", "trial"]).reset_index(drop=True),
    )

    for _, trials in table.groupby("method"):
        assert trials.loc[trials["chosen"], "score"].tolist() == [trials["score"].min()]
    (reference,) = runs(folder, "tags.role = 'reference'")
    for run in runs(folder, "tags.role = 'trial'"):
        assert {"stage", "method", "request", "request_hash", "trial", "fingerprint"} <= set(run.data.tags)
        own, of = run.data.metrics, reference.data.metrics
        lacking = max(0.0, of["validation/accuracy"] - own["validation/accuracy"])
        expected = abs(own["forget/confidence"] - of["forget/confidence"]) + lacking
        assert own["tune/score"] == pytest.approx(expected)
        assert own["forget/confidence"] >= math.exp(-own["forget/loss"]) - 1e-9  # Jensen
    parent = runs(folder, "tags.stage = 'tune' and tags.role = 'parent'")[-1]
    assert "method" not in parent.data.tags

    path = Path(parent.info.artifact_uri.removeprefix("file://")) / "tuned.yaml"
    assert "nothing is recommended" in said or f"method_config={path}" in said
    tuned = yaml.safe_load(path.read_text()) or {}
    sure = table[table["chosen"] & (table["better"] == "surely")]
    assert tuned == {row.method: json.loads(row.values) for row in sure.itertuples() if json.loads(row.values)}
    assert ("nothing is recommended" in said) == sure.empty
    assert check_methods(Config.from_text({"methods": "pop,delete", "method_config": str(path)})) == ("pop", "delete")


def test_nothing_to_tune_is_refused_before_any_work(folder: Path) -> None:
    """Catches a search without trials that ends as if it had found something."""
    with pytest.raises(UserError, match="nothing to tune: choose from"):
        api.tune(methods="naive")
