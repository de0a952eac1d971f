"""The entry point `report`: `python -m entrypoints.report --name value`; see `audio_mu.cli`."""

import sys

from audio_mu.cli import run_entry_point

if __name__ == "__main__":
    sys.exit(run_entry_point("report"))
