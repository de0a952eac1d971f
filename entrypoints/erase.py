"""Remove what the store and the caches hold of an answered request's recordings; without confirm=true, list it."""

import sys

from audio_mu.workflows.command import command


def work(config, store, _engine):
    from audio_mu.workflows.erase import erase

    erase(config, store)


if __name__ == "__main__":
    sys.exit(command(__doc__, work, computes=False))
