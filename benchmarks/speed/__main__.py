"""`python -m benchmarks.speed`. A module of its own: worker processes import the module that was started, and the
benchmark's imports are none of the workers' of a command.
"""

from benchmarks.speed.command import main

main()
