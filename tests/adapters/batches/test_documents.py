"""Documents: samples one after the other in one row."""

from typing import Any

import forms
import pytest

torch = pytest.importorskip("torch")

from uds_adapters import batches  # noqa: E402
from uds_adapters.batches.documents import DocumentView  # noqa: E402

EXAMPLES = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in ([1, 2, 3], [4], [5, 6], [7, 8, 9, 10])]
TOLD = [("position_ids",), ("cu_seq_lens",), ("seq_idx",), ("position_ids", "cu_seq_lens", "seq_idx")]


def view(batch, **options) -> Any:
    samples = batches.view(batch, **options)
    assert isinstance(samples, DocumentView)
    return samples


@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("entries", TOLD, ids="+".join)
def test_takes_documents_in_order_and_tells_their_borders_anew(entries, multiple):
    batch = forms.documents(EXAMPLES, multiple=multiple, entries=entries)
    before = forms.documents(EXAMPLES, multiple=multiple, entries=entries)
    assert len(view(batch)) == 4
    for chosen in ([3, 0], [1, 2], [2], [0, 1, 2, 3]):
        expected = forms.documents([EXAMPLES[i] for i in chosen], multiple=multiple, entries=entries)
        assert forms.same(view(batch).take(chosen), expected)
    assert forms.same(batch, before)


@pytest.mark.parametrize("multiple", [1, 16])
def test_what_the_views_tell(multiple):
    samples = view(forms.documents(EXAMPLES, multiple=multiple))
    none = -100
    assert samples.labels.tolist() == [[2, 3, none, none], [none] * 4, [6, none, none, none], [8, 9, 10, none]]
    assert samples.mask.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert samples.tokens.tolist() == [2, 0, 1, 3]
    assert samples.tokens.dtype == torch.int64
    assert set(samples.inputs) == {*samples.batch} - {"labels"}


def test_outputs_are_arranged_by_document_with_zeros_after_its_end():
    samples = view(forms.documents(EXAMPLES, multiple=16))
    x = torch.full((1, 16, 2), torch.nan)  # padding may hold anything
    x[0, :10] = torch.arange(20.0).reshape(10, 2)
    arranged = samples.arrange(x)
    assert arranged.shape == (4, 4, 2)
    assert arranged[0].tolist() == [[0, 1], [2, 3], [4, 5], [0, 0]]
    assert arranged[3].tolist() == x[0, 6:10].tolist()
    assert torch.equal(samples.arrange(torch.cat([torch.ones(1, 5, 2), x], 1)), arranged)  # virtual tokens before


def test_targets_stay_inside_their_document_whatever_its_first_label():
    batch = forms.documents(EXAMPLES)
    batch["labels"] = batch["input_ids"].clone()
    assert view(batch).labels.tolist() == view(forms.documents(EXAMPLES)).labels.tolist()
    assert batches.trained_tokens(batch) == 6


def test_labels_that_are_already_shifted_are_taken_as_they_are():
    batch = forms.documents(EXAMPLES, multiple=16)
    batch["shift_labels"] = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    expected = view(forms.documents(EXAMPLES)).labels.tolist()
    assert view(batch).labels.tolist() == expected
    del batch["labels"]
    assert view(batch).labels.tolist() == expected
    assert view(batch).take([2])["shift_labels"].tolist() == [[6, -100] + [-100] * 14]


def test_without_labels_all_tokens_of_documents_count():
    batch = forms.documents(EXAMPLES, multiple=16)
    del batch["labels"]
    samples = view(batch)
    assert samples.labels is None
    assert samples.tokens.tolist() == [3, 1, 2, 4]
    assert samples.split(2)[1].tokens.tolist() == [2, 4]


def test_documents_without_any_label_are_samples():
    batch = forms.documents(EXAMPLES)
    batch["labels"][:] = -100
    assert view(batch).tokens.tolist() == [0, 0, 0, 0]


