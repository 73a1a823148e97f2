import json
from pathlib import Path

import pytest

from anyclaude.engine.files.fingerprint import fingerprint
from anyclaude.errors import ModelRefused

VERSIONS = ("0.32.4", "0.32.2")


def weights(path: Path, values: bytes = bytes(100_000)) -> None:
    half = len(values) // 2
    header = json.dumps(
        {
            "__metadata__": {"format": "mlx"},
            "first": {"dtype": "U8", "shape": [half], "data_offsets": [0, half]},
            "second": {"dtype": "U8", "shape": [half], "data_offsets": [half, 2 * half]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    weights(tmp_path / "model.safetensors")
    return tmp_path


def test_the_same_files_have_the_same_name_wherever_they_lie(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for path in model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert fingerprint(model, "fp", VERSIONS) == fingerprint(other, "fp", VERSIONS)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_each_file_that_the_state_depends_on_counts(model: Path, name: str) -> None:
    before = fingerprint(model, "fp", VERSIONS)
    (model / name).write_text("another")
    changed = fingerprint(model, "fp", VERSIONS)
    (model / name).unlink()
    assert len({before, changed, fingerprint(model, "fp", VERSIONS)}) == 3


def test_versions_and_the_type_of_the_state_count(model: Path) -> None:
    names = {
        fingerprint(model, "fp", VERSIONS),
        fingerprint(model, "q8", VERSIONS),
        fingerprint(model, "fp", ("0.32.4", "0.32.3")),
        fingerprint(model, "fp", ("0.32.40.32.2",)),
    }
    assert len(names) == 4


def test_another_training_of_the_same_model_is_another_model(model: Path) -> None:
    before = fingerprint(model, "fp", VERSIONS)
    for values in (b"\1" + bytes(99_999), bytes(99_999) + b"\1", bytes(25_000) + b"\1" + bytes(74_999)):
        weights(model / "model.safetensors", values)
        assert fingerprint(model, "fp", VERSIONS) != before


def test_a_second_file_of_weights_counts(model: Path) -> None:
    before = fingerprint(model, "fp", VERSIONS)
    weights(model / "model-2.safetensors")
    assert fingerprint(model, "fp", VERSIONS) != before


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x04" + bytes(7) + b"nope"])
def test_weights_that_make_no_sense_still_have_a_name(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert len(fingerprint(model, "fp", VERSIONS)) == 32


def test_a_file_that_cannot_be_read_is_told(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    with pytest.raises(ModelRefused, match="cannot be read"):
        fingerprint(model, "fp", VERSIONS)
