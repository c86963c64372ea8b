"""A policy of your own."""

# %%
# A policy is an immutable value with four members. `needs` says what the adapter must provide. `examine`
# looks at a micro-batch and writes down what it wants to know of each sample. `init` makes the state before the first
# choice. `choose` sees what was written down of the whole pool, and the state; it hands back a selection and the next
# state.
#
# This one keeps samples that are somewhat harder than usual: it remembers the mean loss of earlier pools, and prefers
# what is a given step above it.

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import uds_core as uds


class Level(NamedTuple):
    """What is remembered: the running mean of losses."""

    mean: Any  # 0-d array


@uds.register("abovemean")
@dataclass(frozen=True, kw_only=True)
class AboveMean:
    """Keep the samples whose loss is nearest to the running mean plus `step`, in nats."""

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
# No training loop is needed to see whether it does what it should.

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
# A sample without targets has loss 0 and length 0: `top_k` takes none of those while another is left, and ranks NaN
# last. Ties go to the lower index. These are laws that every policy keeps.
#
# ## Pools are concatenations
#
# Features have a leading axis for samples and say nothing of one another. So a pool over several micro-batches, or over
# processes, is a concatenation, and the choice is the same as from one large batch:

pooled = uds.pool([features, features])
print(policy.choose(state, pooled)[0].indices)

# %%
# ## Save and restore
#
# The state is a NamedTuple of arrays, so saving needs no code of yours:

saved = uds.flatten(state)
print(saved.keys())
assert uds.restore(policy.init(features), saved) == state

# %%
# ## Use it
#
# Registered, it is known by name, here and in a command that imports this file. In a package of your own an entry point
# does the same, and then `uds compare --policy abovemean:step=1` knows it
# ([how](../pages/policies.md#a-policy-of-your-own)). In training it goes where `uds.UDS` goes:

import small
import torch

from uds_adapters.torch import BatchSelector

torch.manual_seed(0)
model, tokenizer = small.model_and_tokenizer()
select = BatchSelector(model, uds.get("abovemean")(keep=0.25), id_field="id")
data = small.encoded(tokenizer)
batch = select(small.collate([data[i] for i in range(32)]))
print(len(batch["labels"]), "samples; metrics:", *sorted(select.metrics))
