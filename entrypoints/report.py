"""Write the report of a request from the store, and the evidence record of one method."""

import sys

from audio_mu.workflows.command import command


def work(config, store, _engine):
    from audio_mu.workflows.report import report

    report(config, store)


if __name__ == "__main__":
    sys.exit(command(__doc__, work, computes=False))
