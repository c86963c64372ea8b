"""`BatchSelector`: any loop."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters import audit, batches, checkpoints  # noqa: E402
from uds_adapters.schedule import Schedule  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
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


@pytest.mark.parametrize(
    "chosen", [uds.Full(), policy(keep=1.0), uds.Random(keep=1.0), uds.Longest(count=4), uds.MaxLoss(keep=1.0)]
)
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
    assert not select.history.state.memory.rows.requires_grad
    assert select.history.state.memory.rows.dtype == torch.float32


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


def test_a_policys_own_importance_weights_come_with_the_batch():
    class Weighted(uds.Full):
        def choose(self, state, features, /, *, groups=None):
            selection, state = super().choose(state, features)
            weights = 1.0 + torch.arange(len(selection.indices))
            return uds.Selection(indices=selection.indices, scores=selection.scores, weights=weights), state

    weights = BatchSelector(tiny.llama(), Weighted())(tiny.batch(6)).pop("loss_weights")
    assert weights[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(weights, weights[:, :1].expand_as(weights))


def test_a_sample_without_labels_is_left_out():
    batch = tiny.batch(6)
    batch["labels"][2] = -100
    select = BatchSelector(tiny.llama(), policy(keep=None, count=5))
    select(batch)
    assert select.last_indices == [0, 1, 3, 4, 5]


def test_what_is_no_policy_is_refused_at_construction():
    wrongs: list[Any] = [3, uds.UDS, None]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"`policy` must be a policy such as uds.UDS\(keep=0.25\)"):
            BatchSelector(tiny.llama(), wrong)
    with pytest.raises(ValueError, match=r"keep all candidates.*give UDS a `keep` such as 0.25"):
        BatchSelector(tiny.llama(), uds.UDS())
    BatchSelector(tiny.llama(), uds.SelectiveBackprop(form="history", beta=1.0))  # accepts as many as it likes
    with pytest.raises(ValueError, match="keep all candidates"):
        BatchSelector(tiny.llama(), uds.SelectiveBackprop(form="history"))


def test_it_is_said_where_there_are_no_labels():
    batch = {name: values for name, values in tiny.batch(4).items() if name != "labels"}
    with pytest.warns(UserWarning, match="no `labels`, so that all its tokens are scored"):
        BatchSelector(tiny.llama(), policy())(batch)
    BatchSelector(tiny.llama(), policy(rows="tokens"))(batch)


def own_tokens(batch):
    """Each sample's tokens, without padding."""
    return [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_step_is_one_pool_split_evenly(number, left):
    window = [tiny.batch(6, seed=seed, left=left) for seed in range(number)]
    samples = [one for batch in window for one in own_tokens(batch)]
    select = BatchSelector(tiny.llama(), policy())
    kept, tokens = select.select_step(window)
    whole = BatchSelector(tiny.llama(), policy())
    whole(tiny.collate([{"input_ids": one, "labels": one} for one in samples]))
    sizes = [len(batch["input_ids"]) for batch in kept]
    assert sum(sizes) == 3 * number
    assert max(sizes) - min(sizes) <= 1
    assert [one for batch in kept for one in own_tokens(batch)] == [samples[i] for i in select.last_indices]
    assert tokens == select.tokens == sum(batches.trained_tokens(batch) for batch in kept)


def test_a_step_chooses_what_one_batch_of_all_its_samples_would():
    examples = tiny.examples(12, seed=5)
    select, whole = (BatchSelector(tiny.llama(), policy()) for _ in range(2))
    for _ in range(3):  # the memory takes part from the second on
        select.select_step([tiny.collate(examples[:4]), tiny.collate(examples[4:8]), tiny.collate(examples[8:])])
        whole(tiny.collate(examples))
        assert select.last_indices == whole.last_indices


def test_a_summed_loss_over_the_steps_tokens_is_the_token_mean():
    window = [tiny.batch(4, seed=seed) for seed in range(3)]
    kept, tokens = BatchSelector(tiny.llama(), policy()).select_step(window)
    got, expected = tiny.llama(), tiny.llama()
    for batch in kept:
        got(**batch, num_items_in_batch=tokens).loss.backward()
    joined = batches.join(kept)
    expected(**joined).loss.backward()
    for a, b in zip(got.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_fewer_chosen_than_batches_make_fewer_batches():
    kept, _ = BatchSelector(tiny.llama(), uds.Longest(count=2)).select_step([tiny.batch(3, seed=s) for s in range(3)])
    assert [len(batch["input_ids"]) for batch in kept] == [1, 1]
    assert BatchSelector(tiny.llama(), policy()).select_step([]) == ([], 0)


def test_a_pool_does_not_depend_on_how_it_is_scored():
    batch = tiny.batch(7, seed=2)
    picks = []
    for size in (None, 1, 3):
        select = BatchSelector(tiny.llama(), policy(), score_batch_size=size)
        select(batch)
        picks.append(select.last_indices)
    assert picks[0] == picks[1] == picks[2]


def test_a_policy_that_scores_padding_is_never_given_parts_of_a_batch(monkeypatch):
    scored = uds.Reference(count=2, time=32, rank=(3, 10), memory=8)
    with pytest.raises(ValueError, match="`score_batch_size` is 2, and Reference scores the padding"):
        BatchSelector(tiny.llama(), scored, score_batch_size=2)(tiny.batch(6))

    def too_large(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr("uds_adapters.scoring.scorer.examined", too_large)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        BatchSelector(tiny.llama(), scored)(tiny.batch(6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mean_hidden_row_may_be_of_any_precision_and_still_hang_in_a_graph(dtype):
    row = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()
    select = BatchSelector(tiny.llama(), policy(centre=row))
    select(tiny.batch(6))
    other = BatchSelector(tiny.llama(), policy(centre=row.detach().clone()))
    other.load_state_dict(select.state_dict())
    other(tiny.batch(6))


def test_the_schedule_says_when_and_how_much():
    schedule = Schedule(start_step=2, every=2, curve="linear", initial=1.0, steps=2)
    select = BatchSelector(tiny.llama(), policy(keep=0.25), schedule=schedule)
    sizes = []
    for seed in range(8):
        sizes.append(len(select(tiny.batch(8, seed=seed))["input_ids"]))
    assert sizes == [8, 8, 8, 8, 5, 8, 2, 8]  # 0.625 x 8, then 0.25 x 8
    assert select.last is None
    assert select.metrics["kept_tokens_fraction"] == 1
    assert len(select(tiny.batch(8), step=10)["input_ids"]) == 2  # the loop's own count, where it has one
    with pytest.raises(TypeError, match="`keep`, but Full has no such option"):
        BatchSelector(tiny.llama(), uds.Full(), schedule=schedule)


def test_the_schedule_goes_on_where_it_was_saved():
    schedule = Schedule(start_step=3)
    first = BatchSelector(tiny.llama(), policy(), schedule=schedule)
    for seed in range(3):
        first(tiny.batch(seed=seed))
    second = BatchSelector(tiny.llama(), policy(), schedule=schedule)
    second.load_state_dict(first.state_dict())
    assert len(second(tiny.batch(6))["input_ids"]) == 3


@pytest.mark.parametrize("every", [1, 2])
def test_an_audit_that_was_emptied_since_the_state_was_saved_is_said_to_be(tmp_path, every):
    def select():
        written = audit.Audit(tmp_path / "audit.jsonl", every=every)
        return BatchSelector(tiny.llama(), policy(), audit=written, schedule=Schedule(start_step=2))

    first = select()
    for seed in range(7):
        first(tiny.batch(seed=seed))
    state = first.state_dict()
    select().load_state_dict(state)
    first(tiny.batch(seed=7))
    select().load_state_dict(state)  # a later record is no loss
    (tmp_path / "audit.jsonl").write_text("")
    second = select()
    with pytest.warns(UserWarning, match=r"audit\.jsonl has no records of steps 2 to 6, which the run had written"):
        second.load_state_dict(state)
    second(tiny.batch(seed=7))
    second(tiny.batch(seed=8))
    rest = 7 if every == 1 else 8
    assert {row["step"] for row in audit.read(tmp_path / "audit.jsonl")} == ({7, 8} if every == 1 else {8})
    with pytest.warns(UserWarning, match=f"no records of steps 2 to {rest - 1}, which"):
        select().load_state_dict(second.state_dict())
    without = {name: value for name, value in state.items() if name != "audited"}
    select().load_state_dict(without)  # as older versions saved it


@pytest.mark.parametrize(
    "identities", [torch.arange(40, 46), [f"line {i}" for i in range(6)]], ids=["numbers", "words"]
)
def test_identities_are_taken_out_and_told(identities):
    batch = {**tiny.batch(6), "id": identities}
    select = BatchSelector(tiny.llama(), policy(), id_field="id")
    kept = select(batch)
    assert "id" not in kept
    assert "id" in batch
    assert select.last_ids == [identities[i] for i in select.last_indices]
    with pytest.raises(ValueError, match=r"`batch` has no 'id' \(`id_field`\)"):
        select(tiny.batch(6))


@pytest.mark.parametrize("given", [range(40, 46), np.arange(40, 46), tuple(np.arange(40, 46))])
def test_identities_may_be_any_numbers(given):
    select = BatchSelector(tiny.llama(), uds.LossDrop(count=2), id_field="id")
    select({**tiny.batch(6), "id": given})
    assert select.last_ids == [40 + i for i in select.last_indices]


@pytest.mark.parametrize("given", [[1, 2, 3], torch.arange(7), ["a"] * 5])
def test_identities_that_are_not_one_each_are_told_before_anything_is_chosen(given):
    select = BatchSelector(tiny.llama(), policy(), id_field="id")
    with pytest.raises(ValueError, match=rf"`batch\['id'\]` has {len(given)} entries, and the batch has 6 samples"):
        select({**tiny.batch(6), "id": given})
    assert select.history.choices == 0
    select = BatchSelector(tiny.llama(), uds.RHOLoss(count=2))
    with pytest.raises(ValueError, match=r"`batch\['reference_loss'\]` has 3 entries"):
        select({**tiny.batch(6), "reference_loss": torch.ones(3)})


def test_parts_that_are_whole_numbers_have_means_too():
    class Counting(uds.MaxLoss):
        def score(self, features, /):
            return features["loss"]

        def choose(self, state, features, /, *, groups=None):
            selection, state = super().choose(state, features, groups=groups)
            parts = {"right": features["length"].to(torch.int64), "long": features["length"] > 3}
            return dataclasses.replace(selection, parts=parts), state

    select = BatchSelector(tiny.llama(), Counting(count=2))
    select(tiny.batch(6))
    assert select.last is not None
    assert select.metrics["right_mean"] == pytest.approx(float(select.last.parts["right"].float().mean()))
    assert 0 <= select.metrics["long_mean"] <= 1


def test_a_policy_gets_the_entries_that_it_asks_for():
    batch = tiny.batch(6)
    reference = torch.tensor([0.0, 9.0, 0.0, 9.0, 9.0, 9.0])  # as if two samples could be learnt
    for size in (None, 2):
        select = BatchSelector(tiny.llama(), uds.RHOLoss(count=2), score_batch_size=size)
        kept = select({**batch, "reference_loss": reference})
        assert select.last_indices == [0, 2]
        assert "reference_loss" not in kept
    with pytest.raises(ValueError, match=r"no 'reference_loss' \(the policy asks for it\)"):
        select(batch)


def test_a_policy_that_remembers_samples_is_told_which_they_are():
    select = BatchSelector(tiny.llama(), uds.LossDrop(count=2), id_field="id", score_batch_size=4)
    for _ in range(2):
        select({**tiny.batch(6), "id": torch.arange(6)})
    assert len(select.last_indices) == 2


def test_a_policy_that_reads_ids_is_refused_without_an_id_field_before_any_batch():
    with pytest.raises(ValueError, match=r"LossDrop remembers samples by their ids: set `id_field`"):
        BatchSelector(tiny.llama(), uds.LossDrop(count=2))


def test_the_audit_tells_every_candidate(tmp_path):
    file = tmp_path / "audit.jsonl"
    select = BatchSelector(tiny.llama(), policy(), id_field="id", audit=audit.Audit(file))
    expected = []
    for seed in range(3):
        select({**tiny.batch(6, seed=seed), "id": list("abcdef")})
        expected.append(select.last_indices)
    rows = list(audit.read(file))
    assert len(rows) == 18
    assert [[r["position"] for r in rows if r["step"] == s and r["chosen"]] for s in range(3)] == expected
    assert [row["id"] for row in rows[:6]] == list("abcdef")
    assert {"score", "utility", "diversity", "tokens"} <= set(rows[0])


def test_an_indexer_takes_batches_apart_that_we_cannot():
    batch = {**tiny.batch(4), "pixel_values": torch.arange(9.0)}  # images: 2, 1, 4 and 2 of them
    parts = [slice(0, 2), slice(2, 3), slice(3, 7), slice(7, 9)]

    class Seeing(torch.nn.Module):
        """A model that takes images, for form's sake."""

        def __init__(self):
            super().__init__()
            self.inner = tiny.llama()
            self.config = self.inner.config

        def get_output_embeddings(self):
            return self.inner.get_output_embeddings()

        def forward(self, pixel_values=None, **inputs):
            return self.inner(**inputs)

    def indexer(batch, indices):
        rows = {name: batch[name][indices] for name in ("input_ids", "labels", "attention_mask")}
        return {**rows, "pixel_values": torch.cat([batch["pixel_values"][parts[i]] for i in indices.tolist()])}

    with pytest.raises(ValueError, match="indexer"):
        BatchSelector(Seeing(), policy())(batch)
    select = BatchSelector(Seeing(), policy(), indexer=indexer)
    kept = select(batch)
    assert len(kept["input_ids"]) == 2
    assert kept["pixel_values"].tolist() == indexer(batch, torch.tensor(select.last_indices))["pixel_values"].tolist()
    with pytest.raises(ValueError, match="cannot be joined"):
        select.select_step([batch, batch])


def test_a_state_that_does_not_fit_names_what_differs(tmp_path):
    select = BatchSelector(tiny.llama(), policy())
    select(tiny.batch())
    checkpoints.save(tmp_path / "state", select.state_dict(), checkpoints.describe(select.policy))
    other = BatchSelector(tiny.llama(), policy(seed=1))
    state, about = checkpoints.load(tmp_path / "state")
    other.load_state_dict(state, about=about)
    with pytest.raises(ValueError, match="saved with seed=0, now seed=1"):
        other(tiny.batch())


def test_a_policy_may_be_given_as_text():
    by_text, by_value = (
        BatchSelector(tiny.llama(), "maxloss:keep=0.5"),
        BatchSelector(tiny.llama(), uds.MaxLoss(keep=0.5)),
    )
    batch = tiny.batch(6)
    by_text(batch)
    by_value(batch)
    assert by_text.policy == by_value.policy
    assert by_text.last_indices == by_value.last_indices
    with pytest.raises(ValueError, match="`policy` would keep all candidates"):
        BatchSelector(tiny.llama(), "uds")


def test_a_policy_that_needs_no_budget_is_not_asked_for_one():
    accepts = uds.SelectiveBackprop(form="history", beta=1.0)
    assert not accepts.needs.budget
    assert uds.SelectiveBackprop(form="history").needs.budget
    assert uds.UDS(keep=0.5).needs.budget
    BatchSelector(tiny.llama(), accepts)
    BatchSelector(tiny.llama(), uds.Full())
