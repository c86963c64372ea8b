"""TRL's SFTTrainer, with packing."""

# %%
# TRL packs documents of different length into rows of `max_length` tokens, so that nothing is padded. The
# candidates are the *documents* of all packed rows of a batch, and the chosen documents are packed again.

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
# Eight packed rows contain many more than eight documents, and a quarter of them is chosen:

candidates = len(trainer.selector.last.scores)
print(candidates, "documents,", len(trainer.selector.last_indices), "trained on")

# %%
# A document's score does not depend on its place: its sketch uses its own positions, so neither its neighbours in the
# row nor padding change it. The loss is divided by the tokens of the chosen documents alone, and TRL's own
# metrics describe them:

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
# | `packing=True, packing_strategy="wrapped"` | a block of `max_length` tokens, possibly of several documents |
#
# TRL trains with a fused head that never makes logits. The scoring pass does not make them either: it computes scores
# from the head's input, and runs a head that is not a plain linear layer at one position only.
