"""The parameters of every command: groups, parsers, and the recipes of the data sets."""

from audio_mu.config.parameters import (
    BASE_FIELDS,
    GROUP_FIELDS,
    LONGEST_SHOWN,
    PARAMETERS,
    REPAIR_FIELDS,
    AdoptParameters,
    AttackParameters,
    Config,
    DataParameters,
    MachineParameters,
    MethodParameters,
    RepairParameters,
    RequestParameters,
    StoreParameters,
    TrainingParameters,
    defaults,
    parse,
)
from audio_mu.config.parsers import AUTO, STUDY_KEYS
from audio_mu.config.recipe import Recipe, load_recipe

__all__ = [
    "AUTO", "AdoptParameters", "AttackParameters", "BASE_FIELDS", "Config", "DataParameters", "GROUP_FIELDS",
    "LONGEST_SHOWN", "MachineParameters",
    "MethodParameters", "PARAMETERS", "REPAIR_FIELDS", "Recipe", "RepairParameters", "RequestParameters",
    "STUDY_KEYS", "StoreParameters", "TrainingParameters", "defaults", "load_recipe", "parse",
]  # fmt: skip
