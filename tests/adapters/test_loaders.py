"""Processes whose loaders draw different data, or the same part of it, stop at the first step and say what differs."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

import loops  # noqa: E402
import spawned  # noqa: E402
import tiny  # noqa: E402
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler  # noqa: E402

from uds_adapters.loaders import LoaderDescription, describe  # noqa: E402


def sampled(number=40, **options) -> Any:
    data: Any = tiny.examples(number)
    sampler = DistributedSampler(data, **{"num_replicas": 2, "rank": 0, **options})
    return DataLoader(data, batch_size=4, sampler=sampler, collate_fn=tiny.collate)


def prepared(number=40, *, rank=0, seed=0, shuffle=True, dataset=None, **options) -> Any:
    """A loader of accelerate."""
    from accelerate.data_loader import prepare_data_loader

    generator = torch.Generator().manual_seed(seed)
    data: Any = tiny.examples(number) if dataset is None else dataset
    loader = DataLoader(
        data,
        batch_size=4,
        shuffle=None if dataset is not None else shuffle,
        generator=generator,
        collate_fn=tiny.collate,
    )
    options = {"use_seedable_sampler": True, "data_seed": seed, "put_on_device": False, **options}
    return prepare_data_loader(loader, num_processes=2, process_index=rank, **options)


def test_samplers_of_one_run_have_one_description_and_another_part():
    for make in (sampled, prepared):
        first, second = describe(make(rank=0)), describe(make(rank=1))
        assert first.text == second.text
        assert (first.part, second.part) == (0, 1)
        assert first.text.startswith("data of 40 samples, ")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        *((sampled, {name: value}) for name, value in (("number", 44), ("seed", 1), ("shuffle", False))),
        *((sampled, {name: value}) for name, value in (("drop_last", True), ("num_replicas", 3))),
        *((prepared, {name: value}) for name, value in (("number", 44), ("seed", 1), ("even_batches", False))),
        (prepared, {"split_batches": True}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_what_differs_is_in_the_description(make, options):
    assert describe(make()).text != describe(make(**options)).text


def test_the_pass_is_compared():
    loader, other = sampled(), sampled()
    loader.sampler.set_epoch(1)
    assert describe(loader).text != describe(other).text
    other.sampler.set_epoch(1)
    assert describe(loader) == describe(other)
    unshuffled = sampled(shuffle=False, seed=3)
    assert describe(unshuffled).text == describe(sampled(shuffle=False)).text
    loader, other = prepared(), prepared()
    list(loader)
    assert describe(loader).text != describe(other).text
    list(other)
    assert describe(loader) == describe(other)


def test_a_generator_that_accelerate_synchronizes_is_not_compared():
    options = {"use_seedable_sampler": False, "rng_types": ["generator"]}
    assert describe(prepared(seed=0, **options)).text == describe(prepared(seed=1, **options)).text
    options["rng_types"] = []
    assert describe(prepared(seed=0, **options)).text != describe(prepared(seed=1, **options)).text


class Stream(IterableDataset):
    """Data without a length, shuffled by a generator of its own."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self):
        return iter(tiny.examples(8))


def test_streams_are_compared_by_their_seed():
    first, second, other = (prepared(dataset=Stream(seed), rank=rank) for seed, rank in ((0, 0), (0, 1), (1, 1)))
    assert describe(first).text == describe(second).text != describe(other).text
    assert (describe(first).part, describe(second).part) == (0, 1)
    assert "samples" not in describe(first).text


SAMPLES: Any = tiny.examples(8)


@pytest.mark.parametrize(
    "loader",
    [
        None,
        iter([]),
        [tiny.batch(4)],
        DataLoader(SAMPLES, batch_size=4, shuffle=True),
        DataLoader(SAMPLES, sampler=RandomSampler(range(8))),
        DataLoader(Stream(0), batch_size=2),
    ],
    ids=["none", "iterator", "list", "shuffled", "sampler", "stream"],
)
def test_loaders_that_may_have_data_of_their_own_are_not_compared(loader):
    assert describe(loader) == LoaderDescription()


def test_a_process_that_draws_for_all_is_not_compared():
    assert describe(prepared(dataset=Stream(0), dispatch_batches=True, put_on_device=True)) == LoaderDescription()


def plain_loaders(name, rank) -> Any:
    made = {
        "same": {},
        "length": {"number": 16 + 4 * rank},
        "seed": {"seed": rank},
        "part": {"rank": 0},
        "accelerate": {},
        "accelerate's length": {"number": 16 + 8 * rank},
        "accelerate's seed": {"seed": rank},
    }
    if name is None:
        return list(made)
    return (prepared if "accelerate" in name else sampled)(**{"number": 16, "rank": rank, **made[name]})


def trainer_options(name, rank) -> Any:
    made: dict[str, Any] = {
        "same": {},
        "length": {"number": 96 + 8 * rank},
        "seed": {"data_seed": rank},
        "seed of the model": {"seed": rank, "data_seed": 0},
    }
    return list(made) if name is None else {"max_steps": 2, "shuffled": True, **made[name]}


def test_plain_loops_stop_at_the_first_step(tmp_path):
    first, second = spawned.all_well(spawned.run(loops.loaders_that_differ, 2, tmp_path, of=plain_loaders))
    assert first == second
    assert first["same"] is None
    assert first["accelerate"] is None
    assert "rank 0 has data of 16 samples, " in first["length"]
    assert "rank 1 has data of 20 samples, " in first["length"]
    assert "rank 1 has data of 16 samples, DistributedSampler(num_replicas=2, drop_last=False, " in first["seed"]
    assert "seed=1, epoch=0); step 0" in first["seed"]
    assert "the ranks of their samplers are [0, 0]" in first["part"]
    assert "rank 1 has data of 24 samples, pass 0, " in first["accelerate's length"]
    assert "initial_seed=1" in first["accelerate's seed"]


def test_trainers_stop_at_the_first_step(tmp_path):
    first, second = spawned.all_well(spawned.run(loops.trainers_that_differ, 2, tmp_path, of=trainer_options))
    assert first == second
    assert first["same"] is None
    assert first["seed of the model"] is None
    assert "rank 1 has max_steps 2, data of 104 samples, " in first["length"]
    assert "initial_seed=1" in first["seed"]
