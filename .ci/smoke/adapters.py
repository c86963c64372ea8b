"""The installed adapters: two steps of a Trainer that selects, and the command line."""

import tempfile
from importlib.resources import files

import torch
import transformers
from typer.testing import CliRunner

import uds_core as uds
from uds_adapters.lab.cli import app
from uds_adapters.transformers import UDSTrainer

config = transformers.LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
)
rows = torch.randint(0, 64, (16, 8), generator=torch.Generator().manual_seed(0))
data = [{"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in rows]
with tempfile.TemporaryDirectory() as folder:
    arguments = transformers.TrainingArguments(
        folder, max_steps=2, per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True
    )
    trainer = UDSTrainer(
        model=transformers.LlamaForCausalLM(config), args=arguments, train_dataset=data, policy=uds.UDS(keep=0.25)
    )
    trainer.train()
assert trainer.state.global_step == 2
assert files("uds_adapters").joinpath("py.typed").is_file()
shown = CliRunner().invoke(app, ["--help"])
assert shown.exit_code == 0, shown.output
assert "compare" in shown.output
