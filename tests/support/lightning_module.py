"""A LightningModule that records what it trains on, and its loader."""

from typing import Any

import lightning.pytorch as lightning
import tiny
import torch


class Module(lightning.LightningModule):
    """Keeps what it was trained on, and the gradient of each step."""

    def __init__(self, model=None):
        super().__init__()
        self.model = tiny.llama() if model is None else model
        self.seen, self.gradients, self.losses = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append({name: tensor.clone() for name, tensor in batch.items()})
        loss = self.model(**batch).loss
        self.losses.append(float(loss.detach()))
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in self.parameters() if p.grad is not None]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def loader(number=48, *, collate: Any = tiny.collate):
    return torch.utils.data.DataLoader(tiny.examples(number), batch_size=6, collate_fn=collate)  # type: ignore[arg-type]
