"""Which entry point reads which parameters, and the page docs/parameters.md (`python -m audio_mu.config.reads`)."""

from __future__ import annotations

from audio_mu.config.parameters import BASE_FIELDS, GROUP_FIELDS, PARAMETERS, Config

DATA, TRAINING, REQUEST, REPAIR = (GROUP_FIELDS[name] for name in ("data", "training", "request", "repair"))
OF_BASES = (*DATA, *(name for name in TRAINING if name != "seeds"))
"""The parameters that say of which recordings a base model was trained, and how."""
_BASES, _REUSE = (*OF_BASES, "seeds"), ("ledger", "force")
_ADOPT = GROUP_FIELDS["adopt"]
_CELLS = ("dataset", "dataset_name", "data_dir", "labels", "pipeline", "architecture", "seeds")
_OF_METHODS = ("methods", "method_config", "deep_audits", "robust_audits", "save_models", "register")
_OF_REPORT = (*BASE_FIELDS, *REQUEST, *REPAIR, "methods", "register")

READS: dict[str, tuple[str, ...]] = {
    "main": tuple(name for name in PARAMETERS if name not in ("n_trials", "request", "confirm", *_ADOPT)),
    "train": (*_BASES, *GROUP_FIELDS["machine"], *_REUSE),
    "adopt": (*_BASES, *_ADOPT, "device", "threads", *_REUSE),
    "attack": (*_BASES, *GROUP_FIELDS["attack"], *GROUP_FIELDS["machine"], *_REUSE),
    "unlearn": (*_BASES, *REQUEST, *REPAIR, *_OF_METHODS, *GROUP_FIELDS["machine"], *_REUSE),
    "compare": _CELLS,
    "report": tuple(dict.fromkeys((*_CELLS, *_OF_REPORT))),
    "tune": (*_BASES, *REQUEST, *REPAIR, "methods", "n_trials", *GROUP_FIELDS["machine"], *_REUSE),
    "erase": ("dataset", "dataset_name", "data_dir", "labels", "request", "confirm"),
}
"""Entry point → names of the parameters that matter to it. Every entry point takes, and checks, all of them."""

_NOT_OF_A_FIGURE = {*GROUP_FIELDS["machine"], *GROUP_FIELDS["store"], *REQUEST} - {"request", "confirm"}

_HEAD = """# Parameters

Written from the code by `python -m audio_mu.config.reads > docs/parameters.md`.

Every entry point takes every parameter, as `mlflow run . -e unlearn -P name=value`,
`python -m entrypoints.unlearn --name value` or `audio-mu unlearn --name value`, and refuses an unknown name, a wrong
value or a contradiction before any work. `auto` leaves the value to the data set's recipe (audio_mu/config/recipes/),
to the method (its published rate) or to the machine. A parameter of base models that is given must be the one that they
were trained with; left out, `attack`, `unlearn` and `tune` take it from the registered version.

MLproject declares the few that an entry point is usually given; all others are given the same way.
"""


def in_force(config: Config, entry_point: str) -> dict[str, str]:
    """The parameters that an entry point's run logs: those that it reads and that are in force, as text.

    Of the request these are the parameters that its kind reads. Parameters of machine and reuse change no figure.
    """
    names = [name for name in READS[entry_point] if name not in _NOT_OF_A_FIGURE]
    return config.as_text([*names, *(name for name in config.request.in_force if name in READS[entry_point])])


def help_text(entry_point: str) -> str:
    """One line for each parameter, those that the entry point reads first: name, default, meaning."""
    own, others = READS[entry_point], [name for name in PARAMETERS if name not in READS[entry_point]]
    parts = []
    for heading, names in (("Parameters (name, default, meaning)", own), ("Taken, and not read here", others)):
        about = [(name, PARAMETERS[name]) for name in names]
        lines = [f"  --{name:<22} {a.text or '(empty)':<16} {a.meaning}" for name, a in about]
        parts += ["\n".join([f"{heading}:", *lines])] if lines else []
    return "\n\n".join(parts)


def _in_groups(names: tuple[str, ...]) -> str:
    """Names of parameters, a whole group as a link to its table."""
    parts = []
    for group, members in GROUP_FIELDS.items():
        read = [name for name in members if name in names]
        if read == list(members):
            parts.append(f"all of [{group.capitalize()}](#{group})")
        else:
            parts += [f"`{name}`" for name in read]
    return ", ".join(parts)


def page() -> str:
    """The text of docs/parameters.md: per entry point the parameters that it reads, per group their meaning."""
    lines = [_HEAD, "## By entry point\n"]
    for entry_point, names in READS.items():
        lines.append(f"- **`{entry_point}`** reads {_in_groups(names)}.")
    lines.append("")
    for group, names in GROUP_FIELDS.items():
        lines += [f"## {group.capitalize()}\n", "| parameter | default | meaning | read by |", "|---|---|---|---|"]
        for name in names:
            about = PARAMETERS[name]
            default = f"`{about.text}`" if about.text else "(empty)"
            of_base = " (of base models)" if about.of_base else ""
            read_by = ", ".join(entry for entry, read in READS.items() if name in read)
            lines.append(f"| `{name}` | {default} | {about.meaning.replace('|', ', ')}{of_base} | {read_by} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
