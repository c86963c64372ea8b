"""The samples of a batch: laws that hold in every form."""

from typing import Any

import forms
import numpy as np
import pytest
import tiny
from hypothesis import assume, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402

FORMS = {
    "right": lambda examples, more: forms.rows(examples, more=more),
    "left": lambda examples, more: forms.rows(examples, left=True, more=more),
    "documents": lambda examples, more: forms.documents(examples, multiple=8 * more + 1),
    "positions": lambda examples, more: forms.documents(examples, multiple=8 * more + 1, entries=("position_ids",)),
}
AS_WIDE = {
    "right": forms.rows_as_wide,
    "left": lambda examples, got: forms.rows_as_wide(examples, got, left=True),
    "documents": forms.documents_as_wide,
    "positions": lambda examples, got: forms.documents_as_wide(examples, got, entries=("position_ids",)),
}
form = st.sampled_from(sorted(FORMS))

DECODER = batches.Layout(shift=False, decoder=True)


@st.composite
def example(draw):
    # no document of one token, or of one again and again: at the end of a line it is padding
    ids = draw(st.lists(st.integers(1, 96), min_size=2, max_size=9).filter(lambda ids: len(set(ids)) > 1))
    prompt = draw(st.integers(1, len(ids)))
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


samples_of = st.lists(example(), min_size=1, max_size=5)


@given(samples_of, form, st.integers(0, 2))
def test_taking_all_gives_the_batch_up_to_padding(examples, name, more):
    taken = batches.view(FORMS[name](examples, more)).take(range(len(examples)))
    assert forms.same(taken, AS_WIDE[name](examples, taken))
    assert forms.same(batches.view(taken).take(range(len(examples))), taken)


@given(samples_of, form, st.integers(0, 2), st.data())
def test_taking_twice_is_taking_once(examples, name, more, data):
    samples = batches.view(FORMS[name](examples, more))
    first = data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1))
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1))
    twice = batches.view(samples.take(first)).take(second)
    once = [examples[first[i]] for i in second]
    assert forms.same(twice, AS_WIDE[name](once, twice))
    directly = samples.take([first[i] for i in second])
    assert forms.same(directly, AS_WIDE[name](once, directly))


@given(samples_of, form, st.integers(0, 2), st.integers(1, 6))
def test_split_and_joined_are_the_same_samples(examples, name, more, size):
    whole = batches.view(FORMS[name](examples, more))
    parts = whole.split(size)
    assert [len(part) for part in parts] == [
        min(size, len(examples) - start) for start in range(0, len(examples), size)
    ]
    assert torch.cat([part.tokens for part in parts]).tolist() == whole.tokens.tolist()
    assert sum(batches.trained_tokens(part.batch) for part in parts) == batches.trained_tokens(whole.batch)
    joined = batches.view(batches.join([part.batch for part in parts]))
    assert len(joined) == len(examples)
    for view in (joined, whole):
        for i, one in enumerate(examples):
            taken = view.take([i])
            assert forms.same(taken, AS_WIDE[name]([one], taken))


@given(samples_of, st.sampled_from(["documents", "positions"]), st.integers(0, 2))
def test_documents_and_rows_of_the_same_samples_tell_the_same(examples, name, more):
    rows: Any = batches.view(forms.rows(examples))
    documents: Any = batches.view(FORMS[name](examples, more))
    assert documents.labels.tolist() == rows.labels.tolist()
    assert documents.tokens.tolist() == rows.tokens.tolist()
    mask = torch.ones_like(rows.mask) if documents.mask is None else documents.mask
    assert mask.tolist() == rows.mask.tolist()
    outputs = documents.batch["input_ids"][..., None] * 1.0, rows.batch["input_ids"][..., None] * 1.0
    assert torch.equal(documents.arrange(outputs[0]), rows.arrange(outputs[1]))


@given(samples_of, form, st.integers(0, 2))
def test_nothing_but_padding_is_trimmed(examples, name, more):
    samples = batches.view(FORMS[name](examples, more))
    for i, one in enumerate(examples):
        taken: Any = samples.take([i])
        width, longest = taken["input_ids"].shape[1], len(one["input_ids"])
        assert forms.same(taken, AS_WIDE[name]([one], taken))
        assert width - longest < alignment_of(samples.batch, name, examples)


def alignment_of(batch, name, examples):
    """The strictest `pad_to_multiple_of` that the collator may have had, as `batches.alignment` has it in words."""
    width, padding = batch["input_ids"].shape[1], sum(len(one["input_ids"]) for one in examples)
    power = next(2**k for k in range(12, -1, -1) if width % 2**k == 0)
    if name in ("documents", "positions"):
        return min(power, 128) if width > padding else (16 if width % 16 == 0 else 1)
    excess = width - max(len(one["input_ids"]) for one in examples)
    return width if power > 1 and excess >= power else power


