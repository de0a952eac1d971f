"""What the project does on a GPU: whether its figures hold there, and how fast it is beside the study's way of working.

    python -m benchmarks.gpu [--quick] [--clips 24000] [--minutes 6] [--device cuda|cpu] [--out results/gpu.csv]

One command of at most `--minutes` that needs torch, torchaudio and what they bring, numpy, pandas, SciPy, scikit-learn,
PyYAML, filelock and tqdm: no MLflow, no recordings, no network. The clips are pairs of tones in noise, ten classes,
turned into mel features by the project's own front end.

Every figure is a row of the table as soon as it is known. A part that fails is a row too, and the others go on: the
parts run in processes of their own, and the command starts a new one where the GPU refuses to go on. The parts, in the
order in which they run; the last ones are left out where time is short:

    machine      what the machine is, and the rates of a matrix product and a copy
    numerics     training beside a plain loop in float64; equal runs; CPU and GPU side by side; what bf16 leaves
    contract     the contract of every method of the registry on a small problem
    speed        an epoch of the three networks: `fit`, the study's loop, and `fit` in other arithmetic
    features     mel features of all clips, on the GPU and on the CPU
    tasks        one to eight tasks at once
    methods      VGGish: every method on one seed, and the study's own nine beside ours
    transformers the study's nine methods on CCT and ViT

`--device cpu` tries the script where there is no GPU, with fewer clips than asked for: its figures say nothing.
"""
