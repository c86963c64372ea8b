"""Processes that choose together: the same picks, the same gradient, the same memory; unequal shards and no hang."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import loops  # noqa: E402
import processes  # noqa: E402


def run(world, folder, job=loops.plain, **options) -> list[Any]:
    return processes.all_well(processes.run(job, world, folder, **options))


def far(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_global_is_one_process_with_the_whole_pool(tmp_path, accumulation):
    """Picks, gradient and memory of 1, 2 and 4 processes."""
    alone = run(1, tmp_path, ranks="global", accumulation=accumulation)[0]
    for size in (2, 4):
        for found in run(size, tmp_path, ranks="global", accumulation=accumulation):
            assert found["picks"] == alone["picks"]
            assert [sum(one) for one in found["counts"]] == [4 * accumulation // size] * 3
            for got, expected in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, expected) < 1e-6
    micros = loops.pools(3, accumulation, 8)[0]
    examples = [example for micro in micros for example in micro]
    expected = loops.gradient_of([examples[i] for i in alone["picks"][0]])
    assert far(alone["gradients"][0], expected) < 1e-6


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_trains_what_one_process_would(tmp_path, accumulation):
    options = {"gradient_accumulation_steps": accumulation}
    alone = run(1, tmp_path, loops.trainer, **options)[0]
    data = loops.tiny.examples(96)
    expected = loops.gradient_of([data[i] for i in alone["picks"][0]])
    assert far(alone["gradients"][0], expected) < 1e-6
    for size in (2, 4):
        for found in run(size, tmp_path, loops.trainer, **options):
            assert found["picks"] == alone["picks"]
            assert found["counts"] == [[4 // size] * accumulation] * 3
            for got, one in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, one) < 1e-6
            assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "accumulation"), [("padded", 1), ("padded", 2), ("padding_free", 2)])
def test_trl_trains_what_one_process_would(tmp_path, mode, accumulation):
    pytest.importorskip("trl", reason="needs TRL")
    options = {"mode": mode, "accumulation": accumulation}
    alone = run(1, tmp_path, loops.trl, **options)[0]
    for size in (2, 4):
        for found in run(size, tmp_path, loops.trl, **options):
            assert found["picks"] == alone["picks"]
            for got, one in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, one) < 1e-6
