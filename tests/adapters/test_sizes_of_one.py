"""Sizes of one: batch, row, target, memory, sketch, scoring pass, audit."""

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters import audit, batches  # noqa: E402
from uds_adapters.selection.metrics import Means  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

POLICIES = [
    uds.UDS(keep=0.25, memory=1, dim=2),
    uds.UDS(count=1, memory=2, dim=2),
    uds.Fresh(count=1),
    uds.MaxLoss(count=1),
    uds.Random(count=1),
    uds.SelectiveBackprop(count=1),
    uds.LossEMA(count=1),
    uds.UDS(keep=0.25, memory=4, dim=2, temperature=0.5),
]
MODEL = tiny.llama()


@st.composite
def steps(draw):
    """Steps of micro-batches of samples (tokens, first label)."""
    length = st.integers(1, 4)
    sample = length.flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
    return draw(st.lists(st.lists(st.lists(sample, min_size=1, max_size=3), min_size=1, max_size=2), max_size=3))


def batch(samples, first) -> Any:
    rows = [
        {"input_ids": [5 + i] * time, "labels": [-100] * prompt + [5 + i] * (time - prompt)}
        for i, (time, prompt) in enumerate(samples)
    ]
    return {**tiny.collate(rows), "id": torch.arange(first, first + len(rows))}


@pytest.mark.filterwarnings("ignore:no candidate of this step has a label", "ignore:keep=.* all of them")
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@settings(max_examples=8, deadline=None)
@given(run=steps(), scope=st.sampled_from(["micro", "step"]), size=st.sampled_from([None, 1]))
def test_every_size_is_selected_audited_and_restored(policy, run, scope, size, tmp_path_factory):
    file = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    options: Any = {"id_field": "id", "score_batch_size": size}
    select, candidates = BatchSelector(MODEL, policy, audit=audit.Audit(file), **options), 0
    for micro in [*run, [[(3, 1)]]]:  # at least one step, and the last of one sample
        given_batches = [batch(samples, 10 * i) for i, samples in enumerate(micro)]
        chosen, tokens = select.select_step(given_batches, scope=scope)
        candidates += sum(map(len, micro))
        assert tokens == sum(batches.trained_tokens(one) for one in chosen)
        state = select.state_dict()
        select = BatchSelector(MODEL, policy, audit=audit.Audit(file), **options)
        select.load_state_dict(state)
    rows = list(audit.read(file))
    assert len(rows) == candidates
    assert rows[-1]["chosen"] is True


@pytest.mark.parametrize("given_id", [torch.tensor(7), torch.tensor([7]), [7], 7], ids=["scalar", "row", "list", "int"])
def test_the_identity_of_a_single_sample_may_come_without_an_axis(given_id):
    select = BatchSelector(MODEL, uds.MaxLoss(count=1), id_field="id")
    select({**tiny.batch(1), "id": given_id})
    assert select.last_ids == [7]


def test_means_do_not_grow_with_the_number_of_selections():
    means = Means()
    for number in range(1000):
        means.add({"a": float(number)} | ({"b": 1.0} if number % 2 else {}))
    assert means.means() == {"a": 499.5, "b": 1.0}
    assert (len(means), means.sum("b"), means.sum("absent")) == (2, 500.0, 0.0)


def test_a_trainer_that_logs_nothing_piles_up_nothing(tmp_path):
    pytest.importorskip("accelerate")
    from recorded_trainer import arguments

    from uds_adapters.transformers import UDSTrainer

    def run(steps):
        options = {"logging_strategy": "no", "max_steps": steps, "per_device_train_batch_size": 2}
        trainer = UDSTrainer(
            model=tiny.llama(),
            args=arguments(tmp_path, **options),
            train_dataset=tiny.examples(8),
            data_collator=tiny.collate,
            policy=uds.Random(count=1),
        )
        trainer.train()
        return len(trainer._uds_metrics)

    assert run(2) == run(6)


def test_a_choice_of_all_is_said_to_be_none():
    with pytest.warns(UserWarning, match=r"keep=0.25 of 1 candidate is all of them.*scope='step'"):
        BatchSelector(MODEL, uds.UDS(keep=0.25))(tiny.batch(1))
    for policy, number in ((uds.UDS(keep=0.25), 2), (uds.UDS(keep=1.0), 1), (uds.MaxLoss(count=2), 2)):
        BatchSelector(MODEL, policy)(tiny.batch(number))  # a warning would be an error
    select = BatchSelector(MODEL, uds.UDS(keep=0.25))
    select(tiny.batch(4))
    select(tiny.batch(1))  # the last batch of an epoch
    with pytest.warns(UserWarning, match="keep=0.25 of 1 candidate is all of them"):
        BatchSelector(MODEL, uds.UDS(keep=0.25)).select_step([tiny.batch(1), tiny.batch(1)], scope="micro")
    BatchSelector(MODEL, uds.UDS(keep=0.5)).select_step([tiny.batch(1), tiny.batch(1)], scope="step")


@pytest.mark.parametrize("policy", [uds.UDS(keep=0.5), uds.Random(count=2), uds.MaxLoss(count=1)])
def test_data_without_one_label_is_said_to_train_nothing(policy):
    without = tiny.batch(4)
    without["labels"] = torch.full_like(without["labels"], -100)
    with pytest.warns(UserWarning, match="no candidate of this step has a label to predict.*nothing is trained"):
        BatchSelector(MODEL, policy).select_step([without])
