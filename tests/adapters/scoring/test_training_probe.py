"""Exact scores from the training pass: those of a scoring pass; training itself is as without it."""

from typing import Any

import numpy as np
import pytest
import tiny
from forms import documents, rows

import uds_core as uds

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

POLICIES = {
    "entropy": lambda **options: uds.Predicted("entropy", count=3, **options),
    "maxloss": lambda **options: uds.Predicted("maxloss", count=3, **options),
    "uds": lambda **options: uds.Predicted(uds.UDS(memory=8, dim=16), count=3, **options),
}
FORMS: dict[str, Any] = {
    "right": rows,
    "left": lambda some: rows(some, left=True),
    "documents": documents,
}


class _Measured:
    """A policy that measures, for a scoring pass."""

    def __init__(self, policy):
        self.policy, self.needs = policy, policy.needs

    def examine(self, candidates):
        return {"exact": self.policy.measure(candidates), "length": candidates.lengths()}


def learnt(policy):
    """The scores that the policy is given, in a list that grows."""
    given = []

    class Spy(type(policy)):
        def learn(self, state, scores):
            given.append(scores.clone())
            return super().learn(state, scores)

    spy = object.__new__(Spy)
    for name, value in vars(policy).items():
        object.__setattr__(spy, name, value)
    return spy, given


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("name", list(POLICIES))
def test_scores_of_the_training_pass_are_those_of_a_scoring_pass(name, form):
    model = tiny.llama()
    policy, given = learnt(POLICIES[name](warmup=0))
    selector: Any = BatchSelector(model, policy)
    made = FORMS[form]
    batch = selector(made(tiny.examples(6)))
    measured: Any = _Measured(policy)
    scorer = Scorer(model)
    expected = scorer.examine(selector._batch_scorer.view(batch)[0], measured)["exact"]
    model(**batch, use_cache=False).loss.backward()
    order = selector.last.indices.argsort()  # the batch is in the order of the candidates
    selector(made(tiny.examples(6, seed=1)))
    assert len(given) == 1
    np.testing.assert_allclose(given[0][order], expected, rtol=2e-5)


