"""For any settings of the Trainer, gradient and log are those of a stock Trainer fed the chosen samples."""

import random

import hypothesis
import numpy as np
import pytest
import tiny
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import spawned  # noqa: E402
import trainer_losses  # noqa: E402
from trainer_losses import LOSSES, Settings  # noqa: E402

SETTINGS = st.builds(
    Settings,
    accumulation=st.integers(1, 4),
    batch_size=st.integers(1, 4),
    scope=st.sampled_from(["micro", "step"]),
    count=st.integers(1, 7),
    ranks=st.just("rank"),
    tokens_seen=st.sampled_from(["all", "non_padding"]),
)


def longest(candidates, count):
    """The longest of the candidates, in their order."""
    order = sorted(range(len(candidates)), key=lambda i: -len(candidates[i]["labels"]))[:count]
    return [candidates[i] for i in sorted(order)]


def micro_batches(candidates, given):
    """What a stock Trainer is fed: the chosen of a step in as many micro-batches as there are samples for."""
    parts = [candidates[i : i + given.batch_size] for i in range(0, len(candidates), given.batch_size)]
    if given.scope == "micro":
        return [tiny.collate(longest(part, given.count)) for part in parts]
    chosen = longest(candidates, given.count)
    split = np.array_split(np.arange(len(chosen)), min(given.accumulation, len(chosen)))
    return [tiny.collate([chosen[i] for i in part]) for part in split]


def check_equal(got, expected):
    torch.testing.assert_close(got["gradient"], expected["gradient"], rtol=1e-5, atol=1e-8)
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert got["tokens"] == expected["tokens"]
    assert got["flops"] == expected["flops"]


@pytest.mark.parametrize("kind", LOSSES)
def test_fewer_samples_than_micro_batches(tmp_path, kind):
    check_one_process(tmp_path, kind, Settings(accumulation=4, batch_size=1, count=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
@hypothesis.given(given=SETTINGS)
def test_any_settings(tmp_path_factory, kind, given):
    check_one_process(tmp_path_factory.mktemp("run"), kind, given)


def check_one_process(folder, kind, given):
    candidates = trainer_losses.rows(given.accumulation * given.batch_size)
    got = trainer_losses.chosen(folder, kind, given)
    check_equal(got, trainer_losses.stock(folder, kind, given, micro_batches(candidates, given)))


# two processes

# the Trainer of transformers 4 takes any loss of a causal model for one that is summed over the step and the processes
KINDS = [kind for kind in LOSSES if kind != "mean" or not transformers.__version__.startswith("4.")]


def check_two_processes(folder, cases):
    """Gradient and log are those of one stock process that is fed the micro-batches of both."""
    results = spawned.all_well(spawned.run(trainer_losses.several, 2, folder, cases=cases))
    for number, (kind, given) in enumerate(cases):
        both = [result[number] for result in results]
        batches = [batch for one in both for batch in one["kept"]]
        lengths = [int(row.sum()) for batch in batches for row in batch["attention_mask"]]
        assert sorted(lengths) == sorted(len(one["labels"]) for one in chosen_of_two(given))
        expected = trainer_losses.stock(folder, kind, given, batches, world=2)
        for got in both:
            check_equal(got, expected)


def chosen_of_two(given):
    """What two processes choose, of which each draws every other batch."""
    candidates = trainer_losses.rows(given.accumulation * given.batch_size * 2)
    drawn = [candidates[i : i + given.batch_size] for i in range(0, len(candidates), given.batch_size)]
    pools = [[one] for one in drawn] if given.ranks == "rank" else list(zip(drawn[::2], drawn[1::2], strict=True))
    if given.scope == "step":
        pools = [drawn[::2], drawn[1::2]] if given.ranks == "rank" else [drawn]
    return [one for pool in pools for one in longest([row for part in pool for row in part], given.count)]


def test_two_processes_with_one_sample(tmp_path):
    given = Settings(accumulation=2, batch_size=1, count=1, ranks="global")
    check_two_processes(tmp_path, [(kind, given) for kind in ("mean", "mixture of experts") if kind in KINDS])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_settings_of_two_processes(tmp_path, seed):
    rng = random.Random(seed)
    cases = [
        (
            kind,
            Settings(
                accumulation=rng.randint(1, 4),
                batch_size=rng.randint(1, 3),
                scope=rng.choice(["micro", "step"]),
                count=rng.randint(1, 7),
                ranks=rng.choice(["rank", "global", "stay"]),
                tokens_seen=rng.choice(["all", "non_padding"]),
            ),
        )
        for kind in KINDS
    ]
    check_two_processes(tmp_path, cases)
