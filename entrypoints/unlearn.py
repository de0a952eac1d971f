"""Unlearn a request with every method and seed, and measure what is left."""

import sys

from audio_mu.workflows.command import command


def work(config, store, engine):
    from audio_mu.workflows.unlearn import unlearn

    unlearn(config, store, engine)


if __name__ == "__main__":
    sys.exit(command(__doc__, work))
