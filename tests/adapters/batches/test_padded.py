"""Padded views: samples padded on either side."""

from collections import UserDict
from typing import Any

import forms
import pytest
import tiny

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402
from uds_adapters.batches.padded import PaddedView  # noqa: E402

EXAMPLES = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in ([1, 2, 3], [4, 5], [6, 7, 8, 9, 10], [11])]

DECODER = batches.Layout(shift=False, decoder=True)


def view(batch, **options) -> Any:
    samples = batches.view(batch, **options)
    assert isinstance(samples, PaddedView)
    return samples


@pytest.mark.parametrize("left", [False, True])
def test_takes_samples_in_order_and_trims_what_is_padding_in_all(left):
    batch = forms.rows(EXAMPLES, left=left, more=2)
    for chosen in ([1, 0], [3], [2, 3, 0], [0, 0]):
        expected = forms.rows([EXAMPLES[i] for i in chosen], left=left)
        assert forms.same(view(batch).take(chosen), expected)
    assert forms.same(batch, forms.rows(EXAMPLES, left=left, more=2))  # what came is as it was


def test_what_the_views_tell():
    samples = view(forms.rows(EXAMPLES[:2]))
    assert len(samples) == 2
    assert samples.batch is not samples.inputs
    assert list(samples.inputs) == ["input_ids", "attention_mask"]
    assert samples.labels.tolist() == [[2, 3, -100], [5, -100, -100]]
    assert samples.mask.tolist() == [[True, True, True], [True, True, False]]
    assert samples.tokens.tolist() == [2, 1]
    assert samples.tokens.dtype == torch.int64


def test_the_last_positions_of_an_output_are_the_batch_s_own():
    samples, x = view(forms.rows(EXAMPLES[:2])), torch.randn(2, 3, 4)
    assert samples.arrange(x).tolist() == x.tolist()
    assert samples.arrange(torch.cat([torch.ones(2, 5, 4), x], 1)).tolist() == x.tolist()  # virtual tokens before


def test_without_labels_all_that_is_no_padding_counts():
    batch = forms.rows(EXAMPLES)
    del batch["labels"]
    assert view(batch).labels is None
    assert view(batch).tokens.tolist() == [3, 2, 5, 1]
    del batch["attention_mask"]
    assert view(batch).mask is None
    assert view(batch).tokens.tolist() == [5, 5, 5, 5]
    assert view(batch).take([3])["input_ids"].shape == (1, 5)  # nothing tells of padding, nothing is trimmed


def test_samples_without_any_label_are_samples():
    batch = forms.rows(EXAMPLES)
    batch["labels"][1:] = -100
    assert view(batch).tokens.tolist() == [2, 0, 0, 0]
    assert view(batch).take([1])["input_ids"].tolist() == [[4, 5]]


def test_a_sample_of_padding_alone_keeps_one_column():
    batch = {"input_ids": torch.zeros(2, 3), "attention_mask": torch.tensor([[0, 0, 0], [1, 1, 1]])}
    assert view(batch).take([0])["input_ids"].shape == (1, 1)


def test_labels_that_are_already_shifted_are_taken_as_they_are():
    batch = forms.rows(EXAMPLES)
    batch["shift_labels"] = torch.nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=-100)
    assert view(batch).labels is batch["shift_labels"]
    assert view(batch).take([1, 3])["shift_labels"].tolist() == [[5, -100], [-100, -100]]
    assert "shift_labels" not in view(batch).inputs


def test_columns_that_carry_loss_are_no_padding():
    """A mask may cover the end-of-text token, which is trained; padding before a first token may predict it."""
    batch = {
        "input_ids": torch.tensor([[0, 0, 1, 2, 9, 0, 0], [0, 0, 0, 3, 9, 0, 0]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]]),
        "labels": torch.tensor([[-100, -100, 1, 2, 9, -100, -100], [-100, -100, -100, -100, 9, -100, -100]]),
    }
    assert view(batch).take([0])["input_ids"].tolist() == [[0, 1, 2, 9]]
    assert view(batch).take([1])["input_ids"].tolist() == [[3, 9]]
    assert batches.trained_tokens(view(batch).take([0])) == batches.trained_tokens(batch) - 1 == 3


