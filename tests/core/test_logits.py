"""Logits, dense and through a head: the three views of both agree."""

import numpy as np
import pytest

import uds_core as uds
from uds_core.logits import as_logits
from uds_core.rows import positions


def both(backend, *, bias=True, scale=0.5, dtype="float32"):
    rng = np.random.default_rng(0)
    hidden, weight, b = rng.normal(size=(2, 5, 4)), rng.normal(size=(30, 4)), rng.normal(size=30) * bias
    head = uds.Head(backend.array(weight, dtype), backend.array(b, dtype) if bias else None, scale)
    logits = scale * (hidden @ weight.T + b)
    return head(backend.array(hidden, dtype)), as_logits(backend.array(logits, dtype)), logits


@pytest.mark.parametrize("centre", ["none", "row"])
@pytest.mark.parametrize("bias", [False, True])
def test_blocks_put_together_are_the_logits(backend, bias, centre):
    through, dense, logits = both(backend, bias=bias)
    if centre == "row":
        logits = logits - logits.mean(axis=2, keepdims=True)
    mask = np.random.default_rng(1).random((2, 5)) < 0.6
    for source in (through, dense):
        view = source.centred(centre).scored(backend.array(mask))
        blocks = list(view.blocks(block_bytes=500))
        assert len(blocks) > 2
        assert [start for start, _ in blocks] == list(np.cumsum([0] + [b.shape[2] for _, b in blocks[:-1]]))
        whole = np.concatenate([backend.numpy(block) for _, block in blocks], axis=2)
        np.testing.assert_allclose(whole, np.where(mask[:, :, None], logits, 0), atol=1e-5)


@pytest.mark.parametrize("centre", ["none", "row"])
def test_compact_keeps_products_of_rows(backend, centre):
    through, dense, logits = both(backend)
    if centre == "row":
        logits = logits - logits.mean(axis=2, keepdims=True)
    for source in (through, dense):
        compact = backend.numpy(source.centred(centre).compact())
        np.testing.assert_allclose(
            compact @ compact.swapaxes(1, 2), logits @ logits.swapaxes(1, 2), rtol=1e-4, atol=1e-4
        )
    assert through.compact().shape == (2, 5, 5)  # width, and one for the bias


def test_centre_by_a_hidden_row_is_centre_by_its_logits(backend):
    through, dense, logits = both(backend)
    row = np.random.default_rng(2).normal(size=4)
    head = through.head
    its_logits = backend.numpy(head(backend.array(row[None, None], "float32")).centred("none").rows)
    weight = np.concatenate([backend.numpy(head.weight), backend.numpy(head.bias)[:, None]], axis=1) * head.scale
    its_logits = its_logits[0, 0] @ weight.T
    expected = np.linalg.svd(logits - its_logits, compute_uv=False).sum(axis=-1)
    for view in (through.centred(backend.array(row, "float32")), dense.centred(backend.array(its_logits, "float32"))):
        np.testing.assert_allclose(backend.numpy(uds.nuclear_norm(view, method="svd")), expected, rtol=1e-4)


def test_a_constant_added_to_a_row_is_not_seen_by_row_centring(backend):
    through, dense, logits = both(backend)
    shifted = as_logits(backend.array(logits + np.arange(5)[:, None], "float32"))
    expected = backend.numpy(uds.nuclear_norm(dense.centred("row"), method="svd"))
    for view in (shifted, through):
        np.testing.assert_allclose(
            backend.numpy(uds.nuclear_norm(view.centred("row"), method="svd")), expected, rtol=1e-4
        )


def test_samples_are_slices(backend):
    through, dense, _ = both(backend)
    mask = backend.array(np.arange(10).reshape(2, 5) % 3 > 0)
    for source in (through, dense):
        view = source.centred("row").scored(mask)
        whole, part = uds.nuclear_norm(view, method="svd"), uds.nuclear_norm(view.samples(1, 2), method="svd")
        np.testing.assert_allclose(backend.numpy(part), backend.numpy(whole)[1:], rtol=1e-5)


def test_what_a_head_derives_is_made_once_and_the_weight_is_not_copied():
    weight = np.random.default_rng(0).normal(size=(30, 4))
    head = uds.Head(weight)
    assert head.weight is weight
    assert head.factor is head.factor
    assert head.centred() is head.centred()
    sketch = uds.PairedSketch(time=8, vocab=30, dim=5)
    assert head.projection(sketch) is head.projection(uds.PairedSketch(time=8, vocab=30, dim=5))
    assert head.projection(sketch) is not head.projection(uds.PairedSketch(time=8, vocab=30, dim=5, seed=1))


def test_hidden_states_of_half_floats_meet_a_head_of_another_dtype():
    torch = pytest.importorskip("torch")
    hidden, weight = torch.randn(2, 5, 4), torch.randn(30, 4)
    low = uds.Head(weight)(hidden.bfloat16())
    torch.testing.assert_close(uds.nuclear_norm(low), uds.nuclear_norm(uds.Head(weight)(hidden.bfloat16().float())))
    assert uds.nuclear_norm(uds.Head(weight)(hidden.double())).dtype == torch.float64


def test_positions_count_from_the_first_scored_row(backend):
    mask = np.array([[0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(backend.numpy(positions(backend.array(mask))), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.Head(np.ones(3)), r"`weight` must have shape \(vocab, width\)"),
        (lambda: uds.Head(np.ones((3, 2)), np.ones(2)), r"`bias` must have shape \(3,\)"),
        (lambda: uds.Head(np.ones((3, 2)))(np.ones((1, 4, 3))), r"`hidden` must have shape \(batch, time, 2\)"),
        (lambda: as_logits(np.ones((1, 2, 3))).centred("column"), "`centre` must be 'none', 'row' or an array"),
        (lambda: as_logits(np.ones((1, 2, 3))).centred(np.ones(2)), r"`centre` must have shape \(3,\)"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_devices_are_never_mixed():
    strict = pytest.importorskip("array_api_strict")
    here, there = strict.Device("CPU_DEVICE"), strict.Device("device1")
    logits = strict.asarray(np.ones((1, 2, 3)), device=here)
    with pytest.raises(ValueError, match=r"`mask` is on .*device1.* but `logits` on .*CPU.*: move one"):
        uds.nuclear_norm(logits, mask=strict.asarray(np.ones((1, 2), bool), device=there))
    with pytest.raises(ValueError, match="`bias` is on"):
        uds.Head(strict.asarray(np.ones((3, 2)), device=here), strict.asarray(np.ones(3), device=there))
    with pytest.raises(ValueError, match="`hidden` is on"):
        uds.Head(strict.asarray(np.ones((3, 2)), device=here))(strict.asarray(np.ones((1, 1, 2)), device=there))
