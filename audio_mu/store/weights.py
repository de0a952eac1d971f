"""The weights of a pt2 archive, read as bytes.

`torch.export.load` unpickles what the archive says is pickled, and evaluates the symbolic sizes of its graph as
Python (`sympy.sympify`), which MLflow's check of the archive lets through: whoever can alter a model could run code.
The weights need neither: a JSON file lists their types, shapes and files, and each file is the bare numbers.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONFIG = "data/weights/model_weights_config.json"
REREAD = 8  # tied weights share a file
TYPES = {1: torch.uint8, 4: torch.int32, 5: torch.int64, 7: torch.float32, 8: torch.float64, 12: torch.bool}
"""By the numbers of torch's export schema; of these networks have weights and buffers."""


class BadWeights(Exception):
    """Why an archive's weights cannot be read; the message does not name the archive."""


def read_weights(archive: Path) -> dict[str, Tensor]:
    """Name → tensor of one of `TYPES`, on the CPU. What is read is at most `REREAD` times the archive's size.

    Raises `BadWeights` for what `torch.export.save` would not have written for such a model.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = {info.filename: info for info in content.infolist()}
            for name, info in members.items():
                # Of a stored member both sizes are one; zipfile would read as much as the other one claims.
                if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                    raise BadWeights(f"{name[:100]!r} in it is compressed")
            (config,) = [name for name in members if name.endswith(f"/{CONFIG}") or name == CONFIG]
            folder = config.rpartition("/")[0]
            weights, left = {}, REREAD * archive.stat().st_size
            for name, entry in json.loads(content.read(config))["config"].items():
                member = members[f"{folder}/{entry['path_name']}"]
                left -= member.file_size
                if left < 0:
                    raise BadWeights("its weights are larger than it is")
                weights[name] = _tensor(name, entry, content.read(member))
            return weights
    except BadWeights:
        raise
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, LookupError, ArithmeticError, TypeError,
            AttributeError, RuntimeError) as error:  # fmt: skip
        raise BadWeights(f"it is no archive of weights, {type(error).__name__}: {str(error)[:100]!r}") from None


def _tensor(name: str, entry: dict[str, Any], data: bytes) -> Tensor:
    if entry["use_pickle"] is not False:
        raise BadWeights(f"weight {name[:100]!r} is pickled, which may run code")
    about = entry["tensor_meta"]
    if about["dtype"] not in TYPES:
        raise BadWeights(f"weight {name[:100]!r} has the type {str(about['dtype'])[:100]!r}, which is none of ours")
    sizes, strides = ([int(size["as_int"]) for size in about[key]] for key in ("sizes", "strides"))
    if math.prod(sizes) == 0 or min(sizes, default=1) < 0 or math.prod(sizes) > len(data):
        raise BadWeights(f"weight {name[:100]!r} has the shape {str(sizes)[:100]} but {len(data)} bytes")
    flat = torch.frombuffer(bytearray(data), dtype=TYPES[about["dtype"]])
    return flat.as_strided(sizes, strides, int(about["storage_offset"]["as_int"])).clone()
