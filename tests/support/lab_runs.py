"""Training runs of the lab on a small task."""

from uds_adapters.lab.models import quiet
from uds_adapters.lab.training.run import train_once
from uds_adapters.lab.training.settings import Settings

SETTINGS = Settings(keep=0.25, batch_size=8, steps=4, learning_rate=1e-3, eval_every=2)


def trained(task, policy, folder, *, settings=SETTINGS, seed=0, **more):
    with quiet():
        return train_once(
            task, policy=policy, seed=seed, settings=settings, folder=folder, heldout=task.measure(), **more
        ).result
