"""The package's methods by name, for what reads their results and needs none of their code."""

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

RETRAINS = frozenset({"naive"})
"""Methods that train from scratch: they read the base recipe and no repair setting, and descend from no base model."""
