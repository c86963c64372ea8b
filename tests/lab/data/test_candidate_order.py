"""The order of the candidates: by the seed alone, without an end."""

from torch.utils.data import DataLoader

from uds_adapters.lab.data.candidate_order import CandidateOrder


def test_candidates_come_in_whole_batches_without_repetition():
    order = CandidateOrder(10, batch_size=4, seed=0).first(20)
    assert len(order) == 20
    for epoch in (order[:8], order[8:16]):
        assert len(set(epoch)) == 8


def test_the_seed_decides_and_how_far_one_looked_does_not():
    far, near = (CandidateOrder(10, batch_size=4, seed=0) for _ in range(2))
    assert far.first(20)[19] == [near.first(place + 1)[-1] for place in range(20)][19]
    assert far.first(20) == near.first(20) != CandidateOrder(10, batch_size=4, seed=1).first(20)


def test_the_order_of_a_seed_is_that_of_published_runs():
    assert CandidateOrder(10, batch_size=4, seed=0).first(12) == [6, 9, 0, 2, 4, 3, 5, 1, 9, 3, 2, 7]


def test_a_loader_in_that_order_whichever_epoch_comes_first():
    order = CandidateOrder(3, batch_size=2, seed=0)
    loader = DataLoader(["a", "b", "c"], batch_size=2, sampler=order)  # type: ignore[arg-type]
    assert (len(order), len(loader)) == (2, 1)
    again = CandidateOrder(3, batch_size=2, seed=0)
    again.set_epoch(1)
    assert list(again) == order.first(4)[2:]
    drawn = []
    for epoch in range(2):
        order.set_epoch(epoch)
        drawn += [letter for batch in loader for letter in batch]
    assert drawn == ["abc"[index] for index in order.first(4)]
