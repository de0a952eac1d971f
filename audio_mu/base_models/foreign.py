"""Weights that somebody else has trained: read without running any code of theirs, and held against a network.

`.safetensors` are bare numbers, `.pt` goes through torch's restricted reader (`weights_only`), of a model of MLflow the
state alone is read, as in `store/weights.py`.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from textwrap import shorten

import numpy as np
import torch
from torch import Tensor, nn

from audio_mu.config import Config
from audio_mu.errors import UserError, counted, first_of, memory_ended, one_line
from audio_mu.store import registry
from audio_mu.store.faults import refuse_machine_fault
from audio_mu.store.weights import BadWeights, read_weights
from audio_mu.system.reading import read_text

OF_STORE = ("models:/", "runs:/")
INSIDE = ("state_dict", "model_state_dict", "model")
"""Names under which checkpoints keep the weights."""
WRAPPERS = ("module.", "network.", "model.", "_orig_mod.")
"""What others' training, our served models and torch's compiler put before the names of weights."""
SEEDED = re.compile(r"(\d+)=(.+)", re.DOTALL)
LONGEST, SHOWN = 1_000, 120  # characters of a library's error that are read, and that are shown
PICKLED = (b"\x80", b"P")
"""First bytes of pickled Python, and of an archive that holds some."""
INDEX = "weight_map"
"""Where the index of a model in several files has them: name of a weight → file."""
KINDS = (
    {torch.float16, torch.bfloat16, torch.float32, torch.float64},
    {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64},
)
"""Types of numbers that become each other; all others, as those of 8 bits, mean nothing without their scales."""
State = Mapping[str, Tensor]


def places_by_seed(config: Config) -> dict[int, str]:
    """Seed → file or URI of `weights`. Raises `UserError` where that is not one for each seed."""
    given = config.adopt.weights
    if not given:
        raise UserError("adopt needs weights: give -P weights=FILE.safetensors, a .pt file, models:/… or runs:/…")
    seeded = [match for place in given if (match := SEEDED.fullmatch(place))]
    seeds = config.training.seeds if "seeds" in config.given else ()
    if not seeded and len(given) == 1:
        if len(seeds) > 1:
            raise UserError(
                f"weights={given[0]!r} is one model and seeds={','.join(map(str, seeds))} are {len(seeds)}: give one "
                f"seed, or weights={seeds[0]}=FILE,{seeds[1]}=FILE"
            )
        return {(seeds or config.training.seeds)[0]: given[0]}
    places = {int(match[1]): match[2] for match in seeded}
    if not len(given) == len(seeded) == len(places):
        raise UserError(f"weights={','.join(given)!r} are several models: give the seed of each, once: 40=FILE,41=FILE")
    if seeds and {*seeds} != {*places}:
        raise UserError(
            f"weights names the seeds {','.join(map(str, places))} but seeds={','.join(map(str, seeds))} was given: "
            "leave seeds out"
        )
    return places


def read_foreign(place: str) -> dict[str, Tensor]:
    """The weights of a file or URI by name, on the CPU. Raises `UserError` where there are none, or NaN among them."""
    if place.startswith(OF_STORE):
        with registry.fetched(place, _holds_weights) as folder:
            state = _of_folder(place, folder)
    else:
        path = Path(place).expanduser()
        if not path.is_file():
            raise UserError(
                f"weights={place!r} is not a file: give an existing .safetensors or .pt file, models:/… or runs:/…"
            )
        state = _of_file(place, path)
    for name, value in state.items():
        if odd := _odd_form(value):
            raise UserError(f"weights={place!r}: {name!r} is {odd}")
        if value.dtype in KINDS[0] and not value.isfinite().all():
            raise UserError(f"weights={place!r}: {name!r} holds NaN or infinity: give weights that are numbers")
    return state


def _odd_form(value: Tensor) -> str:
    """What a tensor is beside bare numbers, and what to do, as the end of a sentence; empty for bare numbers."""
    if value.is_nested:
        return "nested, rows of several lengths: save a tensor for each"
    if value.is_quantized:
        return "quantised: save value.dequantize(), or the weights from before"
    if value.layout != torch.strided:
        return f"sparse ({value.layout}): save value.to_dense()"
    if value.device.type != "cpu":
        return f"without numbers here, on the device {value.device.type}: load the weights, then save them"
    return ""


def _holds_weights(path: str) -> bool:
    name = PurePosixPath(path)
    return name.name in ("model.pt2", "state_dict.pth") or name.suffix == ".safetensors"


def _of_folder(place: str, folder: Path) -> dict[str, Tensor]:
    for found in sorted(folder.rglob("model.pt2")):
        try:
            return read_weights(found)
        except BadWeights as error:
            refuse_machine_fault(error)
            raise UserError(f"weights={place!r} cannot be read ({error}): save its state as .safetensors") from None
    if kept := sorted(path for path in folder.rglob("*") if path.is_file()):
        return _of_file(place, kept[0])
    raise UserError(
        f"weights={place!r} holds no weights that can be read without running code, such as a pickled model: load it "
        "where it was trained, and save its state_dict() as .safetensors"
    )


def _of_file(place: str, path: Path) -> dict[str, Tensor]:
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _restricted(path)
    except Exception as error:  # torch and safetensors raise whatever a damaged file makes them
        if memory_ended(error):
            raise
        refuse_machine_fault(error)
        raise UserError(f"weights={place!r} {_why_unread(path, error)}") from None
    for name in INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(
            f"weights={place!r} is no state_dict, names of weights with their numbers: save model.state_dict(), or "
            "{'state_dict': model.state_dict()}"
        )
    return {str(name): value.detach() for name, value in content.items()}


def _why_unread(path: Path, error: Exception) -> str:
    """Why a file's weights cannot be read, and what to do, as the end of a sentence."""
    if files := _indexed(path):
        load = "safetensors.torch.load_file" if files[0].endswith(".safetensors") else "torch.load"
        return (
            f"is the index of {counted(len(files), 'file')} ({first_of(files, 3)}), which hold the weights: join them "
            f"in Python, whole |= {load}(file) for each file, safetensors.torch.save_file(whole, 'whole.safetensors'), "
            "and give that"
        )
    if "TorchScript" in (told := one_line(error, LONGEST)):
        return "is TorchScript, which is code: save the state_dict() of torch.jit.load(file) as .safetensors"
    if not isinstance(error, pickle.UnpicklingError):
        words = shorten(told.partition(". ")[0], SHOWN, placeholder=" …")
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        return f"is damaged, or no file of weights ({reason}): save the network's state_dict() as .safetensors"
    with path.open("rb") as file:
        if file.read(1) not in PICKLED:
            return "is no file of weights: save the network's state_dict() as .safetensors"
    return (
        "holds no weights that can be read without running code, it is pickled Python: load it where it was trained, "
        "and save its state_dict() as .safetensors"
    )


