"""Compare the methods over the seeds."""

import sys

from audio_mu.workflows.command import command


def work(config, store, _engine):
    from audio_mu.workflows.compare import compare

    compare(config, store)


if __name__ == "__main__":
    sys.exit(command(__doc__, work, computes=False))
