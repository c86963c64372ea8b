"""A policy of your own."""

# %%
# A policy is an immutable value with four members. `needs` says what the adapter must provide. `examine`
# computes the features of each sample of a micro-batch. `init` returns the state before the first selection. `choose`
# takes the state and the features of the whole pool, and returns a selection and the next state.
#
# This policy selects samples that are somewhat harder than usual: its state is the running mean of the loss, and it
# prefers samples whose loss is a given step above it.

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import uds_core as uds


class Level(NamedTuple):
    """State: the running mean of losses."""

    mean: Any  # 0-d array


@uds.register("abovemean")
@dataclass(frozen=True, kw_only=True)
class AboveMean:
    """Select the samples whose loss is nearest to the running mean plus `step`, in nats."""

    needs = uds.Needs()
    keep: float | None = None
    count: int | None = None
    step: float = 0.5
    momentum: float = 0.9

    def examine(self, candidates, /):
        loss = uds.cross_entropy(candidates.logits, candidates.labels, mask=candidates.mask)
        return {"loss": loss, "length": candidates.lengths()}

    def init(self, features, /):
        return Level(features["loss"].mean())

    def choose(self, state, features, /, *, groups=None):
        loss = features["loss"]
        state = self.init(features) if state is None else state
        scores = -abs(loss - state.mean - self.step)
        budget = uds.Budget(keep=self.keep, count=self.count)
        indices = uds.top_k(scores, features["length"], budget=budget, groups=groups)
        mean = self.momentum * state.mean + (1 - self.momentum) * loss.mean()
        selection = uds.Selection(
            indices=indices,
            scores=scores,
            parts={"loss": loss},
            metrics={"mean": mean},
        )
        return selection, Level(mean)


# %%
# ## Try it on arrays
#
# The policy can be tested without a training loop.

rng = np.random.default_rng(0)
head = uds.Head(rng.normal(size=(50, 8)))
labels = rng.integers(50, size=(6, 5))
labels[0, 3:] = -100  # two rows without a target

policy = AboveMean(count=2)
features = policy.examine(uds.Candidates(head(rng.normal(size=(6, 5, 8))), labels=labels))
selection, state = policy.choose(None, features)
print(features["loss"].round(2), "mean", state.mean.round(2))
print(selection.indices)

# %%
# A sample without targets has loss 0 and length 0: `top_k` selects such samples only when no others are left, and ranks
# NaN last. Ties go to the lower index. Every policy follows these rules.
#
# ## Pools are concatenations
#
# Features have a leading axis for samples, and each sample's features depend on that sample only. So a pool of several
# micro-batches or processes is a concatenation, and the selection is the same as from one large batch:

pooled = uds.pool([features, features])
print(policy.choose(state, pooled)[0].indices)

# %%
# ## Save and restore
#
# The state is a NamedTuple of arrays, so saving needs no extra code:

saved = uds.flatten(state)
print(saved.keys())
assert uds.restore(policy.init(features), saved) == state

# %%
# ## Use it
#
# A registered policy is available by name, here and in a command that imports this file. In your own package an entry
# point does the same, so that `uds compare --policy abovemean:step=1` works
# ([how](../pages/policies.md#a-policy-of-your-own)). In training it replaces `uds.UDS`:

import small
import torch

from uds_adapters.torch import BatchSelector

torch.manual_seed(0)
model, tokenizer = small.model_and_tokenizer()
select = BatchSelector(model, uds.get("abovemean")(keep=0.25), id_field="id")
data = small.encoded(tokenizer)
batch = select(small.collate([data[i] for i in range(32)]))
print(len(batch["labels"]), "samples; metrics:", *sorted(select.metrics))
