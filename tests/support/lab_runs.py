"""Training runs of the lab on a small task."""

from uds_adapters.lab.models import load_model, quiet
from uds_adapters.lab.training.run import run
from uds_adapters.lab.training.settings import Settings

SETTINGS = Settings(keep=0.25, batch_size=8, steps=4, learning_rate=1e-3, eval_every=2)


def trained(task, policy, folder, *, settings=SETTINGS, seed=0, **more):
    options = {"tokenizer": task.tokenizer, "train": task.train, "collator": task.collator, "heldout": task.measure()}
    with quiet():
        model = load_model(task.model)
        return run(model, policy=policy, seed=seed, settings=settings, folder=folder, **options, **more)
