"""The plan of a step: the order of its micro-batches, the divisor of means, and what is gathered."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from uds_adapters.step_plan import StepPlan, gathering_from, without_gradient  # noqa: E402


def plan(*rows):
    made = StepPlan(len(rows[0]))
    for row in rows:
        made.add([{"number": row}], [row], None)
    return made


def test_what_no_process_trains_comes_first():
    made = plan((True, True), (False, False), (False, True))
    assert [batch["number"] for batch in made.batches] == [(False, False), (True, True), (False, True)]
    assert made.trained_by(made.batches[2]) == (False, True)
    assert made.trained_by({"number": "of another loop"}) == (True, True)


@pytest.mark.parametrize(
    ("rows", "divisor"),
    [
        ([(True,)], None),
        ([(True,), (False,), (True,)], 2),
        ([(True, True), (False, False)], 1),
        ([(True, True), (True, False)], 1.5),
        ([(True, False)], 0.5),
        ([(False, False)], None),
    ],
)
def test_means_are_divided_by_the_micro_batches_with_samples_of_a_process(rows, divisor):
    made = plan(*rows)
    assert made.divisor == divisor
    assert type(made.divisor) is type(divisor)
    assert made.nothing_chosen == (rows == [(False, False)])


class Accelerator:
    """One of three processes, that gathers its own values with those of the others."""

    num_processes = 3

    def gather(self, data: Any) -> Any:
        several = isinstance(data, dict)
        gathered = {
            name: torch.cat([value.reshape(-1) + 10 * rank for rank in range(3)])
            for name, value in (data if several else {"": data}).items()
        }
        return gathered if several else gathered[""]


def test_what_a_process_without_samples_sends_is_left_out():
    accelerator = Accelerator()
    with gathering_from(accelerator, (True, False, True)):
        assert accelerator.gather(torch.tensor(1)).tolist() == [1, 21]
        assert accelerator.gather({"a": torch.tensor([1, 2])})["a"].tolist() == [1, 2, 21, 22]
    assert accelerator.gather(torch.tensor(1)).tolist() == [1, 11, 21]
    with gathering_from(accelerator, (True, False)):  # a group of some of the processes
        assert accelerator.gather(torch.tensor(1)).tolist() == [1, 11, 21]


def test_a_loss_without_gradient_is_restored_after_an_error():
    losses = []
    accelerator = SimpleNamespace(backward=lambda loss, **_: losses.append(loss))
    before = accelerator.backward

    def fail():
        with without_gradient(accelerator):
            accelerator.backward(torch.tensor(3.0), scale=2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert accelerator.backward is before
    assert losses == [0.0]
