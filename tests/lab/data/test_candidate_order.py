"""The order of the candidates: by the seed alone, without an end."""

from uds_adapters.lab.data.candidate_order import CandidateOrder, Ordered


def test_candidates_come_in_whole_batches_without_repetition():
    order = CandidateOrder(10, batch_size=4, seed=0).first(20)
    assert len(order) == 20
    for epoch in (order[:8], order[8:16]):
        assert len(set(epoch)) == 8


def test_the_seed_decides_and_how_far_one_looked_does_not():
    far, near = (CandidateOrder(10, batch_size=4, seed=0) for _ in range(2))
    assert far[19] == [near[place] for place in range(20)][19]
    assert far.first(20) == near.first(20) != CandidateOrder(10, batch_size=4, seed=1).first(20)


def test_a_data_set_in_that_order():
    order = CandidateOrder(3, batch_size=2, seed=0)
    data = Ordered(["a", "b", "c"], order, length=4)
    assert len(data) == 4
    assert [data[place] for place in range(4)] == ["abc"[index] for index in order.first(4)]
