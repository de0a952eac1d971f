"""The package's methods by name, for what reads their results and needs none of their code."""

NAIVE = "naive"
ORIGINAL = "original"
FLOOR = "retrain_floor"
"""The retrained model, the untouched one, and the distances of retrained models to each other."""

STUDY = (
    "naive", "gradient_ascent", "stochastic_teacher", "omp", "cosine", "pop", "amnesiac", "label_smoothing",
    "fine_tune",
)  # fmt: skip
"""The study's eight in its order, and the fine-tuning that it ran beside them."""

OTHERS = (
    "scrub", "bad_teacher", "delete", "neggrad_plus", "orthogonal", "cosine_thesis", "pop_thesis", "cf_k", "eu_k",
    "salun", "msg", "ssd", "l1_sparse",
)  # fmt: skip
"""The rest, in the order of tables; a test holds both to the registry."""
