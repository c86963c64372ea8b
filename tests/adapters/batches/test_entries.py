"""Entries of a batch: what they tell of it, and which are refused."""

import re
from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402
from uds_adapters.batches import entries  # noqa: E402


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        ([1, 2], TypeError, "`batch` must be a mapping of tensors"),
        ({"pixels": torch.zeros(2)}, ValueError, "`batch` needs `input_ids`, .* it has \\['pixels'\\]"),
        ({"input_ids": [[1, 2]]}, TypeError, "`batch` must hold torch tensors, got list"),
        ({"input_ids": torch.zeros(3)}, ValueError, r"must hold \(batch, time\) tensors"),
        ({"input_ids": torch.zeros(0, 3)}, ValueError, r"at least one sample, got shape \(0, 3\)"),
    ],
)
def test_what_is_no_batch_of_samples_is_refused(batch, error, words):
    with pytest.raises(error, match=words):
        batches.view(batch)
    if isinstance(batch, dict) and tuple(getattr(batch.get("input_ids"), "shape", ())) == (0, 3):
        assert batches.trained_tokens(batch) == 0  # what the Trainers put where nothing was chosen
        return
    with pytest.raises(error, match=words):
        batches.trained_tokens(batch)


REFUSED = {
    "pixel_values": torch.zeros(4, 3, 8, 8),  # as many images as samples, by chance
    "image_grid_thw": torch.ones(4, 3, dtype=torch.int64),
    "pixel_values_videos": torch.zeros(4, 5),
    "input_features": torch.zeros(4, 80, 30),
    "audio_values": torch.zeros(4, 1, 100),
    "num_patches": torch.ones(4, dtype=torch.int64),
    "something": torch.zeros(9, 3),
    "nested": {"input_ids": torch.zeros(4, 2)},
    "ragged": [[1], [1, 2], [], [3]],
    "columns": [[1, 2, 3, 4], [1, 2, 3, 4]],
    "images": [torch.zeros(3, 8, 8)] * 4,
    "records": [{"a": 1}] * 4,
    "names": ["a", "b", "c"],
    "anything": object(),
    "cu_seq_lens_q": torch.tensor([0, 2, 4, 6]),
    "position_ids": torch.zeros(2, 3, dtype=torch.int64),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_apart_is_refused_with_the_remedy(name):
    value = REFUSED[name]
    batch = {**tiny.batch(4), name: value}
    with pytest.raises(
        ValueError, match=rf"`batch\['{name}'\]` .* the batch has 4 samples.*`indexer\(batch, indices\)"
    ):
        batches.view(batch)
    assert batches.trained_tokens(batch) == batches.trained_tokens(tiny.batch(4))  # counting takes nothing apart

    def indexer(whole, indices):
        return {key: whole[key] if key == name else whole[key][indices] for key in whole}

    samples = batches.view(batch, indexer=indexer)
    assert len(samples) == 4
    taken = samples.take([2, 0])
    assert taken["input_ids"].tolist() == batch["input_ids"][[2, 0]].tolist()
    assert [len(part) for part in samples.split(3)] == [3, 1]
    assert samples.split(3)[1].inputs["input_ids"].tolist() == batch["input_ids"][3:].tolist()


def test_messages_tell_what_came():
    with pytest.raises(ValueError, match=re.escape("`batch['pixel_values']` has shape (9, 3), and the batch has 4")):
        batches.view({"input_ids": torch.zeros(4, 2), "pixel_values": torch.zeros(9, 3)})
    with pytest.raises(ValueError, match=re.escape("`batch['names']` is a list of 2 that holds dict and list, and")):
        batches.view({"input_ids": torch.zeros(2, 2), "names": [[1], {}]})
    with pytest.raises(ValueError, match=re.escape("`batch['other']` is a dict, and")):
        batches.view({"input_ids": torch.zeros(2, 2), "other": {}})


def test_paths_of_images_are_words_one_a_sample():
    batch = {"input_ids": torch.zeros(2, 2), "image_path": ["a.png", "b.png"], "pixel_values": None}
    assert batches.view(batch).take([1])["image_path"] == ["b.png"]


def test_an_indexer_that_takes_another_number_is_told():
    samples = batches.view(tiny.batch(4), indexer=lambda batch, indices: batch)
    with pytest.raises(ValueError, match="`indexer` was asked for 2 samples and returned a batch of 4"):
        samples.take([0, 1])


@pytest.mark.parametrize(
    "indices",
    [[2, 0], (2, 0), range(2, -1, -2), torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int32)],
)
def test_indices_may_be_any_whole_numbers(indices):
    assert entries.chosen(indices, 3).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([], ValueError, r"at least one, got shape \(0,\)"),
        ([0.0], ValueError, r"whole numbers \(k,\), at least one, got shape \(1,\) of float32"),
        (torch.tensor([True, False, True]), ValueError, "of bool"),
        (torch.tensor(1), ValueError, r"got shape \(\)"),
        ([3], IndexError, r"`indices` must lie between 0 and 2, the batch's samples, got \[3\]"),
        ([-1], IndexError, "between 0 and 2"),
    ],
)
def test_what_names_no_samples_is_refused(indices, error, words):
    with pytest.raises(error, match=words):
        entries.chosen(indices, 3)


def test_targets_are_those_of_the_next_position():
    labels = torch.tensor([[5, -100, 7]])
    shifted: Any = entries.targets({"labels": labels})
    assert shifted.tolist() == [[-100, 7, -100]]
    assert entries.targets({"labels": labels}, shift=False) is labels
    assert entries.targets({"shift_labels": labels, "labels": -labels}) is labels
    assert entries.targets({"input_ids": labels}) is None
