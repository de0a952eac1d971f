"""How fast this project is beside the study's way of working (`tests.study_loop`), and beside the machine.

    python -m benchmarks.speed [--rounds 5] [--only vggish,evaluate] [--again] [--threads 2]

Every section measures in alternating pairs, takes medians (of the pairs' ratios too), and replaces its rows in
results/speed.csv; a section that is there already is left alone unless --again or --only asks for it. `--table` prints
the rows as a table in Markdown. Five rounds take half an hour on two cores, half of it for one_seed. The cores must be
idle: beside other busy processes two threads are many times slower.

Recordings: those below AUDIO_MU_TEST_DATA/audiomnist_layout or, where it is not set, spoken digits, each written
several times with its own faint noise until there are 2,400 + 600.
"""