def test_entries_of_every_kind():
    batch = {
        **forms.rows(EXAMPLES, more=2),
        "token_type_ids": torch.arange(28).reshape(4, 7),
        "names": ["a", "b", "c", "d"],
        "ids": (1, 2, 3, 4),
        "ranks": range(4),
        "weight": torch.tensor([0.1, 0.2, 0.3, 0.4]),
        "scale": torch.tensor(2.0),
        "return_dict": True,
        "nothing": None,
        "features": torch.arange(12).reshape(4, 3),
    }
    taken = view(batch).take([1, 0])
    assert taken["token_type_ids"].tolist() == [[7, 8, 9], [0, 1, 2]]
    assert (taken["names"], taken["ids"], taken["ranks"]) == (["b", "a"], (2, 1), [1, 0])
    assert taken["weight"].tolist() == batch["weight"][[1, 0]].tolist()
    assert (taken["scale"], taken["return_dict"], taken["nothing"]) == (torch.tensor(2.0), True, None)
    assert taken["features"].tolist() == [[3, 4, 5], [0, 1, 2]]


def test_nothing_is_trimmed_beside_an_unknown_entry_that_may_have_a_column_a_position():
    batch = {**forms.rows(EXAMPLES), "mystery": torch.arange(20).reshape(4, 5)}
    taken = view(batch).take([1])
    assert taken["mystery"].tolist() == [[5, 6, 7, 8, 9]]
    assert taken["input_ids"].tolist() == [[4, 5, 0, 0, 0]]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(4,), (6,), (5, 2), (5, 5), (1, 5, 5), (2, 6), (2, 2, 4)])
def test_nothing_is_trimmed_beside_an_entry_with_about_as_many_columns_as_positions(shape, left):
    """One number a target, one more than positions, biases of attention: cut, they would be of another length."""
    batch = {**forms.rows(EXAMPLES, left=left), "mystery": torch.randn(4, *shape)}
    taken = view(batch).take([1, 0])
    assert torch.equal(taken["mystery"], batch["mystery"][[1, 0]])
    assert taken["input_ids"].shape == taken["labels"].shape == (2, 5)
    features = {**forms.rows(EXAMPLES, left=left), "mystery": torch.randn(4, 8)}
    assert view(features).take([1, 0])["input_ids"].shape == (2, 3)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_entries_with_a_number_a_target_are_joined_on_the_side_of_the_padding(more, left):
    parts = [forms.rows(EXAMPLES[:2], left=left), forms.rows(EXAMPLES[2:], left=left)]
    for part in parts:
        part["logps"] = torch.ones(2, part["input_ids"].shape[1] + more)
    joined = batches.join(parts)["logps"]
    filling = torch.zeros(2, 2)
    first = torch.cat([filling, parts[0]["logps"]] if left else [parts[0]["logps"], filling], 1)
    assert torch.equal(joined, torch.cat([first, parts[1]["logps"]]))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5), (2, 2)), ((1, 5), (1, 2)), ((3, 3, 5), (3, 2, 2)), ((3, 1, 5), (3, 1, 2)), ((4, 3, 5), (4, 2, 2))],
    ids=["own", "shared", "kinds", "kinds-shared", "kinds-and-text"],
)
def test_positions(shape, expected):
    batch = forms.rows([EXAMPLES[0], EXAMPLES[1], EXAMPLES[3]], more=2)
    positions = batch["position_ids"] = torch.arange(torch.Size(shape).numel()).reshape(shape)
    taken = view(batch).take([2, 1])["position_ids"]
    rows = [2, 1] if shape[-2] == 3 else [0]
    assert taken.shape == expected
    assert taken.tolist() == positions[..., rows, :2].tolist()


def test_embeddings_instead_of_ids():
    batch = forms.rows(EXAMPLES, left=True)
    batch["inputs_embeds"] = torch.randn(4, 5, 8)
    del batch["input_ids"]
    taken = view(batch).take([1])
    assert torch.equal(taken["inputs_embeds"], batch["inputs_embeds"][1:2, 3:])
    assert taken["inputs_embeds"].is_contiguous()


def test_the_type_of_mapping_is_kept():
    assert type(view(tiny.batch(4)).take([0])) is dict
    assert type(view(UserDict(tiny.batch(4))).take([0])) is UserDict
    transformers = pytest.importorskip("transformers")
    taken = view(transformers.BatchEncoding(tiny.batch(4))).take([0])
    assert type(taken) is transformers.BatchEncoding
    assert taken.input_ids.shape[0] == 1


def test_windows_of_a_wrapped_stream_are_rows():
    stream = torch.arange(24).reshape(3, 8)
    batch = {"input_ids": stream, "labels": stream, "attention_mask": torch.ones_like(stream)}  # TRL: packing="wrapped"
    assert view(batch).take([2])["labels"].tolist() == [list(range(16, 24))]
    one = {name: value[:1] for name, value in batch.items()}
    assert len(view(one)) == 1


