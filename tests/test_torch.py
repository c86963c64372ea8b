"""`BatchSelector`: any loop."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters.forward import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402


def policy(**options):
    return uds.UDS(**{"keep": 0.5, "memory": 8, "dim": 16, **options})


def test_returns_the_chosen_samples_in_their_order():
    model, batch = tiny.llama(), tiny.batch(6)
    select = BatchSelector(model, policy())
    kept = select(batch)
    features = policy().examine(Scorer(model)(batch))
    expected = sorted(policy().choose(None, features)[0].indices.tolist())
    assert select.last_indices == expected
    assert len(expected) == 3
    for name, tensor in batch.items():
        assert torch.equal(kept[name], tensor[expected])


@pytest.mark.parametrize("chosen", [uds.Full(), policy(keep=1.0), uds.Random(), uds.Longest(), uds.MaxLoss()])
def test_keeping_all_returns_the_batch_itself(chosen):
    batch = tiny.batch(4)
    assert BatchSelector(tiny.llama(), chosen)(batch) is batch


def test_policies_that_look_at_no_logits_run_no_forward():
    model = tiny.llama()
    model.forward = None  # would raise if it were called
    for chosen in (uds.Full(), uds.Random(count=2), uds.Longest(count=2)):
        assert len(BatchSelector(model, chosen)(tiny.batch(4))["input_ids"]) in (2, 4)


def test_last_batches_smaller_than_k_are_kept_whole():
    assert len(BatchSelector(tiny.llama(), policy(keep=None, count=4))(tiny.batch(3))["input_ids"]) == 3


def test_nothing_keeps_a_graph_alive():
    select = BatchSelector(tiny.llama(), policy())
    for seed in range(4):
        select(tiny.batch(seed=seed))
    assert not select._state.memory.rows.requires_grad
    assert select._state.memory.rows.dtype == torch.float32


@pytest.mark.parametrize("make", [policy, lambda: uds.Random(count=2, seed=1)], ids=["uds", "random"])
def test_saving_and_loading_in_the_middle_changes_nothing(make, tmp_path):
    from safetensors.torch import load_file, save_file

    model = tiny.llama()
    straight, interrupted = BatchSelector(model, make()), BatchSelector(model, make())
    picks = []
    for seed in range(8):
        straight(tiny.batch(seed=seed))
        picks.append(straight.last_indices)
    for seed in range(3):
        interrupted(tiny.batch(seed=seed))
    save_file(interrupted.state_dict(), tmp_path / "selector.safetensors")
    torch.save(interrupted.state_dict(), tmp_path / "selector.pt")
    for state in (
        load_file(tmp_path / "selector.safetensors"),
        torch.load(tmp_path / "selector.pt", weights_only=True),
    ):
        resumed = BatchSelector(model, make())
        resumed.load_state_dict(state)
        assert resumed.state_dict().keys() == state.keys()  # saved again before its first batch, nothing is lost
        got = []
        for seed in range(3, 8):
            resumed(tiny.batch(seed=seed))
            got.append(resumed.last_indices)
        assert got == picks[3:]


def test_states_of_another_kind_are_refused():
    select = BatchSelector(tiny.llama(), policy())
    with pytest.raises(ValueError, match="not a selector's state: unknown entries"):
        select.load_state_dict({"weight": torch.zeros(1)})
    other = BatchSelector(tiny.llama(), policy(memory=9))
    other(tiny.batch())
    select.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"'memory.rows' has shape \(9, 16\), this policy expects \(8, 16\)"):
        select(tiny.batch())


def test_metrics_tell_what_was_kept_and_why():
    batch = tiny.batch(6)
    select = BatchSelector(tiny.llama(), policy())
    kept = select(batch)
    tokens = [int((b["labels"][:, 1:] != -100).sum()) for b in (kept, batch)]
    assert select.metrics["kept_tokens_fraction"] == pytest.approx(tokens[0] / tokens[1])
    assert select.last is not None
    assert select.metrics["utility_mean"] == pytest.approx(float(select.last.parts["utility"].mean()))
    assert select.metrics["diversity_mean"] == 0
    assert select.metrics["scoring_seconds"] > 0
    assert {"alpha"} < set(select.metrics)


def test_importance_weights_are_refused_until_they_are_applied():
    class Weighted(uds.Full):
        def choose(self, state, features, /, *, groups=None):
            selection, state = super().choose(state, features)
            weights = torch.ones(len(selection.indices))
            return uds.Selection(indices=selection.indices, scores=selection.scores, weights=weights), state

    with pytest.raises(ValueError, match="importance weights, which this adapter does not apply"):
        BatchSelector(tiny.llama(), Weighted())(tiny.batch())


def test_a_sample_without_labels_is_left_out():
    batch = tiny.batch(6)
    batch["labels"][2] = -100
    select = BatchSelector(tiny.llama(), policy(keep=None, count=5))
    select(batch)
    assert select.last_indices == [0, 1, 3, 4, 5]


def test_what_is_no_policy_is_refused_at_construction():
    wrongs: list[Any] = ["uds", uds.UDS, None]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"`policy` must be a policy such as uds.UDS\(keep=0.25\)"):
            BatchSelector(tiny.llama(), wrong)
    with pytest.raises(ValueError, match="importance weights"):
        BatchSelector(tiny.llama(), policy(temperature=1.0))