@given(samples_of, form)
def test_an_empty_batch_has_the_same_entries_and_counts_for_nothing(examples, name):
    batch = FORMS[name](examples, 0)
    without = batches.empty(batch)
    assert sorted(without) == sorted(batch)
    assert all(tensor.numel() == 0 for tensor in without.values() if torch.is_tensor(tensor) and tensor.ndim)
    assert batches.trained_tokens(without) == 0


@given(samples_of, form, st.sampled_from([2, 4, 8, 16, 64]), st.data())
def test_the_collators_alignment_survives(examples, name, multiple, data):
    whole, longest = (fold(len(one["input_ids"]) for one in examples) for fold in (sum, max))
    if name in ("right", "left"):
        batch = forms.rows(examples, left=name == "left", more=-longest % multiple)
    else:
        entries = ("position_ids",) if name == "positions" else ("position_ids", "cu_seq_lens", "seq_idx")
        assume(whole % multiple or multiple == 16)  # a row without padding tells of 16 alone
        batch = forms.documents(examples, multiple=multiple, entries=entries)
    chosen = data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, unique=True))
    samples = batches.view(batch)
    parts = [samples.take(chosen), *(part.batch for part in samples.split(2))]
    assert [part["input_ids"].shape[1] % multiple for part in [*parts, batches.join(parts)]] == [0] * (len(parts) + 1)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("multiple", "width"), [(24, 48), (12, 36), (100, 100), (2048, 2048), (10, 30)])
def test_widths_that_no_power_of_two_explains_stay(multiple, width, left):
    longest = width - min(multiple - 1, 30)
    examples = [{"input_ids": [7] * length, "labels": [7] * length} for length in (longest, 2)]
    batch = forms.rows(examples, left=left, more=width - longest)
    power = width & -width
    taken = batches.view(batch).take([1])
    assert taken["input_ids"].shape[1] == (width if width - longest >= power else power)


def test_counting_trained_tokens():
    assert batches.trained_tokens({"labels": torch.tensor([[5, -100, 7], [1, 2, 3]])}) == 3
    ids = torch.ones(2, 3, dtype=torch.int64)
    assert batches.trained_tokens({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])}) == 3
    assert batches.trained_tokens({"input_ids": ids}) == 6


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_blank_batch_has_a_sample_and_no_target(name):
    batch = FORMS[name](tiny.examples(3), 1)
    without = batches.blank(batch)
    assert len(batches.view(without)) == 1
    assert batches.trained_tokens(without) == 0
    assert without.keys() == batch.keys()


EXAMPLES = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in ([1, 2, 3], [4, 5], [6, 7, 8, 9, 10], [11, 12])]


@pytest.mark.parametrize("left", [False, True])
def test_rows_are_joined_on_the_side_they_are_padded_on(left):
    parts = [forms.rows(EXAMPLES[:2], left=left), forms.rows(EXAMPLES[2:], left=left)]
    assert forms.same(batches.join(parts), forms.rows(EXAMPLES, left=left))


def test_rows_without_a_mask_gain_one_where_they_are_padded():
    parts = [forms.rows(EXAMPLES[:1]), forms.rows(EXAMPLES[2:3])]
    for part in parts:
        del part["attention_mask"]
    assert forms.same(batches.join(parts), forms.rows([EXAMPLES[0], EXAMPLES[2]]))
    assert "attention_mask" not in batches.join([parts[0], parts[0]])


def test_what_pads_is_what_padded_before():
    parts = [forms.rows(EXAMPLES[:2]), forms.rows(EXAMPLES[2:3])]
    parts[0]["input_ids"][1, 2] = 50
    assert batches.join(parts)["input_ids"].tolist() == [[1, 2, 3, 50, 50], [4, 5, 50, 50, 50], [6, 7, 8, 9, 10]]


