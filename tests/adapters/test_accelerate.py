"""A plain loop with accelerate: `prepare`, `accumulate`, `register_for_checkpointing`, `gather_for_metrics`."""

from itertools import islice

import pytest
import tiny

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

POLICY = uds.UDS(keep=0.5, memory=16, dim=16)


@pytest.fixture(autouse=True)
def _fresh():
    """Accelerate keeps its state for the whole process."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Loop:
    """A training loop of a dozen lines, and all that it needs."""

    def __init__(self, *, accumulation=1, number=48, mixed=None, policy=POLICY, batches=None, dropout=0.0):
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        self.accelerator = accelerate.Accelerator(
            cpu=True,
            mixed_precision=mixed,
            gradient_accumulation_steps=accumulation,
            dataloader_config=accelerate.DataLoaderConfiguration(use_seedable_sampler=True),
        )
        accelerate.utils.set_seed(0)
        data = tiny.examples(number) if batches is None else batches
        loader = torch.utils.data.DataLoader(
            data,
            batch_size=6 if batches is None else None,
            shuffle=batches is None,
            collate_fn=tiny.collate if batches is None else None,
            # a loader without its own draws from the global generator when it starts, and dropout goes on elsewhere
            generator=torch.Generator(),
        )
        model = tiny.llama(dropout=dropout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.model.train()
        self.select = BatchSelector(self.model, policy)
        self.accelerator.register_for_checkpointing(self.select)
        self.kept, self.picks, self.gradients = [], [], []

    def choose(self, batch):
        kept = self.select(batch)
        self.kept.append({name: tensor.clone() for name, tensor in kept.items()})
        self.picks.append(list(self.select.last_indices))
        return kept

    def step(self):
        if self.accelerator.sync_gradients:
            self.gradients.append(torch.cat([p.grad.flatten().clone() for p in self.model.parameters()]))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def epoch(self, loader=None, *, selecting=True, save=None):
        """Each batch's mean, averaged over the accumulated ones: accelerate's own way."""
        for number, batch in enumerate(self.loader if loader is None else loader, start=1):
            kept = self.choose(batch) if selecting else batch
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(**kept).loss)
                self.step()
            if save is not None and number == save[1]:
                self.accelerator.save_state(save[0])
        return self


def far(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("mixed", [None, "bf16"])
def test_gradient_is_that_of_a_stock_loop_fed_the_chosen_samples(accumulation, mixed):
    chosen = Loop(accumulation=accumulation, mixed=mixed).epoch()
    stock = Loop(accumulation=accumulation, mixed=mixed, batches=chosen.kept).epoch(selecting=False)
    assert [len(batch["labels"]) for batch in chosen.kept] == [3] * 8
    assert len(chosen.gradients) == -(-8 // accumulation)
    for got, expected in zip(chosen.gradients, stock.gradients, strict=True):
        assert far(got, expected) < 1e-6


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_window_gives_the_gradient_of_the_token_mean(accumulation):
    """The batches of a step are drawn first, as their tokens must be known before the first loss."""
    loop = Loop()  # it accumulates by itself: accelerate's own accumulation divides by the number of batches
    batches, window, tokens = iter(loop.loader), [], 0
    window, tokens = loop.select.select_step(list(islice(batches, accumulation)))
    for batch in window:
        loop.accelerator.backward(loop.model(**batch, num_items_in_batch=tokens).loss)
    loop.step()
    model, total, count = tiny.llama(), torch.zeros(()), 0
    for batch in window:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            own = mask.bool()
            number = int((labels[own][1:] != -100).sum())
            total = total + model(input_ids=ids[own][None], labels=labels[own][None]).loss * number
            count += number
    (total / count).backward()
    assert tokens == count
    assert sum(len(batch["labels"]) for batch in window) == 3 * accumulation
    assert far(loop.gradients[0], torch.cat([p.grad.flatten() for p in model.parameters()])) < 1e-6


def test_resuming_in_the_middle_of_an_epoch_is_exact_to_the_bit(tmp_path):
    straight = Loop(accumulation=2, dropout=0.1).epoch(save=(tmp_path, 4))
    resumed = Loop(accumulation=2, dropout=0.1)
    resumed.accelerator.load_state(tmp_path)
    resumed.epoch(accelerate.skip_first_batches(resumed.loader, 4))
    assert resumed.picks == straight.picks[4:]
    assert len(resumed.picks) == 4
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, tensor in straight.select.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(resumed.select.state_dict()[name]))


def test_the_memory_matters_for_resuming(tmp_path):
    """Without it the run goes elsewhere: the test above could fail."""
    policy = uds.UDS(keep=0.5, memory=16, dim=16, weight=4.0)
    straight = Loop(policy=policy).epoch(save=(tmp_path, 4))
    forgetful = Loop(policy=policy)
    forgetful.accelerator.load_state(tmp_path)
    forgetful.select.reset(forgetful.model)
    forgetful.epoch(accelerate.skip_first_batches(forgetful.loader, 4))
    assert forgetful.picks != straight.picks[4:]


def test_metrics_are_gathered_from_the_smaller_batches():
    """Also from the last batch, which is cut to what the loader says is left of the data."""
    loop, losses = Loop(number=21), []
    for batch in loop.loader:
        kept = loop.choose(batch)
        per_sample = torch.arange(len(kept["labels"]), dtype=torch.float32)
        losses.append(loop.accelerator.gather_for_metrics(per_sample))
    assert [len(one) for one in losses] == [3, 3, 3, 2]
    assert all(torch.equal(one, torch.arange(len(one), dtype=torch.float32)) for one in losses)
