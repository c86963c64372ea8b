"""A loop of your own, in PyTorch."""

# %%
# A model, a tokenizer and a loader. These are small and generated here, so that the page runs in seconds; the code
# below works with any. Batches are dictionaries, as Hugging Face models take them.

import small
import torch
from torch.utils.data import DataLoader

torch.manual_seed(0)
model, tokenizer = small.model_and_tokenizer()
loader = DataLoader(small.encoded(tokenizer), batch_size=32, shuffle=True, collate_fn=small.collate)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

# %%
# ## Select
#
# The loader yields *candidates*: 32 a step, of which a quarter is trained on. `id_field` names the entry with the
# samples' identities; it is removed before the model is called.

import uds_core as uds
from uds_adapters.torch import BatchSelector

select = BatchSelector(model, uds.UDS(keep=0.25), id_field="id")

# %%
# One line in the loop. The scoring pass runs without gradients and without dropout, and leaves random generators, hooks
# and modes of the model as they were.

for batch in loader:
    batch = select(batch)
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

print(len(batch["labels"]), "of 32; last loss", round(loss.item(), 2))

# %%
# ## Inspect
#
# The samples chosen in the last step, and metrics for a log:

print(select.last_ids)
for name in ("utility_mean", "diversity_mean", "alpha", "kept_tokens_fraction"):
    print(f"{name:22}{select.metrics[name]:8.2f}")

# %%
# The texts behind three of them:

chosen = [int(number) for number in select.last_ids[:3]]
for number in chosen:
    print(small.RECORDS[number].prompt, "->", small.RECORDS[number].completion)

# %%
# ## Gradient accumulation
#
# With gradient accumulation, choose from all micro-batches of a step at once. `select_step` returns as many batches,
# and the number of tokens with loss. Divide the summed loss by it:

batches = iter(loader)
chosen_batches, tokens = select.select_step([next(batches) for _ in range(4)])
for batch in chosen_batches:
    model(**batch, num_items_in_batch=tokens).loss.backward()
optimizer.step()
optimizer.zero_grad()
print([len(batch["labels"]) for batch in chosen_batches], "samples,", tokens, "tokens")

# %%
# ## Save and resume
#
# The selector's state is a flat dict of tensors. Save it with the model and the optimizer: a resumed run
# selects the same samples as an uninterrupted one.

saved = select.state_dict()
other = BatchSelector(model, uds.UDS(keep=0.25), id_field="id")
other.load_state_dict(saved)
batch = next(batches)
select(dict(batch)), other(dict(batch))
print(select.last_ids == other.last_ids)
