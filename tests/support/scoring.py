"""What scores are held against, and what looks on while they are made."""

from typing import Any

import numpy as np
import pytest
import reference

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.scorer import Scorer, evaluating  # noqa: E402

POLICY = uds.UDS(dim=32, memory=8)


def truth(model, batch) -> Any:
    """Candidates of the model's real logits."""
    samples = Scorer(model).view(batch)
    with torch.no_grad(), evaluating(model):
        logits = model(**batch).logits
    return uds.Candidates(samples.arrange(logits), mask=samples.mask, labels=samples.labels)


def examine(scorer, batch, policy: Any = POLICY):
    return scorer.examine(scorer.view(batch), policy)


def check(features, model, batch, *, rtol=1e-5, policy=POLICY):
    """The features are those of the real logits; the utility also by the slow oracle."""
    candidates = truth(model, batch)
    expected = policy.examine(candidates)
    assert features.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], values, atol=rtol * float(values.abs().max()), err_msg=name)
    mask = candidates.scored().numpy()
    logits = candidates.logits.compact().double().numpy()
    utility = reference.nuclear_norm(logits, mask) / np.sqrt(np.maximum(mask.sum(1), 1))
    np.testing.assert_allclose(features["utility"], utility, rtol=max(rtol, 1e-4))


class Recorded:
    """A policy that remembers which kind of logits it was shown, and of how many samples at a time."""

    needs = uds.Needs()

    def __init__(self):
        self.kinds, self.sizes, self.heads = [], [], []

    def examine(self, candidates):
        self.kinds.append(type(candidates.logits).__name__)
        self.sizes.append(candidates.shape[0])
        self.heads.append(getattr(candidates.logits, "head", None))
        return POLICY.examine(candidates)

    def init(self, features): ...

    def choose(self, state, features, *, groups=None) -> Any: ...


def step(model, batch, rate=0.5):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


class Around(torch.nn.Module):
    """A module of a user's own around a model."""

    def __init__(self, model, inner=None, after=None):
        super().__init__()
        self.model, self.inner, self.after = model, model if inner is None else inner, after
        self.config, self.get_output_embeddings = model.config, model.get_output_embeddings

    def forward(self, **inputs):
        output = self.inner(**inputs)
        return output if self.after is None else self.after(output)
