"""Arrays only: scores, sketches and selection without any framework."""

# %%
# Eight different samples, in the form of a model's last hidden states: `hidden` has shape (batch, time,
# width). The LM head has a row for each word of a vocabulary of 5,000.

import numpy as np

import uds_core as uds

rng = np.random.default_rng(0)
weight = rng.normal(size=(5000, 64)) / 8
hidden = rng.normal(size=(8, 20, 64))
hidden[1] = hidden[1, :1]  # every position predicts the same
hidden[2] *= 0.3  # uncertain everywhere
hidden[5] = hidden[4] + 0.01 * rng.normal(size=(20, 64))  # a near-duplicate of sample 4

# %%
# ## Utility
#
# A `Head` stands for the last layer. Called on hidden states, it returns logits in factored form, whose nuclear
# norm can be computed without the full matrix:

head = uds.Head(weight)
utility = uds.nuclear_norm(head(hidden))
print(utility.round(0))

# %%
# Sample 1 is low, since its matrix has rank one, and sample 2, since its logits are small. The full matrix
# gives the same number up to rounding:

dense = hidden @ weight.T  # (8, 20, 5000)
print(abs(uds.nuclear_norm(dense) / utility - 1).max() < 1e-12)

# %%
# ## Sketches
#
# Diversity is the distance to recently chosen samples. A matrix of 20 x 5,000 is too large to store, so each sample
# is represented by a vector of 1,024 numbers, whose distances are close to those of the matrices:

sketch = uds.ShiftedSketch(time=512, vocab=5000, dim=1024)
z = sketch(head(hidden))
for i, j in ((0, 3), (0, 7), (4, 5)):
    print(i, j, np.linalg.norm(z[i] - z[j]).round(1), np.linalg.norm(dense[i] - dense[j]).round(1))

# %%
# ## Selection
#
# A policy computes both, and selects. It is immutable: it takes the current state and returns the next.

policy = uds.UDS(count=3, in_batch="greedy")
features = policy.examine(uds.Candidates(head(hidden)))
selection, state = policy.choose(None, features)
print(sorted(selection.indices.tolist()))

# %%
# The three best, without both near-duplicates. The scores of each candidate are available; `UDS` divides utility by the
# root of the number of rows, so that long samples are not preferred:

for name, column in selection.table().items():
    print(f"{name:10}", column.round(2))

# %%
# The next pool is compared with the memory. With the same candidates again, the three chosen samples and the
# near-duplicate of one of them are nearer to the memory than the others.

again, state = policy.choose(state, features)
print(again.parts["diversity"].round(1))

# %%
# ## Save and restore
#
# A state is a flat dict of arrays. `restore` needs a template, which has the array library and sizes.

saved = uds.flatten(state)
print(*sorted(saved), sep="\n")
state = uds.restore(policy.init(features), saved)

# %%
# ## Any array library
#
# Tensors in give tensors out, on the same device. The same code runs with PyTorch, JAX or CuPy and selects the same
# samples: NumPy generates the constants from the seed, and they are moved to the device.

import torch

tensors = uds.Head(torch.asarray(weight))(torch.asarray(hidden))
chosen, _ = policy.choose(None, policy.examine(uds.Candidates(tensors)))
print(chosen.indices)
