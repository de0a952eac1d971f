"""Choose the methods' hyper-parameters without the test set, for `method_config`."""

import sys

from audio_mu.workflows.command import command


def work(config, store, engine):
    from audio_mu.workflows.tune import tune

    tune(config, store, engine)


if __name__ == "__main__":
    sys.exit(command(__doc__, work))
