"""Files that changed are distinguished from those that did not."""

from uds_adapters.lab import model_paths, storage


def test_of_a_file(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    assert storage.of_file(a) == storage.of_file(b)
    b.write_bytes(b"other")
    assert storage.of_file(a) != storage.of_file(b)


def test_of_a_model(tmp_path):
    weights = tmp_path / "model.safetensors"
    data = bytearray(5 << 20)
    seen = set()
    for place in (None, 0, -1):  # trained on, weights change at either end
        if place is not None:
            data[place] += 1
        weights.write_bytes(data)
        seen.add(model_paths.fingerprint(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    seen.add(model_paths.fingerprint(tmp_path))
    assert len(seen) == 4
    assert model_paths.fingerprint(tmp_path) in seen
