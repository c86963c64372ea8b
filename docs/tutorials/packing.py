"""TRL's SFTTrainer, with packing."""

# %%
# TRL packs documents of different length into rows of `max_length` tokens, so that nothing is padded. What is chosen
# are the *documents*: those of all packed rows of a batch are candidates, and the chosen are packed anew.

import small
from transformers import PrinterCallback
from trl import SFTConfig

import uds_core as uds
from uds_adapters.trl import UDSSFTTrainer

model, tokenizer = small.model_and_tokenizer()
config = SFTConfig(
    "run",
    packing=True,
    max_length=128,
    per_device_train_batch_size=8,  # packed rows
    max_steps=12,
    learning_rate=1e-3,
    logging_steps=4,
    gradient_checkpointing=False,
    bf16=False,
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
)
trainer = UDSSFTTrainer(
    model=model,
    args=config,
    train_dataset=small.texts(),
    processing_class=tokenizer,
    policy=uds.UDS(keep=0.25),
)
trainer.remove_callback(PrinterCallback)
trainer.train()

# %%
# Eight packed rows hold many more documents than eight, and a quarter of them is kept:

candidates = len(trainer.selector.last.scores)
print(candidates, "documents,", len(trainer.selector.last_indices), "trained on")

# %%
# A document scores the same wherever it lies: its rows are keyed by its own positions, so neither its neighbours in the
# row nor padding change its sketch. The loss is divided by the tokens of the chosen documents alone, and TRL's own
# metrics tell of them:

logged = trainer.state.log_history[0]
print({"entropy", "mean_token_accuracy", "num_tokens"} <= set(logged))
print(f"{logged['uds/kept_tokens_fraction']:.2f} of the tokens with loss were trained on")

# %%
# ## Other modes
#
# | `SFTConfig` | a sample is |
# |---|---|
# | default | a row of a padded batch |
# | `padding_free=True` | a document |
# | `packing=True` (strategy `bfd`) | a document |
# | `packing=True, packing_strategy="wrapped"` | a window of `max_length` tokens, whatever it holds |
#
# TRL trains through a fused head that never makes logits. So does the scoring pass: it takes what goes into the
# head, computes scores from that, and runs a head that is no plain linear layer at one position only.
