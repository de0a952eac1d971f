"""The whole chain: train, attack, unlearn, compare."""

import sys

from audio_mu.workflows.command import command


def work(config, store, engine):
    from audio_mu.workflows.main import run_all

    run_all(config, store, engine)


if __name__ == "__main__":
    sys.exit(command(__doc__, work))
