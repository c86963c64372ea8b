"""InfoBatch in a loop: losses of the training pass prune later epochs, and the weighted loss is that of the formula."""

import pytest
import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import loops  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector, weighted_loss  # noqa: E402

SAMPLES, BATCH = 24, 12


def test_later_epochs_train_what_is_not_pruned_with_the_weights_that_make_up_for_it():
    examples, model = tiny.examples(SAMPLES), tiny.llama()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    select = BatchSelector(model, uds.InfoBatch(prune=0.5), id_field="id")
    known: dict[int, float] = {}
    pruned = []
    for _ in range(3):
        for first in range(0, SAMPLES, BATCH):
            some = examples[first : first + BATCH]
            batch = {**tiny.collate(some), "id": torch.arange(first, first + BATCH)}
            before, model_calls = dict(known), len(calls)
            batch = select(batch)
            assert len(calls) == model_calls + (
                not before and not first
            )  # no scoring pass; the layout is measured once
            weights = batch.pop("loss_weights")
            logits = model(**batch, use_cache=False).logits
            model.zero_grad()
            weighted_loss(logits, batch["labels"], weights, num_items=select.tokens).backward()
            assert select.last is not None
            assert select.last.weights is not None
            picks, importance = select.last.indices.tolist(), select.last.weights.tolist()
            low = {
                i for i in range(BATCH) if before and before.get(first + i, 1e9) < sum(before.values()) / len(before)
            }
            assert {*range(BATCH)} - {*picks} <= low
            pruned.append(BATCH - len(picks))
            expected = {i: 2.0 if i in low else 1.0 for i in picks}
            assert {i: float(w) for i, w in zip(picks, importance, strict=True)} == expected
            number = sum(label != -100 for one in some for label in one["labels"])
            explicit = loops.explicit([some[i] for i in picks], importance, number)
            assert loops.far(loops.flat(model.parameters()), explicit) < 1e-5
            targets = batch["labels"][:, 1:]
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].detach().flatten(0, 1).float(), targets.flatten(), reduction="none"
            ).view(targets.shape)
            means = losses.sum(1) / (targets != -100).sum(1)
            known |= {first + i: float(loss) for i, loss in zip(sorted(picks), means, strict=True)}
    assert pruned[:2] == [0, 0]
    assert sum(pruned) > 0