def test_a_single_token_at_the_end_is_padding_unless_it_differs_or_carries_a_label():
    alone = [EXAMPLES[0], EXAMPLES[1]]
    assert len(view(forms.documents(alone))) == 1  # it cannot be told from padding, and carries no loss
    assert len(view(forms.documents(alone, multiple=8))) == 2  # not the token that pads
    assert len(view(forms.documents([EXAMPLES[1]] * 3))) == 1  # the first is a sample in any case
    batch = forms.documents(alone)
    batch["labels"][0, -1] = 4
    assert len(view(batch)) == 2
    assert [len(part) for part in view(forms.documents(EXAMPLES)).split(2)] == [2, 2]  # in pieces, it stays one


def test_positions_without_a_mask_make_a_line_also_of_one_document():
    samples = view(forms.documents(EXAMPLES[:1], multiple=8, entries=("position_ids",)))
    assert samples.tokens.tolist() == [2]
    assert samples.take([0])["input_ids"].tolist() == [[1, 2, 3, 0, 0, 0, 0, 0]]


def test_a_mask_tells_the_padding():
    batch = forms.documents(EXAMPLES, multiple=16, entries=("position_ids",))
    batch["attention_mask"] = (torch.arange(16) < 10)[None].long()
    samples = batches.view(batch)
    assert samples.tokens.tolist() == [2, 0, 1, 3]
    # a mask separates no documents, so that each has a row
    assert samples.take([3, 1])["attention_mask"].tolist() == [[1] * 4 + [0] * 12, [1] + [0] * 15]
    batch["position_ids"][0, 10:] = torch.arange(4, 10)  # padding that goes on counting
    assert batches.view(batch).take([3])["input_ids"].tolist() == [[7, 8, 9, 10] + [0] * 12]


def test_positions_may_begin_at_another_number():
    batch = forms.documents(EXAMPLES, start=2, entries=("position_ids",))
    assert view(batch).take([2, 0])["position_ids"].tolist() == [[2, 3, 2, 3, 4]]


def test_positions_of_several_kinds_and_embeddings():
    batch = forms.documents(EXAMPLES, multiple=16)
    positions = batch["position_ids"] = batch["position_ids"].expand(3, 1, 16)
    embeddings = batch["inputs_embeds"] = torch.randn(1, 16, 8)
    embeddings[:, 10:] = 0
    del batch["input_ids"]
    taken = view(batch).take([2])
    assert torch.equal(taken["inputs_embeds"], torch.nn.functional.pad(embeddings[:, 4:6], (0, 0, 0, 14)))
    assert torch.equal(taken["position_ids"], torch.nn.functional.pad(positions[:, :, 4:6], (0, 14)))


