"""Where the methods and the attacks of a report were published, and what those with reference models mean."""

from __future__ import annotations

import pandas as pd

METHODS = {
    "exact_shards": "Bourtoule et al. 2021, Machine Unlearning (SISA), S&P",
    "fine_tune": "Golatkar et al. 2020, Eternal Sunshine of the Spotless Net, CVPR",
    "gradient_ascent": "Graves et al. 2021, Amnesiac Machine Learning, AAAI",
    "amnesiac": "Graves et al. 2021, Amnesiac Machine Learning, AAAI",
    "stochastic_teacher": "Zhang et al. 2023, Machine Unlearning Methodology base on Stochastic Teacher Network, ADMA",
    "omp": "Jia et al. 2023, Model Sparsity Can Simplify Machine Unlearning, NeurIPS",
    "l1_sparse": "Jia et al. 2023, Model Sparsity Can Simplify Machine Unlearning, NeurIPS",
    "cf_k": "Goel et al. 2022, Towards Adversarial Evaluations for Inexact Machine Unlearning, arXiv:2201.06640",
    "eu_k": "Goel et al. 2022, Towards Adversarial Evaluations for Inexact Machine Unlearning, arXiv:2201.06640",
    "neggrad_plus": "Kurmanji et al. 2023, Towards Unbounded Machine Unlearning, NeurIPS",
    "scrub": "Kurmanji et al. 2023, Towards Unbounded Machine Unlearning, NeurIPS",
    "bad_teacher": "Chundawat et al. 2023, Can Bad Teaching Induce Forgetting?, AAAI",
    "msg": "team Kookmin, NeurIPS 2023 challenge, in Cadet et al. 2024, Deep Unlearn, arXiv:2410.01276",
    "salun": "Fan et al. 2024, SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, ICLR",
    "ssd": "Foster et al. 2024, Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening, AAAI",
    "delete": "Zhou et al. 2025, Decoupled Distillation to Erase, CVPR",
}
"""Method → its publication; those that are not here are the study's own, ours, or the user's."""

MEASURES = {
    "mia/auc": "attack by the loss: Yeom et al. 2018, Privacy Risk in Machine Learning, CSF",
    "mia/score": "attack models: Shokri et al. 2017, Membership Inference Attacks against Machine Learning Models, S&P",
    "audit/rmia_auc": "RMIA: Zarifzadeh et al. 2024, Low-Cost High-Power Membership Inference Attacks, ICML",
    "audit/ulira_auc": "U-LiRA: Hayes et al. 2024, Inexact Unlearning Needs More Careful Evaluations, arXiv:2403.01218",
    "audit/lira_auc": "LiRA: Carlini et al. 2022, Membership Inference Attacks From First Principles, S&P",
    "audit/rmia_online_auc": "online RMIA: Zarifzadeh et al. 2024, as RMIA, with models that have learnt recordings",
    "audit/person_p": "a person's attack: LiRA's log-likelihood ratios (Carlini et al. 2022), summed over recordings",
    "gap/tow": "ToW: Zhao et al. 2024, What Makes Unlearning Hard and What to Do About It, NeurIPS",
}
"""Metric → where it was published."""

REFERENCES_EXPLANATION = (
    "LiRA, online RMIA: the forget recordings against the non-members by models that were trained on random halves of "
    "all recordings, so that it is known what a recording looks like to a model that has learnt it and to one that has "
    "not; 0.5 = no membership seen. person p: share of people under models that had not seen them who look at least as "
    "much learnt as the person asked for; small = the person is in the model. Naive never saw the person: read the "
    "others beside it, for the audited models have learnt more recordings than the reference models. A mean of p over "
    "seeds is no p-value, twice it is one."
)


def with_references(long: pd.DataFrame) -> str:
    """What the attacks with reference models mean, behind the other audits; empty where a long table has none."""
    known = long["metric"].str.startswith(("audit/lira", "audit/person")).any()
    return f" {REFERENCES_EXPLANATION}" if known else ""
