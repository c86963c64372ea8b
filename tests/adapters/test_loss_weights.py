"""Importance weights: the gradient is that of an explicit sum over samples, in every adapter."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import loops  # noqa: E402
import spawned  # noqa: E402
from recorded_trainer import Gradients, Recording, arguments  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.schedule import Schedule  # noqa: E402
from uds_adapters.torch import BatchSelector, weighted_loss  # noqa: E402
from uds_adapters.transformers import UDSTrainer  # noqa: E402

POLICY = uds.UDS(keep=0.5, memory=16, dim=16, temperature=2.0)


def flattened(examples) -> dict[str, Any]:
    """Documents one after the other in one row, as a padding-free collator makes them."""
    return {
        "input_ids": torch.tensor([[i for one in examples for i in one["input_ids"]]]),
        "labels": torch.tensor([[i for one in examples for i in one["labels"]]]),
        "position_ids": torch.tensor([[i for one in examples for i in range(len(one["input_ids"]))]]),
    }


def number_of(examples) -> int:
    return sum(label != -100 for one in examples for label in one["labels"])


@pytest.mark.parametrize("collate", [tiny.collate, lambda e: tiny.collate(e, left=True), flattened])
def test_the_weighted_loss_estimates_the_mean_over_all_candidates(collate):
    examples, model = tiny.examples(12), tiny.llama()
    select = BatchSelector(model, POLICY)
    batch = select(collate(examples))
    weights = batch.pop("loss_weights")
    assert weights.shape == batch["labels"].shape
    weighted_loss(model(**batch, use_cache=False).logits, batch["labels"], weights, num_items=select.tokens).backward()
    picks, importance = loops.drawn(select.last)
    expected = loops.explicit([examples[i] for i in picks], importance, number_of(examples))
    assert loops.far(loops.flat(model.parameters()), expected) < 1e-5


@pytest.mark.parametrize("scope", ["step", "micro"])
@pytest.mark.parametrize("collate", [tiny.collate, flattened])
def test_over_several_batches_of_a_step(collate, scope, monkeypatch):
    examples, model = tiny.examples(24), tiny.llama()
    select = BatchSelector(model, POLICY)
    chosen, choose = [], select._choose

    def note(*args):
        chosen.append(choose(*args))
        return chosen[-1]

    monkeypatch.setattr(select, "_choose", note)
    micros = [examples[:8], examples[8:16], examples[16:]]
    kept, tokens = select.select_step([collate(some) for some in micros], scope=scope)
    for batch in kept:
        weights = batch.pop("loss_weights")
        weighted_loss(model(**batch, use_cache=False).logits, batch["labels"], weights, num_items=tokens).backward()
    pools = [examples] if scope == "step" else micros
    some, importance = [], []
    for pool, selection in zip(pools, chosen, strict=True):
        picks, weights = loops.drawn(selection)
        some += [pool[i] for i in picks]
        importance += weights
    assert loops.far(loops.flat(model.parameters()), loops.explicit(some, importance, number_of(examples))) < 1e-5


def test_a_warm_up_has_weights_of_one():
    select = BatchSelector(tiny.llama(), POLICY, schedule=Schedule(start_step=1))
    batch = select(tiny.batch(8))
    assert torch.equal(batch.pop("loss_weights"), torch.ones(batch["labels"].shape))


def test_weights_that_were_left_in_the_batch_are_an_error():
    select = BatchSelector(tiny.llama(), POLICY)
    select(tiny.batch(8))
    with pytest.raises(RuntimeError, match=r"batch.pop\('loss_weights'\)"):
        select(tiny.batch(8))
    with pytest.raises(RuntimeError, match=r"batch.pop\('loss_weights'\)"):
        list(BatchSelector(tiny.llama(), POLICY).iterate([tiny.batch(8)]))


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"the labels' shape \(2, 3\), got \(2,\)"):
        weighted_loss(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2))
    batch = {name: tensor for name, tensor in tiny.batch(8).items() if name != "labels"}
    with pytest.raises(ValueError, match="importance weights needs `labels`"):
        BatchSelector(tiny.llama(), uds.UDS(keep=0.5, rows="tokens", temperature=1.0))(batch)


def test_a_weighted_loss_without_weights_is_the_models_own():
    model, batch = tiny.llama(), tiny.batch()
    out = model(**batch)
    torch.testing.assert_close(weighted_loss(out.logits, batch["labels"], None), out.loss)


FEW = uds.UDS(count=2, memory=16, dim=16, temperature=2.0)


@pytest.mark.parametrize(
    ("accumulation", "scope", "policy"),
    [*((n, scope, POLICY) for n in (1, 3) for scope in ("step", "micro")), (4, "step", FEW)],
    ids=["1-step", "1-micro", "3-step", "3-micro", "fewer than micro-batches"],
)
def test_the_trainer_applies_them(tmp_path, accumulation, scope, policy):
    class Noting(Recording):
        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            choose = self.selector._choose

            def note(*given):
                selections.append(choose(*given))
                return selections[-1]

            vars(self.selector)["_choose"] = note
            return super().get_batch_samples(*args, **kwargs)

    selections, seen, data = [], Gradients(), tiny.examples(96)

    class InOrder(Noting):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    run: Any = InOrder(
        model=tiny.llama(),
        args=arguments(tmp_path, gradient_accumulation_steps=accumulation, max_steps=1),
        train_dataset=data,
        data_collator=tiny.collate,
        callbacks=[seen],
        policy=policy,
        scope=scope,
    )
    run.train()
    examples = data[: 8 * accumulation]
    pools = [examples] if scope == "step" else [examples[8 * i : 8 * i + 8] for i in range(accumulation)]
    some, importance = [], []
    for pool, selection in zip(pools, selections, strict=True):
        picks, weights = loops.drawn(selection)
        some += [pool[i] for i in picks]
        importance += weights
    assert loops.far(seen.steps[0], loops.explicit(some, importance, number_of(examples))) < 1e-5
    assert run.evaluate(tiny.examples(8))["eval_loss"] == pytest.approx(
        float(run.model(**tiny.collate(tiny.examples(8))).loss.detach()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "model"), [({"label_smoothing_factor": 0.1}, None), ({}, {"output_router_logits": True})]
)
def test_another_loss_is_refused(tmp_path, options, model):
    made = tiny.llama()
    made.config.update(model or {})
    with pytest.raises(ValueError, match=r"importance weights.*another loss.*a policy without importance weights"):
        UDSTrainer(model=made, args=arguments(tmp_path, **options), train_dataset=[], policy=POLICY)


@pytest.mark.parametrize("ranks", ["rank", "global", "stay"])
def test_on_two_processes(tmp_path, ranks):
    found = spawned.all_well(spawned.run(loops.weighted, 2, tmp_path, ranks=ranks))
    examples = loops.pools(1, 1, 16)[0][0]
    expected = loops.explicit([examples[i] for i in found[0]["picks"]], found[0]["weights"], number_of(examples))
    for one in found:
        assert loops.far(one["gradient"], expected) < 1e-5


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_on_two_processes(tmp_path, accumulation):
    """Samples move between the processes, and their weights with them."""
    policy = uds.UDS(**loops.POLICY, temperature=2.0)
    options = {"policy": policy, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    found = spawned.all_well(spawned.run(loops.trainer, 2, tmp_path, **options))
    data = tiny.examples(96)
    alone = spawned.all_well(spawned.run(loops.trainer, 1, tmp_path, **options))[0]
    for one in found:
        assert one["picks"] == alone["picks"]
        assert one["weights"] == pytest.approx(alone["weights"], rel=1e-5)
        assert loops.far(one["gradients"][0], alone["gradients"][0]) < 1e-5
    expected = loops.explicit([data[i] for i in alone["order"]], alone["weights"], number_of(data[: 8 * accumulation]))
    assert loops.far(alone["gradients"][0], expected) < 1e-5