@pytest.mark.parametrize("name", list(POLICIES))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_bit_for_bit_that_of_the_chosen_batches_alone(name, checkpointing):
    losses: dict[bool, list[float]] = {True: [], False: []}
    weights, trained = {}, []
    for watched in (True, False):
        model = tiny.llama(dropout=0.1)
        if checkpointing:
            enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        selector: Any = BatchSelector(model, POLICIES[name](warmup=2)) if watched else None
        torch.manual_seed(7)
        for step in range(6):
            if selector is not None:
                trained.append(selector(tiny.batch(6, seed=step)))
            loss = model(**trained[step]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[watched].append(loss.item())
        weights[watched] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        assert selector is None or not selector._batch_scorer.probe._hooks
    assert losses[True] == losses[False]
    assert torch.equal(weights[True], weights[False])


def test_a_few_rows_of_a_long_sample_estimate_its_mean(monkeypatch):
    from uds_adapters.scoring import training_probe

    monkeypatch.setattr(training_probe, "_LOGITS", 0)  # eight rows of each sample
    torch.manual_seed(0)
    mask = torch.rand(5, 40) < torch.tensor([[0.0], [0.1], [0.5], [1.0], [0.9]])
    index, given = training_probe._some_rows(mask, 8)
    for one, rows_of, where in zip(mask, index, given, strict=True):
        places = rows_of[where].tolist()
        assert len(set(places)) == len(places) == min(8, int(one.sum()))
        assert one[places].all()
    assert torch.equal(training_probe._some_rows(mask, 40)[1].sum(1), mask.sum(1))


def test_micro_batches_that_are_chosen_before_any_is_trained_are_all_measured():
    model = tiny.llama()
    policy, given = learnt(POLICIES["maxloss"](warmup=0))
    selector: Any = BatchSelector(model, policy)
    for step in range(3):
        chosen = [selector(tiny.batch(6, seed=10 * step + micro)) for micro in range(3)]
        for batch in chosen:
            model(**batch).loss.backward()
    assert [len(scores) for scores in given] == [9, 9]
    assert all(scores.isfinite().all() for scores in given)


def test_a_batch_that_is_never_trained_stays_unknown_and_the_next_is_measured():
    model = tiny.llama()
    policy, given = learnt(POLICIES["maxloss"](warmup=0))
    selector: Any = BatchSelector(model, policy)
    selector(tiny.batch(6, seed=0))
    model(**selector(tiny.batch(6, seed=1))).loss.backward()
    selector(tiny.batch(6, seed=2))
    assert [scores.isfinite().tolist() for scores in given] == [[False] * 3 + [True] * 3]


def test_passes_without_gradients_and_other_batches_are_not_taken_for_it():
    model = tiny.llama()
    policy, given = learnt(POLICIES["maxloss"](warmup=0))
    selector: Any = BatchSelector(model, policy)
    batch = selector(tiny.batch(6, seed=0))
    with torch.no_grad():
        model(**batch)
    model(**tiny.batch(3, seed=5)).loss.backward()
    model(**batch).loss.backward()
    selector(tiny.batch(6, seed=1))
    own = torch.nn.functional.cross_entropy(
        model(**batch).logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
    )
    per_sample = own.view(3, -1).sum(1) / (batch["labels"][:, 1:] != -100).sum(1)
    np.testing.assert_allclose(given[0].sort().values, per_sample.detach().sort().values, rtol=1e-5)


def test_a_head_that_is_not_seen_is_scored_every_tenth_step_with_one_warning():
    class Fused(torch.nn.Module):
        """A model whose loss in training reads the head's weight, as fused losses do."""

        def __init__(self):
            super().__init__()
            self.inner = tiny.llama()
            self.config = self.inner.config

        def get_output_embeddings(self):
            return self.inner.lm_head

        def get_input_embeddings(self):
            return self.inner.get_input_embeddings()

        def forward(self, input_ids, attention_mask=None, labels: Any = None, **_):
            if not torch.is_grad_enabled():
                return self.inner(input_ids=input_ids, attention_mask=attention_mask)
            hidden = self.inner.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            logits = hidden @ self.inner.lm_head.weight.T
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            return {"loss": loss}

    model = Fused()
    policy, given = learnt(POLICIES["maxloss"](warmup=0))
    selector: Any = BatchSelector(model, policy)
    first, *others = [tiny.batch(6, seed=step) for step in range(14)]
    model(**selector(first))["loss"].backward()
    with pytest.warns(UserWarning, match="is not seen in the training pass .* every 10th step"):
        model(**selector(others[0]))["loss"].backward()
    for batch in others[1:]:
        model(**selector(batch))["loss"].backward()
    known = [bool(scores.isfinite().all()) for scores in given]
    assert known == [False] + [True] + [False] * 9 + [True, False]


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one():
    def run(steps, *, stop=None):
        model = tiny.llama()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        selector: Any = BatchSelector(model, POLICIES["uds"](warmup=2))
        chosen = []
        for step in range(steps):
            if step == stop:
                state, other = selector.state_dict(), BatchSelector(model, POLICIES["uds"](warmup=2))
                other.load_state_dict(state)
                selector = other
            elif stop is None and step == 5:
                selector.state_dict()  # a checkpoint is written there, too
            model(**selector(tiny.batch(8, seed=step))).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            chosen.append((selector.last_indices, selector.last.scores.tolist()))
        return chosen, selector.state_dict()

    straight, resumed = run(10), run(10, stop=5)
    assert straight[0] == resumed[0]
    for name, tensor in straight[1].items():
        np.testing.assert_array_equal(tensor, resumed[1][name], err_msg=name)


def test_numbers_beside_the_batch_reach_the_measurement():
    model = tiny.llama()
    policy, given = learnt(uds.Predicted("rholoss", count=3, warmup=0))
    selector: Any = BatchSelector(model, policy)
    batch = selector({**tiny.batch(6), "reference_loss": torch.arange(6.0)})
    model(**batch).loss.backward()
    places = selector.last_indices
    order = selector.last.indices.argsort()
    selector({**tiny.batch(6, seed=1), "reference_loss": torch.arange(6.0)})
    labels = batch["labels"][:, 1:]
    own = torch.nn.functional.cross_entropy(
        model(**batch).logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none"
    )
    per_sample = own.view(3, -1).sum(1) / (labels != -100).sum(1)
    np.testing.assert_allclose(given[0][order], per_sample.detach() - torch.tensor(places), rtol=1e-5)


def test_a_model_without_an_embedding_table_is_refused():
    model = tiny.llama()
    model.get_input_embeddings = lambda: None
    with pytest.raises(TypeError, match="reads the input embedding table, and LlamaForCausalLM has none"):
        BatchSelector(model, uds.Predicted("entropy", count=2))


@pytest.mark.parametrize("name", list(POLICIES))
def test_adapters_of_peft_in_autocast_and_accelerate_are_measured(name):
    peft = pytest.importorskip("peft")
    accelerate = pytest.importorskip("accelerate")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = accelerate.Accelerator(cpu=True).prepare(peft.get_peft_model(tiny.llama(), config))
    policy, given = learnt(POLICIES[name](warmup=1))
    selector: Any = BatchSelector(model, policy)
    for step in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            batch = selector(tiny.batch(6, seed=step))
            loss = model(**batch).loss
        loss.backward()
    assert [len(scores) for scores in given] == [3, 3]
    assert all(scores.isfinite().all() for scores in given)


TARGET = uds.ngram_counts(tiny.batch(6, seed=99)["input_ids"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: uds.Fresh(uds.Predicted("maxloss", count=3, warmup=2, forget=1.0)),
        lambda: uds.Targeted(uds.Predicted("maxloss", count=3, warmup=2, forget=1.0), target=TARGET),
    ],
    ids=["fresh", "targeted"],
)
def test_a_predicted_score_inside_of_another_policy_learns_and_is_resumed(make):
    model = tiny.llama()
    selector: Any = BatchSelector(model, make())
    for step in range(6):
        model(**selector(tiny.batch(8, seed=step))).loss.backward()
    state = selector.state_dict()
    resumed: Any = BatchSelector(model, make())
    resumed.load_state_dict(state)
    for one in (selector, resumed):
        one(tiny.batch(8, seed=9))
    assert selector.last_indices == resumed.last_indices
    # near-duplicates, and what is not drawn, are empty samples to the policy inside, and teach nothing
    assert 4 * 3 < float(selector.history.state.policy.learner.weight) <= 2 * 8 + 4 * 3
