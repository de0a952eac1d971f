"""Where the methods and the attacks of a report were published."""

from __future__ import annotations

METHODS = {
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
    "gap/tow": "ToW: Zhao et al. 2024, What Makes Unlearning Hard and What to Do About It, NeurIPS",
}
"""Metric → where it was published."""