def test_joining_entries_of_every_kind():
    def part(examples, kinds, **more):
        batch = forms.rows(examples)
        shape = batch["input_ids"].shape
        positions = torch.arange(shape[1]).expand(*kinds, shape[1])
        weights = torch.ones(shape) if "weights" not in more else more.pop("weights")
        return {**batch, "position_ids": positions, "weights": weights, "scale": 2, **more}

    parts = [
        part(EXAMPLES[:2], (1,), names=["a", "b"], of=torch.tensor([1, 2])),
        part(EXAMPLES[2:3], (1,), names=["c"], of=torch.tensor([3])),
    ]
    joined = batches.join(parts)
    assert joined["names"] == ["a", "b", "c"]
    assert joined["of"].tolist() == [1, 2, 3]
    assert joined["scale"] == 2
    assert joined["position_ids"].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
    assert joined["weights"].sum(1).tolist() == [3, 3, 5]
    kinds = batches.join([part(EXAMPLES[:2], (3, 2)), part(EXAMPLES[2:3], (3, 1))])
    assert kinds["position_ids"].shape == (3, 3, 5)
    parts[1]["scale"] = 3
    with pytest.raises(ValueError, match=r"`batch\['scale'\]` belongs to whole batches and differs.*\[2, 3\]"):
        batches.join(parts)


def test_joining_what_is_read_and_written():
    def part(examples, labels):
        return {**forms.rows(examples, left=True), "labels": torch.tensor(labels)}

    parts = [part(EXAMPLES[:2], [[1], [2]]), part(EXAMPLES[2:], [[3, 4], [5, -100]])]
    joined = batches.join(parts, layout=DECODER)
    assert joined["input_ids"].tolist() == forms.rows(EXAMPLES, left=True)["input_ids"].tolist()
    assert joined["labels"].tolist() == [[1, -100], [2, -100], [3, 4], [5, -100]]


def test_documents_are_joined_in_one_line():
    parts = [forms.documents(EXAMPLES[:3], multiple=16), forms.documents(EXAMPLES[3:])]
    assert forms.same(batches.join(parts), forms.documents(EXAMPLES))
    parts = [forms.documents(part, entries=("position_ids",)) for part in (EXAMPLES[:1], EXAMPLES[1:])]
    assert forms.same(batches.join(parts), forms.documents(EXAMPLES, entries=("position_ids",)))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "at least one batch to join, got none"),
        ([tiny.batch(2), {"input_ids": torch.zeros(1, 2)}], "must have the same entries to be joined, got .*'labels'"),
        (
            [forms.documents(EXAMPLES, entries=("seq_idx",)), {**tiny.batch(2), "seq_idx": torch.zeros(2, 9)}],
            "the same entries|all padded rows, or all one row of documents",
        ),
        (
            [{**tiny.batch(2), "x": torch.zeros(2, 3)}, {**tiny.batch(2), "x": torch.zeros(2, 4)}],
            r"`batch\['x'\]` must agree in all axes but 0 to be joined, got shapes \[\(2, 3\), \(2, 4\)\]",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        batches.join(parts)


def hidden_states(model, samples):
    """What goes into the head, of each sample (time, width), its own rows only."""
    caught = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    with torch.no_grad():
        model(**samples.inputs, use_cache=False)
    hook.remove()
    states = samples.arrange(caught[0])
    mask = torch.ones(states.shape[:2], dtype=torch.bool) if samples.mask is None else samples.mask
    return [state[own] for state, own in zip(states, mask, strict=True)]


def loss_of(model, batch):
    """Summed over tokens; with a cache, transformers would not look for documents."""
    with torch.no_grad():
        return model(**batch, num_items_in_batch=1, use_cache=False).loss.item()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_model_makes_of_what_is_taken_what_it_makes_of_the_samples_alone(name, attention):
    model = tiny.llama().eval()
    model.set_attn_implementation(attention)
    examples = tiny.examples(6)
    single = [{key: torch.tensor([values]) for key, values in one.items()} for one in examples]
    alone = [hidden_states(model, batches.view(batch))[0] for batch in single]
    losses = [loss_of(model, batch) for batch in single]
    samples = batches.view(FORMS[name](examples, 1))
    for indices in ([4, 1, 2], [3], [0, 1, 2, 3, 4, 5]):
        taken = batches.view(samples.take(indices))
        for got, i in zip(hidden_states(model, taken), indices, strict=True):
            np.testing.assert_allclose(got, alone[i], atol=1e-5)
        np.testing.assert_allclose(loss_of(model, taken.batch), sum(losses[i] for i in indices), rtol=1e-5)
    pieces = [state for part in samples.split(4) for state in hidden_states(model, part)]
    for whole, piece, expected in zip(hidden_states(model, samples), pieces, alone, strict=True):
        np.testing.assert_allclose(whole, expected, atol=1e-5)
        np.testing.assert_allclose(piece, expected, atol=1e-5)
    joined = batches.join([part.batch for part in samples.split(4)])
    np.testing.assert_allclose(loss_of(model, joined), sum(losses), rtol=1e-5)
