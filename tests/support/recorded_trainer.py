"""Hugging Face Trainers that record what they train on, and a stock one that is fed given batches."""

import torch
import transformers

from uds_adapters.transformers import UDSTrainer


def arguments(folder, **options):
    return transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 8,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **options,
        }
    )


class Gradients(transformers.TrainerCallback):
    """Keeps the gradient of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        assert model is not None
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        self.steps.append(torch.cat([grad.flatten().clone() for grad in grads] or [torch.zeros(0)]))


class Recording(UDSTrainer):
    """Keeps the batches that were trained on, and which rows of their batch they were."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept, self.picks = [], []

    def get_batch_samples(self, *args, **kwargs):
        kept, number = super().get_batch_samples(*args, **kwargs)
        self.kept += [
            {name: tensor.clone() for name, tensor in batch.items()} for batch in kept if len(batch["labels"])
        ]
        return kept, number

    def _uds_chosen(self):
        super()._uds_chosen()
        self.picks.append(list(self.selector.last_indices))


class Fed(transformers.Trainer):
    """A stock Trainer whose loader yields given batches."""

    def __init__(self, *args, batches, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = batches

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None, shuffle=False)
