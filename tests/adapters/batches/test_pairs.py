"""Batches of pairs: whole samples are viewed, taken, split and joined."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.batches.examples import CheckedCollator  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

PAIRS = batches.Layout(sequences=2)
LENGTHS = [(3, 5), (6, 2), (4, 4), (2, 7)]


def pair_batch(lengths=LENGTHS, *, left=False, first=10) -> dict[str, Any]:
    """The token ids of sample i are all first + i for its first sequence, 40 more for its second."""
    sequences = [(first + i + 40 * k, pair[k]) for k in range(len(lengths[0])) for i, pair in enumerate(lengths)]
    width = max(length for _, length in sequences)

    def padded(values: list[int]) -> list[int]:
        rest = [0] * (width - len(values))
        return rest + values if left else values + rest

    batch = {"input_ids": [[word] * length for word, length in sequences]}
    batch["attention_mask"] = [[1] * length for _, length in sequences]
    batch["completion_mask"] = [[0] + [1] * (length - 1) for _, length in sequences]
    return {
        **{name: torch.tensor([padded(values) for values in rows]) for name, rows in batch.items()},
        "margin": torch.arange(float(len(lengths))) + first,
        "name": [f"sample {first + i}" for i in range(len(lengths))],
        "scale": 2.0,
    }


@pytest.mark.parametrize("left", [False, True])
def test_the_rows_of_a_sample_are_those_of_its_sequences(left):
    samples = batches.view(pair_batch(left=left), layout=PAIRS)
    labels: Any = samples.labels
    assert len(samples) == 4
    assert samples.inputs.keys() == {"input_ids", "attention_mask", "completion_mask", "scale"}
    assert samples.tokens.tolist() == [a - 1 + b - 1 for a, b in LENGTHS]
    ids = samples.arrange(samples.batch["input_ids"][..., None])[..., 0]
    assert ids.tolist() == [[10 + i] * a + [50 + i] * b + [0] * (9 - a - b) for i, (a, b) in enumerate(LENGTHS)]
    assert samples.mask is not None
    assert samples.mask.sum(1).tolist() == [a + b for a, b in LENGTHS]
    for i, (a, b) in enumerate(LENGTHS):
        end = [-100] * (10 - a - b)
        assert labels[i].tolist() == [10 + i] * (a - 1) + [-100] + [50 + i] * (b - 1) + end
    assert samples.spread(torch.arange(4.0)).shape == samples.batch["input_ids"].shape
    assert samples.spread(torch.arange(4.0))[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("left", [False, True])
def test_samples_are_taken_split_and_joined_whole(left):
    batch = pair_batch(left=left)
    samples = batches.view(batch, layout=PAIRS)
    taken = samples.take([2, 0])
    assert taken["input_ids"].amax(1).tolist() == [12, 10, 52, 50]
    assert taken["input_ids"].shape == (4, 5)
    assert taken["margin"].tolist() == [12.0, 10.0]
    assert taken["name"] == ["sample 12", "sample 10"]
    assert list(taken) == list(batch)
    parts = samples.split(3)
    assert [len(part) for part in parts] == [3, 1]
    joined = batches.join([part.batch for part in parts], layout=PAIRS)
    assert joined.keys() == batch.keys()
    for name, value in batch.items():
        assert torch.equal(joined[name], value) if isinstance(value, torch.Tensor) else joined[name] == value
    with pytest.raises(IndexError, match="between 0 and 3"):
        samples.take([4])


def test_three_sequences_and_one_sample():
    triples = batches.Layout(sequences=3)
    samples = batches.view(pair_batch([(2, 3, 4), (5, 1, 2)]), layout=triples)
    assert len(samples) == 2
    assert samples.take([1])["input_ids"].amax(1).tolist() == [11, 51, 91]
    one = batches.view(pair_batch([(2, 3, 4)]), layout=triples)
    assert one.take([0])["margin"].tolist() == [10.0]
    assert batches.trained_tokens(one.batch, layout=triples) == 6
    with pytest.raises(ValueError, match="has 6 sequences, which is no multiple of the 4 of a sample"):
        batches.view(samples.batch, layout=batches.Layout(sequences=4))


def test_entries_without_a_known_sample_are_refused_or_taken_by_an_indexer():
    batch = {**pair_batch(), "pixel_values": torch.zeros(8, 3)}
    with pytest.raises(ValueError, match="pixel_values"):
        batches.view(batch, layout=PAIRS)

    def indexer(whole, at):
        return {name: whole[name][torch.cat([at, at + 4])] for name in ("input_ids", "attention_mask", "pixel_values")}

    taken = batches.view(batch, layout=PAIRS, indexer=indexer).take([3])
    assert taken["input_ids"].amax(1).tolist() == [13, 53]


@pytest.mark.parametrize("left", [False, True])
def test_scores_are_those_of_the_two_sequences_scored_as_one_matrix(left):
    model, batch = tiny.llama().eval(), pair_batch(left=left)
    select = BatchSelector(model, uds.UDS(count=2, dim=16), sequences=2)
    taken = select(batch)
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = []
    for i in range(4):
        rows = []
        for row in (i, i + 4):
            real = batch["attention_mask"][row].bool()
            rows.append(logits[row][real][:-1])  # of the tokens with a label: all but the prompt's one
        matrix = torch.cat(rows)[None]
        expected.append(uds.nuclear_norm(matrix)[0] / matrix.shape[1] ** 0.5)
    utility = select.last.parts["utility"] if select.last else None
    torch.testing.assert_close(utility, torch.stack(expected).to(utility), rtol=1e-4, atol=1e-5)
    assert taken["input_ids"].amax(1).tolist() == [first + i for first in (10, 50) for i in select.last_indices]
    assert select.tokens == sum(sum(LENGTHS[i]) - 2 for i in select.last_indices)


def test_no_score_depends_on_the_scoring_batch_size():
    batch = pair_batch()
    scores = []
    for size in (None, 1, 3):
        scorer = Scorer(tiny.llama(), score_batch_size=size)
        scores.append(scorer.examine(batches.view(batch, layout=PAIRS), uds.MaxLoss(keep=0.5))["loss"])
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])


def collate(examples: Any) -> Any:
    return {"input_ids": torch.ones(len(examples) * 2, 3, dtype=torch.int64)}


def test_collators_are_checked_by_the_number_of_examples():
    with pytest.raises(ValueError, match="3 examples, and it is not known which of them belong together"):
        CheckedCollator(collate, None)([1, 2, 3])
    with pytest.raises(ValueError, match="6 sequences for 3 examples, and 3 for each were expected"):
        CheckedCollator(collate, 3)([1, 2, 3])
    for sequences in (1, 2):
        assert len(CheckedCollator(collate, sequences)([1, 2, 3])["input_ids"]) == 6
    fewer = CheckedCollator(lambda examples: collate(examples[:1]), None)
    assert len(fewer([1, 2, 3])["input_ids"]) == 2  # a collator that leaves examples out
    assert CheckedCollator(list, None)([1, 2]) == [1, 2]
    assert CheckedCollator(CheckedCollator(collate, 2), 2).sequences == 2


def test_a_checked_collator_has_the_attributes_of_the_users_and_goes_to_workers():
    import pickle

    checked = CheckedCollator(tiny.collate, 2)
    assert checked.__name__ == "collate"
    assert pickle.loads(pickle.dumps(checked)).collate is tiny.collate


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"prompt_input_ids": 1, "chosen_input_ids": 1, "rejected_input_ids": 1}, r"chosen_input_ids.*CPO and ORPO"),
        ({"input_ids": torch.ones(2, 4, 5), "labels": torch.ones(2)}, "one label for each sample.*multiple choice"),
        ({"input_ids": torch.ones(2, 4), "labels": torch.ones(2)}, "one label for each sample"),
    ],
)
def test_other_batches_of_several_sequences_are_refused_by_name(batch, words):
    with pytest.raises(ValueError, match=words):
        batches.view(batch)