def test_one_row_padded_on_the_left_is_no_line_of_documents():
    batch = {
        "input_ids": torch.tensor([[0, 0, 1, 2, 3]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1]]),
        "position_ids": torch.tensor([[0, 0, 0, 1, 2]]),
    }
    assert view(batch).take([0])["position_ids"].tolist() == [[0, 1, 2]]
    batch["position_ids"] = torch.tensor([[1, 1, 0, 1, 2]])
    assert view(batch).take([0])["input_ids"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attention_mask", torch.ones(2, 4), r"\(batch, time\) = \(2, 3\), got \(2, 4\)$"),
        ("attention_mask", torch.ones(2, 1, 3, 3), r"got \(2, 1, 3, 3\): .*let the collator return the 2-d mask"),
        ("attention_mask", torch.ones(2, 3, 3), "let the collator return the 2-d mask"),
        ("labels", torch.ones(2), r"`batch\['labels'\]` must have shape \(batch, time\) = \(2, 3\), got \(2,\)"),
        ("labels", [[1, 2, 3], [1, 2, 3]], r"`batch\['labels'\]` must have shape"),
        ("token_type_ids", torch.ones(2, 4), r"`batch\['token_type_ids'\]` must have shape"),
    ],
)
@pytest.mark.parametrize("indexer", [None, lambda batch, indices: batch], ids=["", "indexer"])
def test_shapes_that_do_not_fit_are_refused(name, value, words, indexer):
    with pytest.raises(ValueError, match=words):
        batches.view({"input_ids": torch.zeros(2, 3), name: value}, indexer=indexer)


def seq2seq(*, mask=False, left=False):
    batch = forms.rows(EXAMPLES, left=left, more=2)
    labels = torch.tensor([[1, 2, -100, -100], [3, -100, -100, -100], [4, 5, 6, -100], [7, 8, -100, -100]])
    batch["labels"] = torch.nn.functional.pad(labels, (0, 1), value=-100)
    batch["decoder_input_ids"] = torch.tensor([[9, 1, 0, 0, 0], [9, 0, 0, 0, 0], [9, 4, 5, 0, 0], [9, 7, 0, 0, 0]])
    if mask:
        batch["decoder_attention_mask"] = (batch["labels"] != -100).long()
    return batch


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_what_is_read_and_what_is_written_are_trimmed_each_on_its_own(mask, left):
    batch = seq2seq(mask=mask, left=left)
    samples = view(batch, layout=DECODER)
    assert samples.labels is batch["labels"]
    assert samples.tokens.tolist() == [2, 1, 3, 2]
    assert (samples.mask is None) is not mask
    taken = samples.take([0, 3])
    assert taken["input_ids"].tolist() == ([[1, 2, 3], [0, 0, 11]] if left else [[1, 2, 3], [11, 0, 0]])
    assert taken["labels"].tolist() == [[1, 2], [7, 8]]
    assert taken["decoder_input_ids"].tolist() == [[9, 1], [9, 7]]
    if mask:
        assert taken["decoder_attention_mask"].tolist() == [[1, 1], [1, 1]]
    x = torch.randn(4, 5, 2)
    assert torch.equal(samples.arrange(x), x)
    assert [len(part.labels[0]) for part in samples.split(2)] == [2, 3]
    assert batches.trained_tokens(batch, layout=DECODER) == 8


def test_a_decoder_without_labels_has_its_inputs():
    batch = seq2seq()
    del batch["labels"]
    samples = view(batch, layout=DECODER)
    assert samples.labels is None
    assert samples.take([1])["decoder_input_ids"].shape == (1, 5)
    del batch["decoder_input_ids"]
    with pytest.raises(ValueError, match="of an encoder-decoder model needs one of labels, decoder_input_ids"):
        batches.view(batch, layout=DECODER)


def test_speech_needs_an_indexer():
    batch = {"input_features": torch.randn(3, 8, 20), "labels": torch.tensor([[1, 2], [3, -100], [4, 5]])}
    with pytest.raises(ValueError, match="input_features"):
        batches.view(batch, layout=DECODER)
    samples = view(batch, layout=DECODER, indexer=lambda whole, at: {name: value[at] for name, value in whole.items()})
    assert samples.take([1])["input_features"].shape == (1, 8, 20)
    assert samples.tokens.tolist() == [2, 1, 2]
