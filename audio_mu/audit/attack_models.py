"""The study's membership-inference attack: small networks that tell members from non-members by their loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from audio_mu.audit.performance import log_loss_feature, softmax
from audio_mu.audit.statistics import balanced_accuracy_interval
from audio_mu.errors import UserError
from audio_mu.seeding import seeded
from audio_mu.training import Examples, OptimizerSettings, fit, predict

DRAW_SEED = 42
HIDDEN = (128, 64)
BATCH = 264
EPOCHS = 50
LEARNING_RATE = 0.001
FEWEST = 3  # members, and non-members: one for each part
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.125  # of what is not tested on: 70 % training, 10 % validation, 20 % test
MEMBER, NONMEMBER = 0, 1


def build_attack_network() -> nn.Sequential:
    """The study's attack network, 1-128-64-2 with tanh: features float32 [n, 1] → logits [n, 2]."""
    first, second = HIDDEN
    return nn.Sequential(nn.Linear(1, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 2))


def balanced_rows(losses: Mapping[int, pd.DataFrame], excluded: frozenset[str] = frozenset()) -> pd.DataFrame:
    """The attack's data set: as many members as non-members, each clip with one row for every model seed.

    `losses[seed]` has the columns clip_id, loss, member (1 = trained on), the same clips for every seed.
    `excluded` clips (copies of training clips in the test set) are left out. Returns the columns clip_id, seed,
    loss, label (0 member, 1 non-member) and part (train, validation, test); all rows of a clip are in one part.
    Raises `UserError` where there are fewer than three of either kind.
    """
    from sklearn.model_selection import train_test_split

    first = next(iter(losses.values()))
    clips = first.loc[~first["clip_id"].isin(excluded), ["clip_id", "member"]].sort_values("clip_id")
    by_label = {label: clips.loc[clips["member"] == 1 - label, "clip_id"].to_numpy() for label in (MEMBER, NONMEMBER)}
    size = min(len(ids) for ids in by_label.values())
    if size < FEWEST:
        raise UserError(
            f"attack: {len(by_label[MEMBER])} training clips and {len(by_label[NONMEMBER])} test clips that are no "
            f"copies of them are too few, {FEWEST} of each are needed: more recordings, or another split"
        )
    draw = np.random.default_rng(DRAW_SEED)
    labels: dict[str, int] = {}
    parts: dict[str, str] = {}
    for label, ids in by_label.items():
        chosen = np.sort(draw.choice(ids, size=size, replace=False))
        labels |= dict.fromkeys(chosen, label)
        rest, test = train_test_split(chosen, test_size=TEST_SHARE, random_state=DRAW_SEED)
        train, validation = train_test_split(rest, test_size=VALIDATION_SHARE, random_state=DRAW_SEED)
        for part, members in (("train", train), ("validation", validation), ("test", test)):
            parts |= dict.fromkeys(members, part)
    frames = [
        frame.loc[frame["clip_id"].isin(labels), ["clip_id", "loss"]].assign(seed=seed)
        for seed, frame in sorted(losses.items())
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows["label"] = rows["clip_id"].map(labels)
    rows["part"] = rows["clip_id"].map(parts)
    return rows.sort_values(["seed", "clip_id"], ignore_index=True)[["clip_id", "seed", "loss", "label", "part"]]


@dataclass(frozen=True)
class Attack:
    """Trained attack models and the feature that they read.

    `feature`: `log_loss` = ln(max(CE, 1e-12)), standardised by `scaling[seed]` = (mean, standard deviation) of
    the attack's training part; `loss` = the CE loss as it is (the study's way, not scaled).
    """

    networks: tuple[nn.Module, ...]
    feature: str
    scaling: Mapping[int, tuple[float, float]]

    def inputs(self, losses: np.ndarray, seed: int) -> torch.Tensor:
        """Features float32 [n, 1] of CE losses [n] of the model of this seed."""
        values = np.asarray(losses, dtype=np.float64)
        if self.feature == "log_loss":
            mean, deviation = self.scaling[seed]
            values = (log_loss_feature(values) - mean) / deviation
        return torch.from_numpy(values.astype(np.float32)[:, None])

    def called_nonmember(self, losses: np.ndarray, seed: int) -> np.ndarray:
        """Share of clips [n] that the attack models call non-member, mean over the models: the MIA score."""
        features = self.inputs(losses, seed)
        index = np.arange(len(features))
        votes = [predict(network, features, index).argmax(axis=1) == NONMEMBER for network in self.networks]
        return np.mean(votes, axis=0)


@dataclass(frozen=True)
class AttackQuality:
    """One attack model on the attack's test part.

    `collapsed`: it gives one answer to every clip. `at_chance`: the 95 % interval of its balanced accuracy,
    counted in clips (the rows of one clip are no independent trials), contains 0.5.
    """

    accuracy: float
    balanced_accuracy: float
    low: float
    high: float
    auc: float
    collapsed: bool
    at_chance: bool


def train_attack(rows: pd.DataFrame, n_models: int, feature: str) -> tuple[Attack, list[AttackQuality]]:
    """Train attack models with the seeds 0, 1, …, each keeping its best epoch on the validation part."""
    training = rows[rows["part"] == "train"]
    scaling = {}
    for seed, group in training.groupby("seed"):
        values = log_loss_feature(group["loss"].to_numpy())
        scaling[int(seed)] = (float(values.mean()), float(values.std()) or 1.0)
    blank = Attack((), feature, scaling)
    inputs = torch.cat([blank.inputs(group["loss"].to_numpy(), int(seed)) for seed, group in rows.groupby("seed")])
    labels = torch.tensor(rows["label"].to_numpy(np.int64))
    position = {part: np.flatnonzero(rows["part"].to_numpy() == part) for part in ("train", "validation", "test")}
    networks = [_train_one(inputs, labels, position, seed) for seed in range(n_models)]
    quality = [_quality(network, inputs, labels, position["test"], len(scaling)) for network in networks]
    return Attack(tuple(networks), feature, scaling), quality


def _train_one(inputs: torch.Tensor, labels: torch.Tensor, position: Mapping[str, np.ndarray], seed: int) -> nn.Module:
    best_accuracy, best_state = -1.0, None

    def keep_best(_epoch: int, _loss: float) -> None:
        nonlocal best_accuracy, best_state
        answers = predict(network, inputs, position["validation"]).argmax(axis=1)
        accuracy = float((answers == labels.numpy()[position["validation"]]).mean())
        if accuracy > best_accuracy:
            best_accuracy = accuracy
            best_state = {name: value.clone() for name, value in network.state_dict().items()}

    with seeded(seed):
        network = build_attack_network()
        fit(
            network,
            Examples(inputs, labels, torch.from_numpy(position["train"])),
            OptimizerSettings("adam", LEARNING_RATE).build(network.parameters()),
            epochs=EPOCHS,
            batch_size=BATCH,
            seed=seed,
            after_epoch=keep_best,
        )
    assert best_state is not None  # there is at least one epoch
    network.load_state_dict(best_state)
    return network.eval()


def _quality(
    network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, test: np.ndarray, n_seeds: int
) -> AttackQuality:
    from sklearn.metrics import roc_auc_score

    logits = predict(network, inputs, test)
    truth = labels.numpy()[test]
    answers = logits.argmax(axis=1)
    right = answers == truth
    members, nonmembers = truth == MEMBER, truth == NONMEMBER
    counts = [round(rows.sum() / n_seeds) for side in (members, nonmembers) for rows in (right[side], side)]
    interval = balanced_accuracy_interval(*counts)
    collapsed = len(set(answers.tolist())) == 1
    return AttackQuality(
        accuracy=float(right.mean()),
        balanced_accuracy=float(np.mean([right[members].mean(), right[nonmembers].mean()])),
        low=interval.low,
        high=interval.high,
        auc=float(roc_auc_score(truth, softmax(logits)[:, NONMEMBER])),
        collapsed=collapsed,
        at_chance=collapsed or interval.at_chance,
    )


def mean_quality(quality: Sequence[AttackQuality]) -> dict[str, float]:
    """Means over the attack models, with the share of models that collapsed or are at chance."""
    names = ("accuracy", "balanced_accuracy", "auc", "collapsed", "at_chance")
    return {name: float(np.mean([getattr(q, name) for q in quality])) for name in names}
