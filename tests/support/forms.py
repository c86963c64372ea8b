"""The forms that batches come in, made of the same examples."""

import pytest
import tiny

torch = pytest.importorskip("torch")


def rows(examples, *, left=False, more=0):
    return tiny.collate(examples, left=left, more=more)


def documents(examples, *, start=0, multiple=1, entries=("position_ids", "cu_seq_lens", "seq_idx")):
    """One row, as TRL flattens it: padded to a `multiple`, each token of the padding counted as a document."""
    ids = [token for one in examples for token in one["input_ids"]]
    labels = [label for one in examples for label in [-100, *one["labels"][1:]]]
    lengths = [len(one["input_ids"]) for one in examples]
    positions = [start + place for length in lengths for place in range(length)]
    more = -len(ids) % multiple
    lengths += [1] * more
    batch = {
        "input_ids": torch.tensor([ids + [0] * more]),
        "labels": torch.tensor([labels + [-100] * more]),
    }
    if "position_ids" in entries:
        batch["position_ids"] = torch.tensor([positions + [0] * more])
    if "cu_seq_lens" in entries:
        ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        batch |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        batch |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    if "seq_idx" in entries:
        index = torch.arange(len(lengths), dtype=torch.int32)
        batch["seq_idx"] = index.repeat_interleave(torch.tensor(lengths))[None]
    return batch


def same(got, expected):
    """Whether two batches are equal, entry by entry, with types and dtypes."""
    assert type(got) is type(expected)
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert type(got[name]) is type(value), name
        if isinstance(value, torch.Tensor):
            assert got[name].dtype == value.dtype, name
            assert got[name].tolist() == value.tolist(), name
        else:
            assert got[name] == value, name
    return True


def rows_as_wide(examples, got, *, left=False):
    """The rows of the examples, as wide as a batch that was got: alignment is compared elsewhere."""
    longest = max(len(one["input_ids"]) for one in examples)
    return rows(examples, left=left, more=got["input_ids"].shape[1] - longest)


def documents_as_wide(examples, got, **options):
    """The examples as documents in a row as wide as a batch that was got."""
    return documents(examples, multiple=got["input_ids"].shape[1], **options)
