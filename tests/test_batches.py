"""Padded batches: how many samples, taking some, what is trained on."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402


def test_takes_tensors_and_lists_and_passes_what_has_no_samples():
    batch = {
        "input_ids": torch.arange(8).reshape(4, 2),
        "names": ["a", "b", "c", "d"],
        "weight": torch.tensor(2.0),
        "return_dict": True,
        "nothing": None,
        "position_ids": torch.arange(2)[None],
    }
    taken = batches.take(batch, torch.tensor([1, 3]))
    assert taken["input_ids"].tolist() == [[2, 3], [6, 7]]
    assert taken["names"] == ["b", "d"]
    assert (taken["weight"], taken["return_dict"], taken["nothing"]) == (torch.tensor(2.0), True, None)
    assert taken["position_ids"].shape == (1, 2)
    assert type(taken) is dict
    assert batch["input_ids"].shape == (4, 2)


def test_the_type_of_mapping_is_kept():
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding(tiny.batch(4))
    taken = batches.take(batch, torch.tensor([0]))
    assert type(taken) is transformers.BatchEncoding
    assert taken.input_ids.shape[0] == 1


def test_labels_are_those_of_the_next_position():
    labels = torch.tensor([[5, -100, 7]])
    shifted: Any = batches.shifted_labels({"labels": labels})
    assert shifted.tolist() == [[-100, 7, -100]]
    assert batches.shifted_labels({"shift_labels": labels, "labels": labels}) is labels
    assert batches.shifted_labels({"input_ids": labels}) is None


def test_trained_tokens_are_rows_with_loss():
    assert batches.trained_tokens({"labels": torch.tensor([[5, -100, 7], [1, 2, 3]])}) == 3
    ids = torch.ones(2, 3, dtype=torch.int64)
    assert batches.trained_tokens({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])}) == 3
    assert batches.trained_tokens({"input_ids": ids}) == 6


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        ([1, 2], TypeError, "`batch` must be a mapping of tensors"),
        ({"pixels": torch.zeros(2)}, ValueError, "`batch` needs `input_ids`, .* it has \\['pixels'\\]"),
        (
            {"input_ids": torch.zeros(1, 6), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])},
            ValueError,
            "packed or padding-free",
        ),
        ({"input_ids": [[1, 2]]}, TypeError, "`batch` must hold torch tensors, got list"),
        ({"input_ids": torch.zeros(3)}, ValueError, r"must hold \(batch, time\) tensors"),
        ({"input_ids": torch.zeros(0, 3)}, ValueError, r"at least one sample, got shape \(0, 3\)"),
        (
            {"input_ids": torch.zeros(2, 3), "attention_mask": torch.ones(2, 4)},
            ValueError,
            r"`batch\['attention_mask'\]` must have shape \(batch, time\) = \(2, 3\), got \(2, 4\)",
        ),
        ({"input_ids": torch.zeros(1, 6), "cu_seq_lens_q": torch.tensor([0, 6])}, ValueError, "packed or padding-free"),
    ],
)
def test_what_is_no_batch_of_samples_is_refused(batch, error, words):
    with pytest.raises(error, match=words):
        batches.size(batch)


def test_a_tensor_that_belongs_to_nobody_is_refused():
    batch = {"input_ids": torch.zeros(4, 2), "pixel_values": torch.zeros(9, 3)}
    with pytest.raises(ValueError, match=r"`batch\['pixel_values'\]` has shape \(9, 3\), but the batch has 4 samples"):
        batches.take(batch, torch.tensor([0]))
