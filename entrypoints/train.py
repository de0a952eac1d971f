"""Train the base models of every seed and register them."""

import sys

from audio_mu.workflows.command import command


def work(config, store, engine):
    from audio_mu.workflows.train import train

    train(config, store, engine)


if __name__ == "__main__":
    sys.exit(command(__doc__, work))
