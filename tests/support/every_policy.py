"""Every policy, and every form of it that computes something else, with small sizes."""

from typing import Any

import numpy as np

import uds_core as uds

SMALL = {"keep": 0.5, "memory": 8, "dim": 16}
TARGET = uds.ngram_counts(np.arange(400).reshape(4, 100) % 29, buckets=64)
POLICIES: dict[str, Any] = {
    "full": uds.Full(),
    "random": uds.Random(keep=0.5, seed=3),
    "longest": uds.Longest(keep=0.5),
    "shortest": uds.Shortest(keep=0.5),
    "frobenius": uds.Frobenius(keep=0.5),
    "nuclearonly": uds.NuclearOnly(keep=0.5),
    "diversityonly": uds.DiversityOnly(**SMALL),
    "targeted": uds.Targeted(keep=0.5, target=TARGET, noise=0.5, seed=3),
    "targeted entropy": uds.Targeted(uds.Entropy(keep=0.5), target=TARGET, noise=0.5, seed=3),
    "rds": uds.RDS(keep=0.5, target=np.random.default_rng(2).normal(size=(3, 5))),
    "fresh targeted": uds.Fresh(uds.Targeted(keep=0.5, target=TARGET), memory=8),
    "fresh": uds.Fresh(keep=0.5, memory=8, seed=3),
    "fresh logits": uds.Fresh(**SMALL, by="logits", seed=3),
    "fresh uds": uds.Fresh(uds.UDS(**SMALL), memory=8, threshold=0.3),
    "fresh predicted": uds.Fresh(uds.Predicted("entropy", keep=0.5, seed=3, least_correlation=-1.0), memory=8),
    "maxloss": uds.MaxLoss(keep=0.5),
    "maxloss sampled": uds.MaxLoss(keep=0.5, vocabulary=10, seed=3),
    "maxloss sum": uds.MaxLoss(keep=0.5, reduction="sum"),
    "rholoss": uds.RHOLoss(keep=0.5),
    "rholoss ledger": uds.RHOLoss(keep=0.5, reference=uds.Ledger.of({i: 0.3 * i for i in range(12)})),
    "selectivebackprop": uds.SelectiveBackprop(keep=0.5, seed=3),
    "selectivebackprop history": uds.SelectiveBackprop(keep=0.5, form="history", window=16),
    "entropy": uds.Entropy(keep=0.5),
    "quadrants": uds.Quadrants(keep=0.5),
    "lossdrop": uds.LossDrop(keep=0.5),
    "lossema": uds.LossEMA(keep=0.5),
    "lossdrop trained": uds.LossDrop(keep=0.5, losses="trained"),
    "lossema trained": uds.LossEMA(keep=0.5, losses="trained"),
    "infobatch": uds.InfoBatch(seed=3),
    "maxgrad": uds.MaxGrad(keep=0.5),
    "greats": uds.GREATS(keep=0.5),
    "divbs": uds.DivBS(keep=0.5, dim=16),
    "reference": uds.Reference(keep=0.5, time=16, rank=(3, 10), memory=8),
    "uds": uds.UDS(**SMALL),
    "uds alpha": uds.UDS(**SMALL, alpha=0.7, length="none", centre="none"),
    "uds fourier": uds.UDS(**SMALL, sketch="fourier", length="mean", method="svd"),
    "uds shifted": uds.UDS(**SMALL, sketch="shifted"),
    "uds tokens": uds.UDS(count=2, memory=8, dim=16, rows="tokens"),
    "uds rank": uds.UDS(**SMALL, alpha="rank", weight=0.7),
    "uds greedy": uds.UDS(**SMALL, in_batch="greedy"),
    "uds in batch": uds.UDS(**SMALL, in_batch="mean", distance="nearest"),
    "uds frobenius": uds.UDS(**SMALL, frobenius=0.5, distance="softmin"),
    "uds surrogate": uds.UDS(**SMALL, frobenius=1.0),
    "uds reservoir": uds.UDS(keep=0.5, memory=4, dim=16, replace="reservoir"),
    "uds drawn": uds.UDS(**SMALL, temperature=0.5),
    "predicted": uds.Predicted("entropy", keep=0.5, seed=3, least_correlation=-1.0),
    "predicted uds": uds.Predicted(uds.UDS(**SMALL), explore=0.5, least_correlation=-1.0),
    "progress": uds.Progress(keep=0.5, warmup=1, seed=3, least_correlation=-1.0),
    "cascade": uds.Cascade(keep=0.5, shortlisted=1.0, warmup=1, least_correlation=-1.0),
}
