"""The entry point `adopt`: `python -m entrypoints.adopt --name value`; see `audio_mu.cli`."""

import sys

from audio_mu.cli import run_entry_point

if __name__ == "__main__":
    sys.exit(run_entry_point("adopt"))
