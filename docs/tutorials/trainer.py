"""The Hugging Face Trainer."""

# %%
# The usual Trainer: arguments, data, a collator. Only the class differs, and it takes a policy. **The batch size counts
# candidates**: each micro-batch has 32, and with `keep=0.25` eight of them are trained on.

import small
from transformers import PrinterCallback, TrainingArguments

import uds_core as uds
from uds_adapters.transformers import UDSTrainer

model, tokenizer = small.model_and_tokenizer()
args = TrainingArguments(
    "run",
    per_device_train_batch_size=32,
    max_steps=30,
    learning_rate=1e-3,
    logging_steps=10,
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
)
trainer = UDSTrainer(
    model=model,
    args=args,
    train_dataset=small.encoded(tokenizer),
    data_collator=small.collate,
    policy=uds.UDS(keep=0.25),
    selection={"id_field": "id"},
)
trainer.remove_callback(PrinterCallback)  # the log is shown below
trainer.train()
print(trainer.state.global_step, "steps;", len(trainer.selector.last_ids), "samples in the last")

# %%
# Gradients are those of a plain Trainer that received the eight; the learning rate, accumulation, clipping, evaluation
# and callbacks are the Trainer's own.
#
# ## The log
#
# Besides `loss` and `learning_rate` the log has metrics of the selection, for every logger (`report_to`):

for name in sorted(trainer.state.log_history[0]):
    if name.startswith("uds/"):
        print(name)

# %%
# `uds/scoring_share` is the fraction of the time between two logs that selection took. `uds/kept_tokens_fraction` far
# from `keep` means that the policy prefers long or short samples.
#
# ## Warm-up and audit
#
# Options of the selector go into `selection`. Here the first ten steps train on everything, then the fraction falls to
# a quarter within ten more, and the scores of every candidate are recorded, with whether it was chosen.

import tempfile
from pathlib import Path

from uds_adapters.audit import Audit, read
from uds_adapters.schedule import Schedule

folder = Path(tempfile.mkdtemp())
model, tokenizer = small.model_and_tokenizer()
with Audit(folder / "audit.jsonl") as audit:
    trainer = UDSTrainer(
        model=model,
        args=args,
        train_dataset=small.encoded(tokenizer),
        data_collator=small.collate,
        policy=uds.UDS(keep=0.25),
        selection={
            "id_field": "id",
            "schedule": Schedule(start_step=10, curve="cosine", initial=1.0, steps=10),
            "audit": audit,
        },
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()

rows = list(read(folder / "audit.jsonl"))
print(*rows[0])
for step in (10, 15, 20, 29):
    of_step = [row for row in rows if row["step"] == step]
    print(f"step {step}: {sum(row['chosen'] for row in of_step)} of {len(of_step)} trained on")

# %%
# ## Another Trainer
#
# The mixin adds a policy to any subclass of the Trainer; it must be the first base class:

from transformers import Trainer

from uds_adapters.transformers import UDSTrainerMixin


class Mine(Trainer):
    """A Trainer with your changes."""


class MineWithSelection(UDSTrainerMixin, Mine):
    """The same, with a policy."""


# %%
# One pool for all micro-batches of an optimizer step is `scope="step"`; several processes are [a tutorial of their
# own](../pages/tutorials/processes.md); for interruptions see [stop and resume](../pages/howto/resume.md).
