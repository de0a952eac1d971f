"""Train membership attack models on the base models' losses."""

import sys

from audio_mu.workflows.command import command


def work(config, store, engine):
    from audio_mu.workflows.attack import attack

    attack(config, store)


if __name__ == "__main__":
    sys.exit(command(__doc__, work))
