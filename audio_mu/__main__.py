"""`python -m audio_mu <entry point> --name value`."""

import sys

from audio_mu.cli import main

if __name__ == "__main__":
    sys.exit(main())
