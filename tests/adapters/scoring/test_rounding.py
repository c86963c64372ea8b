"""Agreement of logits up to rounding."""

import pytest

torch = pytest.importorskip("torch")

from uds_adapters.scoring.rounding import agree, allowed, relative_errors  # noqa: E402


def test_errors_are_relative_to_each_sample_and_infinite_where_one_alone_is_not_finite():
    logits = torch.tensor([[[1.0, -2.0, 3.0]], [[100.0, 200.0, float("-inf")]]])
    assert relative_errors(logits, logits).tolist() == [0, 0]
    assert relative_errors(2 * logits, logits).tolist() == pytest.approx(
        relative_errors(20 * logits, 10 * logits).tolist()
    )
    for wrong in (float("nan"), float("inf")):
        other = logits.clone()
        other[0, 0, 0] = wrong
        for one, two in ((other, logits), (logits, other)):
            assert relative_errors(one, two)[0] == float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_agree_that_differ_by_rounding_alone(dtype):
    logits = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(0))
    rounded = logits.to(dtype)
    assert agree(rounded, logits, dtype)
    assert not agree(logits * (1 + 4 * allowed(dtype)), logits, dtype)
    assert not agree(rounded[:2], logits, dtype)
