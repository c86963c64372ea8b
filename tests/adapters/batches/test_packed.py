"""Rows of several documents: the same samples, whatever the number of rows and however they are padded."""

from typing import Any

import forms
import pytest
import tiny

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402
from uds_adapters.batches.documents import DocumentView  # noqa: E402
from uds_adapters.batches.padded import PaddedView  # noqa: E402

ROWS = [[[1, 2, 3], [4, 5]], [[6, 7, 8, 9, 10]], [[11, 12], [13, 14], [15, 16, 17]]]
DOCUMENTS = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for row in ROWS for ids in row]


def packed(rows, *, mask, padding="zero", entries=("position_ids",)) -> Any:
    """Each row holds documents one after the other, padded on the right."""
    time = max(sum(map(len, row)) for row in rows)
    batch = {"input_ids": [], "labels": [], "attention_mask": [], "position_ids": [], "seq_idx": []}
    for row in rows:
        ids, more = [token for ids in row for token in ids], time - sum(map(len, row))
        last = len(row[-1])
        padded = {"zero": [0] * more, "anew": [*range(more)], "on": [*range(last, last + more)], "one": [1] * more}
        batch["input_ids"].append(ids + [0] * more)
        batch["labels"].append(ids + [-100] * more)
        batch["attention_mask"].append([1] * len(ids) + [0] * more)
        batch["position_ids"].append([place for ids in row for place in range(len(ids))] + padded[padding])
        index = [number for number, ids in enumerate(row) for _ in ids]
        batch["seq_idx"].append(index + [index[-1]] * more)
    left_out = {"position_ids", "seq_idx", "attention_mask"} - {*entries, *(["attention_mask"] if mask else [])}
    return {name: torch.tensor(values) for name, values in batch.items() if name not in left_out}


def samples_of(batch) -> list:
    """Ids and targets of each sample, without padding."""
    samples: Any = batches.view(batch)
    samples_found = []
    for i in range(len(samples)):
        one: Any = batches.view(samples.take([i]))
        real = torch.ones_like(one.batch["input_ids"][0], dtype=torch.bool) if one.mask is None else one.mask[0]
        ids = one.batch["input_ids"][0][real[: one.batch["input_ids"].shape[1]]].tolist()
        samples_found.append((ids, samples.labels[i][samples.labels[i] != -100].tolist()))
    return samples_found


EXPECTED = [(one["input_ids"], one["labels"][1:]) for one in DOCUMENTS]


@pytest.mark.parametrize("padding", ["zero", "anew", "on", "one"])
def test_documents_of_masked_rows_are_samples_at_every_number_of_rows(padding):
    assert samples_of(packed(ROWS, mask=True, padding=padding)) == EXPECTED
    single = [sample for row in ROWS for sample in samples_of(packed([row], mask=True, padding=padding))]
    assert single == EXPECTED


@pytest.mark.parametrize("entries", [("position_ids",), ("seq_idx",), ("position_ids", "seq_idx")], ids="+".join)
def test_documents_of_unmasked_rows_are_samples_at_every_number_of_rows(entries):
    rows = [ROWS[0], [[6, 7, 8, 9, 10]], [[11, 12], [15, 16, 17]]]  # of one length
    expected = [(ids, ids[1:]) for row in rows for ids in row]
    assert samples_of(packed(rows, mask=False, entries=entries)) == expected
    assert [sample for row in rows for sample in samples_of(packed([row], mask=False, entries=entries))] == expected


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("padding", ["zero", "anew", "on"])
def test_no_candidate_is_made_of_padding(rows, padding):
    more = [[1, 2, 3], [4, 5]], [[6, 7], [8, 9, 10, 11, 12]]
    batch = packed([more[0], more[1]], mask=False, padding=padding)
    batch = {name: value[:rows] for name, value in batch.items()}
    documents = [ids for row in more[:rows] for ids in row]
    samples = batches.view(batch)
    trained = samples.tokens[samples.tokens > 0].tolist()
    assert trained == [len(ids) - 1 for ids in documents]
    if rows == 1:
        assert len(samples) == len(documents)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "positions",
    [[*range(5), *range(60, 67)], [*range(5), *range(3, 10)], [*range(12)], [*range(40, 52)], [0, *range(11)][::-1]],
    ids=["jump", "back", "whole", "later", "falling"],
)
def test_a_row_whose_positions_do_not_begin_anew_is_one_sample(positions, rows, mask):
    ids = torch.arange(1, 13).repeat(rows, 1)
    batch = {"input_ids": ids, "labels": ids, "position_ids": torch.tensor([positions] * rows)}
    if mask:
        batch["attention_mask"] = torch.ones_like(ids)
    assert len(batches.view(batch)) == rows
    taken = batches.view(batch).take([rows - 1])
    assert torch.equal(taken["position_ids"][0, :12], torch.tensor(positions))


