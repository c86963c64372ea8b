"""Arrays only: scores, sketches and choices without any framework."""

# %%
# Eight samples of different character, as the last hidden states of a model would be: `hidden` has shape (batch, time,
# width). The LM head has a row for each word of a vocabulary of 5,000.

import numpy as np

import uds_core as uds

rng = np.random.default_rng(0)
weight = rng.normal(size=(5000, 64)) / 8
hidden = rng.normal(size=(8, 20, 64))
hidden[1] = hidden[1, :1]  # every position predicts the same
hidden[2] *= 0.3  # unsure everywhere
hidden[5] = hidden[4] + 0.01 * rng.normal(size=(20, 64))  # nearly a copy of sample 4

# %%
# ## Utility
#
# A `Head` stands for the last layer. Called on hidden states it gives logits that are never multiplied out, and yet
# have a nuclear norm:

head = uds.Head(weight)
utility = uds.nuclear_norm(head(hidden))
print(utility.round(0))

# %%
# Sample 1 is low, since its matrix has rank one, and sample 2, since its logits are small. Multiplied out, it is the
# same number to the last digits:

dense = hidden @ weight.T  # (8, 20, 5000)
print(abs(uds.nuclear_norm(dense) / utility - 1).max() < 1e-12)

# %%
# ## Sketches
#
# Diversity is distance to what was chosen lately. A matrix of 20 x 5,000 is too large to remember, so each sample
# leaves a vector of 1,024 numbers, whose distances are close to those of the matrices:

sketch = uds.ShiftedSketch(time=512, vocab=5000, dim=1024)
z = sketch(head(hidden))
for i, j in ((0, 3), (0, 7), (4, 5)):
    print(i, j, np.linalg.norm(z[i] - z[j]).round(1), np.linalg.norm(dense[i] - dense[j]).round(1))

# %%
# ## A choice
#
# A policy does both, and chooses. It is a value: what changes is a state, which goes in and comes out.

policy = uds.UDS(count=3, in_batch="greedy")
features = policy.examine(uds.Candidates(head(hidden)))
selection, state = policy.choose(None, features)
print(sorted(selection.indices.tolist()))

# %%
# The three best, and not both of the two copies. What each candidate scored can be read; `UDS` divides utility by the
# root of the number of rows, so that long samples are not preferred:

for name, column in selection.table().items():
    print(f"{name:10}", column.round(2))

# %%
# The next pool is compared with what is remembered now. Show it the same candidates again: the three that were chosen,
# and the copy of one of them, are nearer to the memory than the others are.

again, state = policy.choose(state, features)
print(again.parts["diversity"].round(1))

# %%
# ## Save and restore
#
# A state is a flat dict of arrays. `restore` wants a template, which tells library and sizes.

saved = uds.flatten(state)
print(*sorted(saved), sep="\n")
state = uds.restore(policy.init(features), saved)

# %%
# ## Any array library
#
# What goes in as a tensor comes out as one, on its device. With PyTorch, JAX or CuPy the same lines hold, and the same
# samples are chosen: constants are drawn by NumPy from the seed, and moved.

import torch

tensors = uds.Head(torch.asarray(weight))(torch.asarray(hidden))
chosen, _ = policy.choose(None, policy.examine(uds.Candidates(tensors)))
print(chosen.indices)
