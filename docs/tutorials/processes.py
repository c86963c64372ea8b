"""Many GPUs: selection by several processes."""

# started by: torchrun --nproc-per-node=2

# %%
# This script needs `torchrun`, which starts one process for each GPU:
#
# ```
# torchrun --nproc-per-node=2 docs/tutorials/processes.py
# ```
#
# This page was made by two processes on a CPU, with gloo; the output is that of rank 0.

import os

import small
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

if "RANK" not in os.environ:
    msg = "start this script with: torchrun --nproc-per-node=2 docs/tutorials/processes.py"
    raise SystemExit(msg)
dist.init_process_group("gloo")  # "nccl" on GPUs
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model, tokenizer = small.model_and_tokenizer()
parallel = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)

# %%
# Each process loads its own candidates: here samples 0, 2, 4 ... on rank 0, and the others on rank 1.

data = small.encoded(tokenizer).select(range(256))
mine = torch.utils.data.Subset(data, range(rank, len(data), size))
loader = torch.utils.data.DataLoader(mine, batch_size=16, collate_fn=small.collate)

# %%
# ## One pool
#
# With `ranks="global"` the best of *all* processes' candidates are chosen: 8 of 32 here. Each process trains on 4 of
# them, from any process. `iterate` ends on all processes when the first has no batch left.

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
# Data parallelism averages the processes' gradients. `num_items_in_batch` divides the summed loss by the
# tokens of all processes, and the factor `size` undoes the mean: the gradient is that of one process with the whole
# pool.
#
# ## The same everywhere
#
# In each step the features of all samples are gathered, 4 KiB each. Every process computes the same selection from
# them, so the memory is the same on all processes without being sent:

memory = torch.stack([select.state_dict()["state.memory.rows"].double().sum()])
everywhere = [torch.zeros_like(memory) for _ in range(size)]
dist.all_gather(everywhere, memory)
print(all(torch.equal(one, memory) for one in everywhere))
kibibytes = select.metrics["gathered_bytes"] / 1024
print(f"{kibibytes:.0f} KiB were gathered for {len(select.last.scores)} candidates")

# %%
# So one checkpoint, of rank 0, is enough for any number of processes.
#
# ## With a Trainer
#
# The Trainers take the same option, and `scope="step"` makes one pool of all candidates of an optimizer step:
#
# ```
# UDSTrainer(..., policy=policy, scope="step", ranks="global")
# ```
#
# Errors, cost and limits of scaling: [several processes](../pages/howto/ranks.md).

dist.destroy_process_group()
