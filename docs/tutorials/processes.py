"""Many GPUs: processes that choose together."""

# started by: torchrun --nproc-per-node=2

# %%
# Start one process for each GPU, as always:
#
# ```
# torchrun --nproc-per-node=2 docs/tutorials/processes.py
# ```
#
# This page was made by two processes on a CPU, with gloo; what rank 0 printed is shown.

import small
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")  # "nccl" on GPUs
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model, tokenizer = small.model_and_tokenizer()
parallel = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)

# %%
# Each process draws its own candidates: here every other sample goes to the other one.

data = small.encoded(tokenizer).select(range(256))
mine = torch.utils.data.Subset(data, range(rank, len(data), size))
loader = torch.utils.data.DataLoader(mine, batch_size=16, collate_fn=small.collate)

# %%
# ## One pool
#
# With `ranks="global"` the best of *all* processes' candidates are kept: 32 here, of which 8 are trained on, 4 on each
# process, wherever they came from. `iterate` ends on all processes with the first that has no batch left.

import uds_core as uds
from uds_adapters.torch import BatchSelector

select = BatchSelector(parallel, uds.UDS(keep=0.25), ranks="global", id_field="id")
counts = []
for batch in select.iterate(loader):
    loss = parallel(**batch, num_items_in_batch=select.tokens).loss * size
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    counts.append((len(select.last.scores), len(select.last_indices), len(batch["labels"])))

for scored, chosen, trained in counts[:3]:
    print(f"{scored} candidates; {chosen} of mine were chosen, {trained} are trained here")

# %%
# Data parallelism takes the mean of the processes' gradients. `num_items_in_batch` divides the summed loss by the
# tokens of all processes, and the factor `size` undoes the mean: the gradient is that of one process with the whole
# pool.
#
# ## The same everywhere
#
# Only what was written down of each sample is gathered, 4 KiB each, once a step. Every process computes the same choice
# of it, so what is remembered is the same without being sent:

remembered = torch.stack([select.state_dict()["state.memory.rows"].double().sum()])
everywhere = [torch.zeros_like(remembered) for _ in range(size)]
dist.all_gather(everywhere, remembered)
print(all(torch.equal(one, remembered) for one in everywhere))
kibibytes = select.metrics["gathered_bytes"] / 1024
print(f"{kibibytes:.0f} KiB were gathered for {len(select.last.scores)} candidates")

# %%
# So one checkpoint, of rank 0, serves any number of processes.
#
# ## With a Trainer
#
# The Trainer and TRL's take the same word, and `scope="step"` makes one pool of all that an optimizer step draws:
#
# ```
# UDSTrainer(..., policy=policy, scope="step", ranks="global")
# ```
#
# What can go wrong, what it costs and where it stops scaling: [several processes](../pages/howto/ranks.md).

dist.destroy_process_group()
