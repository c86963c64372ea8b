"""What runs have in common survives JSON."""

import json
from pathlib import Path

import pytest

from uds_adapters.lab.comparison.plan import Plan, slug
from uds_adapters.lab.data.records import Fields
from uds_adapters.lab.data.source import Source
from uds_adapters.lab.training.settings import Settings


@pytest.fixture
def source(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data.jsonl").write_text("{}", encoding="utf-8")
    return Source(model=tmp_path / "model", data=tmp_path / "data.jsonl", fields=Fields(prompt="question"), aside=0.2)


def test_there_and_back(source):
    plan = Plan(source=source, settings=Settings(metrics=("accuracy",), lora_rank=4, budget="tokens"), seed=3)
    assert Plan.of_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_fingerprints_are_of_what_files_hold(source):
    plan = Plan(source=source, settings=Settings(), seed=0)
    before = plan.as_json()["fingerprints"]
    assert before.keys() == {"data", "model"}
    source.data.write_text("{ }", encoding="utf-8")
    after = plan.as_json()["fingerprints"]
    assert after["data"] != before["data"]
    assert after["model"] == before["model"]


def test_slugs_are_safe_and_differ():
    assert slug("uds", 0) == "uds-seed0"
    assert slug("uds:alpha=auto,memory=4096", 12) == "uds_alpha=auto_memory=4096-seed12"
    odd = ["uds:a=b/c", "uds:a=b c", "uds:a=b\\c", "x" * 200, "x" * 201]
    slugs = [slug(policy, 0) for policy in odd]
    assert len(set(slugs)) == len(odd)
    assert all(len(name) < 120 and Path(name).name == name for name in slugs)
