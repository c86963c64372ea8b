"""Losses of a reference model: those of the model's own loss, found again by identity, also from a file."""

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("safetensors")

import uds_core as uds  # noqa: E402
from uds_adapters import checkpoints, reference_losses  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402


def loader(number=10, size=4):
    data = tiny.examples(number, seed=1)
    for start in range(0, number, size):
        part = data[start : start + size]
        yield {**tiny.collate(part), "id": torch.arange(start, start + len(part)) + 2**40}


def test_each_is_the_models_own_loss():
    model, data = tiny.llama(), tiny.examples(10, seed=1)
    losses = reference_losses.measure(model, loader(), id_field="id", score_batch_size=3)
    assert losses.ids.tolist() == [2**40 + i for i in range(10)]
    with torch.no_grad():
        expected = [float(model(**tiny.collate([one])).loss) for one in data]
    np.testing.assert_allclose(losses.values, expected, rtol=1e-5)
    assert model.training


def test_a_file_brings_them_back(tmp_path):
    losses = reference_losses.measure(tiny.llama(), loader(), id_field="id")
    reference_losses.save(tmp_path / "losses.safetensors", losses)
    back = reference_losses.load(tmp_path / "losses.safetensors")
    np.testing.assert_array_equal(back.ids, losses.ids)
    np.testing.assert_array_equal(back.values, losses.values)
    checkpoints.save(tmp_path / "other.safetensors", {}, {"policy": "uds"})
    with pytest.raises(ValueError, match="saved without holds, now holds="):
        reference_losses.load(tmp_path / "other.safetensors")


def test_a_model_that_is_its_own_reference_has_nothing_left_to_learn():
    model = tiny.llama()
    losses = reference_losses.measure(model, loader(), id_field="id")
    for policy in (uds.RHOLoss(count=2, reference=losses), uds.LossDrop(count=2, start=losses)):
        select = BatchSelector(model, policy, id_field="id")
        for batch in loader(size=5):
            select(batch)
            assert select.last is not None
            np.testing.assert_allclose(select.last.scores, 0, atol=1e-5)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"`batch` has no 'id' \(`id_field`\)"):
        reference_losses.measure(tiny.llama(), [tiny.batch(2)], id_field="id")
    with pytest.raises(TypeError, match=r"`id` must hold whole numbers, got \['a', 'b'\]"):
        reference_losses.measure(tiny.llama(), [{**tiny.batch(2), "id": ["a", "b"]}], id_field="id")
