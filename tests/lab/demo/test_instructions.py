"""The demo's data is seeded, and as flawed as it says."""

import json

from uds_adapters.lab.demo import instructions


def test_seeded():
    made = [instructions.instructions(100, seed=seed, repeated=0.2, wrong=0.1) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert instructions.plain_text(5, seed=3) == instructions.plain_text(5, seed=3)


def test_the_shares_are_those_asked_for():
    items = instructions.instructions(400, seed=0, repeated=0.25, wrong=0.15)
    assert len(items) == 400
    assert sum(item.repeated for item in items) == 100
    assert sum(item.wrong for item in items) == 60
    assert not any(item.repeated and item.wrong for item in items)
    assert {item.kind for item in items} == {"arithmetic", "units", "strings"}


def test_near_duplicates_have_an_original_with_the_same_answer():
    items = instructions.instructions(400, seed=0, repeated=0.25, wrong=0.15)
    originals = [item for item in items if not item.repeated]
    assert len({item.prompt for item in originals}) == len(originals)
    for item in items:
        if item.repeated:
            assert any(o.prompt in item.prompt and o.completion == item.completion for o in originals)
            assert item.prompt not in {o.prompt for o in originals}


def test_wrong_answers_are_wrong():
    sound = {item.prompt: item.completion for item in instructions.instructions(400, seed=0)}
    flawed = {item.prompt: item for item in instructions.instructions(400, seed=0, wrong=0.5)}
    assert sound.keys() == flawed.keys()
    assert all((flawed[prompt].completion != answer) == flawed[prompt].wrong for prompt, answer in sound.items())


def test_held_out_prompts_are_not_trained_on():
    held = instructions.instructions(100, seed=1)
    train = instructions.instructions(400, seed=1, without=held)
    assert not {item.prompt for item in held} & {item.prompt for item in train}


def test_written_as_jsonl(tmp_path):
    items = instructions.instructions(3, seed=0)
    instructions.write(items, tmp_path / "d.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [instructions.Instruction(**line) for line in lines] == items