def test_entries_of_every_kind():
    batch = {
        **forms.documents(EXAMPLES),
        "token_type_ids": torch.arange(10)[None],
        "names": ["a", "b", "c", "d"],
        "ids": torch.tensor([1, 2, 3, 4]),
        "scale": torch.tensor(2.0),
        "return_dict": True,
        "max_length_q": torch.tensor(4),
    }
    taken = view(batch).take([2, 0])
    assert taken["token_type_ids"].tolist() == [[4, 5, 0, 1, 2]]
    assert taken["names"] == ["c", "a"]
    assert taken["ids"].tolist() == [3, 1]
    assert (taken["scale"], taken["return_dict"], taken["max_length_q"]) == (torch.tensor(2.0), True, torch.tensor(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pixel_values", torch.zeros(4, 3, 8, 8)),
        ("other", torch.zeros(1, 9)),
        ("names", ["a", "b", "c"]),
        ("nested", {}),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_with_the_remedy(name, value):
    batch = {**forms.documents(EXAMPLES), name: value}
    with pytest.raises(ValueError, match=rf"`batch\['{name}'\]` .* has 4 documents.*or hand over `indexer`"):
        batches.view(batch)


@pytest.mark.parametrize("indexer", [None, lambda batch, indices: batch], ids=["", "indexer"])
def test_masks_of_attention_are_refused(indexer):
    batch = {**forms.documents(EXAMPLES), "attention_mask": torch.ones(1, 1, 10, 10)}
    with pytest.raises(ValueError, match=r"= \(1, 10\), got \(1, 1, 10, 10\): .*let the collator return the 2-d mask"):
        batches.view(batch, indexer=indexer)


def test_positions_that_do_not_fit_are_refused():
    batch = {**forms.documents(EXAMPLES, entries=()), "position_ids": torch.arange(9)[None]}
    with pytest.raises(ValueError, match=r"`batch\['position_ids'\]` has shape \(1, 9\)"):
        batches.view(batch)


def test_a_user_s_own_rule_takes_documents_with_images():
    batch = {**forms.documents(EXAMPLES, multiple=16), "pixel_values": torch.arange(4.0)}

    def indexer(whole, indices):
        text = {name: value for name, value in whole.items() if name != "pixel_values"}
        return {**batches.view(text).take(indices), "pixel_values": whole["pixel_values"][indices]}

    samples = view(batch, indexer=indexer)
    assert samples.take([3, 0])["pixel_values"].tolist() == [3, 0]
    parts = samples.split(3)
    assert [len(part) for part in parts] == [3, 1]
    assert parts[1].labels.tolist() == [[8, 9, 10, -100]]


def flattened(examples, **options) -> Any:
    collator = pytest.importorskip("transformers").DataCollatorWithFlattening(**options)
    return collator(examples, return_tensors="pt")


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("index", [True, False])
def test_what_transformers_flattens(positions, kernels, index):
    options = {"return_position_ids": positions, "return_flash_attn_kwargs": kernels, "return_seq_idx": index}
    batch = flattened(EXAMPLES, **options)
    if not (positions or kernels or index):
        assert len(batches.view(batch)) == 1  # nothing tells of documents, neither us nor the model
        return
    assert len(view(batch)) == 4
    assert forms.same(view(batch).take([3, 0]), flattened([EXAMPLES[3], EXAMPLES[0]], **options))


def test_a_separator_is_no_target():
    assert batches.trained_tokens(flattened(EXAMPLES, separator_id=2)) == 6


def trl_batch(examples, **options) -> Any:
    pytest.importorskip("trl")
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    missing = sorted(options.keys() - DataCollatorForLanguageModeling.__dataclass_fields__.keys())
    if missing:
        pytest.skip(f"this TRL's collator knows no {', '.join(missing)}")
    return DataCollatorForLanguageModeling(pad_token_id=0, **options)(examples)


@pytest.mark.parametrize("multiple", [None, 16])
def test_what_trl_flattens(multiple):
    batch = trl_batch(EXAMPLES, padding_free=True, pad_to_multiple_of=multiple)
    assert batch.keys() >= {"input_ids", "labels", "position_ids"}
    entries = forms.documents(EXAMPLES, multiple=multiple or 1)
    assert forms.same(batch, {name: entries[name] for name in batch})  # an older TRL tells positions alone
    expected = trl_batch([EXAMPLES[3], EXAMPLES[0]], padding_free=True, pad_to_multiple_of=multiple)
    assert forms.same(view(batch).take([3, 0]), expected)


def test_what_trl_packs():
    packed = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [1, 2, 3, 4, 5], "seq_lengths": torch.tensor([3, 2])},
        {"input_ids": [6, 7, 8], "labels": [6, 7, 8], "seq_lengths": torch.tensor([3])},
    ]
    samples = view(trl_batch(packed, padding_free=True))
    assert samples.labels.tolist() == [[2, 3, -100], [5, -100, -100], [7, 8, -100]]
    assert forms.same(samples.take([2]), trl_batch(packed[1:], padding_free=True))


def test_what_trl_pads_with_positions():
    batch = trl_batch(EXAMPLES, return_position_ids=True, pad_to_multiple_of=16)
    assert batches.view(batch).take([1])["position_ids"].tolist() == [[0] * 16]
    one = trl_batch(EXAMPLES[:1], return_position_ids=True, pad_to_multiple_of=16)
    assert batches.view(one).take([0])["input_ids"].tolist() == [[1, 2, 3] + [0] * 13]
