"""Every policy trains: through the Trainer, with the gradients of a stock Trainer that was fed what it chose."""

from functools import partial
from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from recorded_trainer import Fed, Gradients, Recording, arguments  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.validation import ValidationScorer  # noqa: E402

STEPS, BATCH = 2, 8
POLICIES: dict[str, Any] = {
    "full": uds.Full(),
    "random": uds.Random(keep=0.5),
    "longest": uds.Longest(keep=0.5),
    "shortest": uds.Shortest(keep=0.5),
    "frobenius": uds.Frobenius(keep=0.5),
    "nuclearonly": uds.NuclearOnly(keep=0.5),
    "diversityonly": uds.DiversityOnly(keep=0.5, memory=16, dim=16),
    "targeted": uds.Targeted(keep=0.5, target=uds.ngram_counts(torch.arange(64)[None, :])),
    "fresh": uds.Fresh(keep=0.5, memory=16),
    "fresh logits": uds.Fresh(keep=0.5, memory=16, dim=16, by="logits"),
    "maxloss": uds.MaxLoss(keep=0.5),
    "rholoss": uds.RHOLoss(keep=0.5),
    "rholoss ledger": uds.RHOLoss(keep=0.5, reference=uds.Ledger.of({i: 0.1 * i for i in range(20)})),
    "selectivebackprop": uds.SelectiveBackprop(keep=0.5),
    "selectivebackprop history": uds.SelectiveBackprop(form="history", beta=1.0),
    "entropy": uds.Entropy(keep=0.5),
    "quadrants": uds.Quadrants(keep=0.5),
    "lossdrop": uds.LossDrop(keep=0.5),
    "lossema": uds.LossEMA(keep=0.5),
    "lossdrop trained": uds.LossDrop(keep=0.5, losses="trained"),
    "lossema trained": uds.LossEMA(keep=0.5, losses="trained"),
    "maxgrad": uds.MaxGrad(keep=0.5),
    "greats": uds.GREATS(keep=0.5),
    "divbs": uds.DivBS(keep=0.5, dim=16),
    "reference": uds.Reference(keep=0.5, memory=16, rank=(3, 10)),
    "uds": uds.UDS(keep=0.5, memory=16, dim=16),
    "predicted": uds.Predicted("entropy", keep=0.5, warmup=1),
    "predicted uds": uds.Predicted(uds.UDS(memory=16, dim=16), keep=0.5, warmup=1),
    "predicted rholoss": uds.Predicted("rholoss", keep=0.5, warmup=1),
    "progress": uds.Progress(keep=0.5, warmup=1),
    "cascade": uds.Cascade(keep=0.5, shortlisted=0.5, warmup=1),
    "fresh cascade": uds.Fresh(uds.Cascade("rholoss", keep=0.5, shortlisted=0.75, warmup=1)),
}
everyone = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
SELECTION: dict[str, Any] = {
    "id_field": "id",
    "scorer": partial(ValidationScorer, validation=tiny.batch(3, seed=9)),  # for GREATS; others do not see it
}
BESIDE = {"id": torch.int64, "reference_loss": torch.float32}


def data():
    """Examples that know who they are, and what a reference thinks of them."""
    return [{**one, "id": i % 20, "reference_loss": 4.0 + 0.01 * i} for i, one in enumerate(tiny.examples(40))]


def collate(examples):
    given = {
        name: dtype for name, dtype in BESIDE.items() if name in examples[0]
    }  # a trainer hands on what is asked for
    beside = {name: torch.tensor([one[name] for one in examples], dtype=dtype) for name, dtype in given.items()}
    return {**tiny.collate(examples), **beside}


def trained(folder, policy, **options) -> Any:
    """After two optimizer steps; its gradients."""
    seen = Gradients()
    trainer = Recording(
        model=tiny.llama(),
        args=arguments(folder, per_device_train_batch_size=BATCH, **options),
        train_dataset=data(),
        data_collator=collate,
        callbacks=[seen],
        policy=policy,
        selection=SELECTION,
    )
    trainer.train()
    return trainer, seen


@everyone
@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_are_those_of_a_stock_trainer_fed_the_chosen_samples(tmp_path, policy, accumulation):
    options = {"max_steps": STEPS, "gradient_accumulation_steps": accumulation}
    chosen, got = trained(tmp_path, policy, **options)
    kept = [{name: x for name, x in batch.items() if name not in BESIDE} for batch in chosen.kept]
    seen = Gradients()
    stock = Fed(
        model=tiny.llama(),
        args=arguments(tmp_path, **options),
        train_dataset=kept,
        callbacks=[seen],
        batches=kept,
    )
    stock.train()
    assert len(got.steps) == len(seen.steps) == STEPS
    for ours, theirs in zip(got.steps, seen.steps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    sizes = {len(batch["input_ids"]) for batch in kept}
    varies = isinstance(policy, uds.SelectiveBackprop) and policy.keep is None
    assert all(1 <= size <= BATCH for size in sizes) if varies else sizes == {BATCH if policy == uds.Full() else 4}
    for name, numbers in chosen.selector.metrics.items():
        assert numbers == numbers, name  # noqa: PLR0124 - NaN


@everyone
def test_what_it_remembers_outlives_a_checkpoint(tmp_path, policy):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    straight, _ = trained(tmp_path, policy, **options)
    resumed = Recording(
        model=tiny.llama(),
        args=arguments(tmp_path, per_device_train_batch_size=BATCH, **options),
        train_dataset=data(),
        data_collator=collate,
        policy=policy,
        selection=SELECTION,
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.picks == straight.picks[3:]
    assert len(resumed.picks) == 3
    for name, tensor in straight.selector.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(resumed.selector.state_dict()[name])), name


def test_every_policy_is_in_the_table():
    beside = {"infobatch", "rds"}  # gradients of the one are weighted, see its own test; the other chooses before
    assert {uds.name_of(policy) for policy in POLICIES.values()} | beside == set(uds.names())