def test_positions_that_are_all_the_same_tell_of_no_documents():
    ids = torch.arange(1, 13).repeat(3, 1)
    assert len(batches.view({"input_ids": ids, "labels": ids, "position_ids": torch.zeros_like(ids)})) == 3


def test_masks_keep_documents_in_rows_and_others_in_one():
    with_mask: Any = batches.view(packed(ROWS, mask=True))
    assert isinstance(with_mask, PaddedView)
    assert torch.equal(with_mask.take([0, 1])["attention_mask"], torch.tensor([[1, 1, 1], [1, 1, 0]]))
    without: Any = batches.view(packed(ROWS[:1] * 2, mask=False))
    assert isinstance(without, DocumentView)
    taken = without.take([0, 3])
    assert taken["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert taken["labels"].tolist() == [[-100, 2, 3, -100, 5]]


def test_the_batch_as_it_came_is_at_hand():
    for batch in (packed(ROWS, mask=True), packed(ROWS[:1] * 2, mask=False), tiny.batch(3)):
        assert batches.view(batch).given is batch


def test_an_indexer_takes_rows():
    samples = batches.view(packed(ROWS, mask=True), indexer=lambda batch, i: {k: v[i] for k, v in batch.items()})
    assert len(samples) == 3


def test_entries_of_rows_come_with_each_of_their_documents():
    batch = {**packed(ROWS, mask=True), "weight": torch.tensor([1.0, 2.0, 3.0]), "names": ["a", "b", "c"], "scale": 2}
    taken = batches.view(batch).take(range(6))
    assert taken["weight"].tolist() == [1, 1, 2, 3, 3, 3]
    assert (taken["names"], taken["scale"]) == (["a", "a", "b", "c", "c", "c"], 2)
    with pytest.raises(ValueError, match=r"`batch\['pixel_values'\]` .* 3 samples"):
        batches.view({**packed(ROWS, mask=True), "pixel_values": torch.zeros(3, 3, 8, 8)})


@pytest.mark.parametrize("mask", [False, True])
def test_whole_and_packed_rows_join(mask):
    rows = [ROWS[0], ROWS[0]], [ROWS[1]], [ROWS[0]], [[[21, 22, 23, 24, 25]], ROWS[1]]
    parts = [packed(list(part), mask=mask) for part in rows]
    joined = batches.join(parts)
    expected = [(ids, ids[1:]) for part in rows for row in part for ids in row]
    assert samples_of(joined) == expected
    assert joined.keys() == parts[0].keys()


def test_rows_without_a_mask_stay_rows_when_the_last_batch_has_one():
    ids, positions = torch.arange(1, 13).repeat(4, 1), torch.arange(12).repeat(4, 1)
    batch = {"input_ids": ids, "labels": ids, "position_ids": positions}
    last = {name: value[:1] for name, value in batch.items()}
    for parts in ([batch, last], [last, batch]):
        assert batches.join(parts)["input_ids"].shape == (5, 12)
    assert batches.join([last, last])["input_ids"].shape == (1, 24)  # as padding-free collators make them


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mask", [False, True])
def test_a_model_makes_of_documents_what_it_makes_of_them_alone(mask, attention):
    model = tiny.llama().eval()
    model.set_attn_implementation(attention)
    samples = batches.view(packed(ROWS if mask else [ROWS[0], ROWS[1]], mask=mask))
    for indices in ([0], [2, 0], [1, 2]):
        documents = [DOCUMENTS[i] for i in indices]
        with torch.no_grad():
            got = model(**samples.take(indices), num_items_in_batch=1, use_cache=False).loss.item()
            alone = [forms.rows([one]) for one in documents]
            expected = sum(model(**one, num_items_in_batch=1, use_cache=False).loss.item() for one in alone)
        assert got == pytest.approx(expected, rel=1e-5)