def _indexed(path: Path) -> list[str]:
    """The files of a model that is in several, where this is their index as Hugging Face writes it; else none."""
    if path.suffix != ".json":
        return []
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return []
    files = found.get(INDEX) if isinstance(found, dict) else None
    return sorted({str(file) for file in files.values()}) if isinstance(files, dict) else []


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _restricted(path: Path) -> object:
    with warnings.catch_warnings(action="ignore"):  # of kinds of tensors that are refused, and of pickled files
        return torch.load(path, map_location="cpu", weights_only=True)


def fitted(place: str, state: State, network: nn.Module, where: str) -> dict[str, np.ndarray]:
    """The weights under the network's own names, in its order and types.

    `where`: how an error names the network. Raises `UserError` for the first weight that is missing, too many, of
    another shape or of another kind.
    """
    wanted = network.state_dict()
    found = _unwrapped(state, wanted)
    missing, others = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    if missing or others:
        told = [f"lacks {missing[0]!r} (of {len(missing)})"] if missing else []
        told += [f"has {others[0]!r} (of {len(others)}), which the network lacks"] if others else []
        raise UserError(f"weights={place!r} {' and '.join(told)}: {where} must have the weights' names, {_few(found)}")
    for name, own in wanted.items():
        given = found[name]
        if given.shape != own.shape:
            raise UserError(
                f"weights={place!r}: {name!r} has the shape {list(given.shape)}, in {where} it is {list(own.shape)}: "
                "give the class that was trained, for as many classes"
            )
        if given.dtype != own.dtype and not any({given.dtype, own.dtype} <= kind for kind in KINDS):
            raise UserError(
                f"weights={place!r}: {name!r} is {given.dtype}, in {where} it is {own.dtype}: save it as that"
            )
    return {name: found[name].to(own.dtype).contiguous().numpy() for name, own in wanted.items()}


def _unwrapped(state: State, wanted: State) -> State:
    """The same without what a wrapper has put before every name; of a served model the network's own."""
    found = {name: value for name, value in state.items() if not name.startswith("frontend.")}
    for prefix in WRAPPERS:
        without = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        if without.keys() == wanted.keys() and state.keys() != wanted.keys():
            return without
    return state


def _few(state: State) -> str:
    return first_of(sorted(state), 3)


def shown_place(place: str) -> str:
    """A file by its whole path, as tags and cards name it; a URI as it is."""
    if place.startswith(OF_STORE):
        return place
    with suppress(OSError):
        return str(Path(place).expanduser().absolute())
    return place
