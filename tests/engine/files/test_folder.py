"""A hostile or broken folder for every rule, and folders that are as they should be."""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anyclaude.engine.files.folder import check_folder, main
from anyclaude.errors import ModelRefused
from tests.support.model_folder import CONFIG, make_model, safetensors

PICKLE = b"\x80\x04\x95cos\nsystem\n(S'touch /tmp/run'\ntR."


def refused(folder: Path) -> str:
    before = everything_in(folder.parent)
    with pytest.raises(ModelRefused) as caught:
        check_folder(folder)
    assert everything_in(folder.parent) == before
    assert str(folder) in caught.value.message
    return caught.value.message


def everything_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def weights(tensors: dict[str, Any], n_data: int) -> bytes:
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(n_data)


def tensor(start: int, stop: int, *, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    shape = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_a_folder_that_is_as_it_should_be_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", n_bytes=64)
    before = everything_in(tmp_path)
    found = check_folder(folder)
    assert (found.model_type, found.weights_bytes, found.config) == ("qwen3", 64, CONFIG)
    assert found.weights == (folder / "model.safetensors",)
    assert everything_in(tmp_path) == before


def test_the_weights_of_several_files_are_added_up(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", weights=None)
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in names:
        (folder / name).write_bytes(safetensors(400))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    assert check_folder(folder).weights_bytes == 800
    (folder / names[1]).unlink()
    assert "are missing (model-00002-of-00002.safetensors)" in refused(folder)


def test_a_snapshot_of_the_hub_may_be_links_into_its_own_blobs_and_nowhere_else(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    files = make_model(tmp_path / "made")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in files.iterdir():
        path.rename(repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert check_folder(snapshot).model_type == "qwen3"
    shared = tmp_path / "blobs" / "ab" / "abcdef"  # as newer caches share large files
    shared.parent.mkdir(parents=True)
    (repository / "blobs" / "model.safetensors").rename(shared)
    (repository / "blobs" / "model.safetensors").symlink_to("../../blobs/ab/abcdef")
    assert check_folder(snapshot).model_type == "qwen3"
    (snapshot / "notes.txt").symlink_to("/etc/passwd")
    assert "notes.txt is a link that leads out of the folder" in refused(snapshot)
    (snapshot / "notes.txt").unlink()
    (repository / "blobs" / "tokenizer.json").unlink()
    assert "tokenizer.json is a link to a file that is not there" in refused(snapshot)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder, elsewhere = make_model(tmp_path / "model"), tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(elsewhere)
    assert f"{name} is a link that leads out of the folder" in refused(folder)


def test_a_link_to_itself_and_a_file_that_is_none_are_refused_without_waiting(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "loop.json").symlink_to("loop.json")
    assert "loop.json is a link" in refused(folder)
    (folder / "loop.json").unlink()
    os.mkfifo(folder / "model-2.safetensors")
    assert "model-2.safetensors is no regular file" in refused(folder)
    (folder / "model-2.safetensors").unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(folder / "a.json"))
        assert "a.json is no regular file" in refused(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "x", "model_file": "run.py"}, "config.json has model_file"),
        ({"model_type": "x", "auto_map": {"AutoModel": "run.Model"}}, "config.json has auto_map"),
        ({}, "does not say which kind of model"),
        ({"model_type": 5}, "does not say which kind of model"),
        ({"model_type": ""}, "does not say which kind of model"),
        ([], "config.json is no JSON object"),
        ("{broken", "config.json is no JSON"),
        ('{"model_type": "x", "a": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"model_type": "x", "a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"model_type": "x"}' + " " * (17 << 20), "config.json is larger than 16 MB"),
    ],
)
def test_a_config_that_is_broken_or_names_code_is_refused(tmp_path: Path, config: Any, words: str) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "run.py").write_text("open('/tmp/mark', 'w')")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    assert words in refused(folder)


def test_bytes_that_are_no_text_are_no_config(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    assert "config.json is no JSON" in refused(folder)


def test_infinity_in_a_config_is_what_public_models_write(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}')
    assert check_folder(folder).model_type == "mamba2"


def test_a_tokenizer_that_names_code_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["run.T", None]}}))
    assert "tokenizer_config.json has auto_map" in refused(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "it has no tokenizer.json"),
        ("model.safetensors", "it has no weights"),
    ],
)
def test_a_folder_without_what_a_model_needs_is_refused(tmp_path: Path, name: str, words: str) -> None:
    folder = make_model(tmp_path / "model")
    (folder / name).unlink()
    assert words in refused(folder)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "none")
    file = tmp_path / "file"
    file.write_text("")
    assert "there is no such folder" in refused(file)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickled_weights_are_named_and_never_read(tmp_path: Path, name: str) -> None:
    folder = make_model(tmp_path / "model", weights=None)
    (folder / name).write_bytes(PICKLE)
    assert f"its weights are pickles ({name})" in refused(folder)
    (folder / "model.safetensors").write_bytes(safetensors(8))
    assert check_folder(folder).weights == (folder / "model.safetensors",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too few for weights"),
        (b"\x00" * 7, "too few for weights"),
        (struct.pack("<Q", 1 << 62) + b"{}", "a header of 4,611,686,018,427,387,904 bytes is announced"),
        (struct.pack("<Q", 3) + b"{}", "a header of 3 bytes is announced"),
        (struct.pack("<Q", 0), "a header of 0 bytes is announced"),
        (struct.pack("<Q", 2) + b"[]", "its header is no JSON object"),
        (struct.pack("<Q", 2) + b"{}", "it holds no tensor"),
        (struct.pack("<Q", 4) + b"{bad", "its header is no JSON"),
        (struct.pack("<Q", 4) + b"\xff\xff\xff\xff", "its header is no JSON"),
        (struct.pack("<Q", 90_000) + b"[" * 90_000, "its header is no JSON"),
        (weights({"a": tensor(0, 8)}, 4), "announces 8 bytes of data, the file has 4; it was cut off"),
        (weights({"a": tensor(0, 8)}, 12), "there are bytes behind the last tensor"),
        (weights({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "'b' overlaps another tensor"),
        (weights({"a": tensor(0, 8), "b": tensor(0, 8)}, 8), "'b' overlaps another tensor"),
        (weights({"a": tensor(0, 8), "b": tensor(12, 16)}, 16), "'b' leaves bytes before it"),
        (weights({"a": tensor(4, 8)}, 8), "'a' leaves bytes before it"),
        (weights({"a": tensor(8, 0, shape=[2])}, 8), "which is not its shape's size"),
        (weights({"a": tensor(0, 8, shape=[3])}, 8), "which is not its shape's size"),
        (weights({"a": tensor(0, 8, shape=[2**62, 2**62, 4])}, 8), "which is not its shape's size"),
        (weights({"a": tensor(0, 8, shape=[1] * 17)}, 8), "has no data type, shape and place"),
        (weights({"a": tensor(0, 8, shape=[-1, -2])}, 8), "has no data type, shape and place"),
        (weights({"a": tensor(0, 8, shape=[True, 2])}, 8), "has no data type, shape and place"),
        (weights({"a": tensor(0, 8, shape=["2"])}, 8), "has no data type, shape and place"),
        (weights({"a": tensor(-4, 4)}, 8), "has no data type, shape and place"),
        (weights({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, 8), "has no data type"),
        (weights({"a": {"dtype": "F32", "shape": [2]}}, 8), "has no data type, shape and place"),
        (weights({"a": [0, 8]}, 8), "has no data type, shape and place"),
        (weights({"a": tensor(0, 8, dtype="PICKLE")}, 8), "has the unknown data type 'PICKLE'"),
    ],
)
def test_weights_whose_header_lies_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    folder = make_model(tmp_path / "model", weights=None)
    (folder / "model.safetensors").write_bytes(data)
    message = refused(folder)
    assert "model.safetensors: " in message
    assert words in message


def test_a_tensor_without_bytes_is_no_overlap(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", weights=None)
    tensors = {
        "__metadata__": {"format": "mlx"},
        "b": tensor(8, 16),
        "none": tensor(8, 8, shape=[0]),
        "a": tensor(0, 8),
    }
    (folder / "model.safetensors").write_bytes(weights(tensors, 16))
    assert check_folder(folder).weights_bytes == 16


def test_a_folder_of_ten_thousand_files_is_no_models(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    for number in range(10_001):
        (folder / str(number)).touch()
    with pytest.raises(ModelRefused, match="more than 10,000 files"):
        check_folder(folder)


def test_other_rooms_ask_it_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", n_bytes=64)
    command = [sys.executable, "-P", "-m", "anyclaude.engine.files.folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"model_type": "qwen3", "weights_bytes": 64}
    assert main([str(tmp_path)]) == 1
    assert "no config.json" in json.loads(capsys.readouterr().out)["refused"]


def test_what_is_there_before_the_weights_can_be_checked_before_they_are_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_model(tmp_path / "model", weights=None)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert main([str(folder), "--without-weights"]) == 0
    assert check_folder(folder, has_weights=False).weights == ()
    (folder / "config.json").write_text('{"model_type": "x", "model_file": "run.py"}')
    assert main([str(folder), "--without-weights"]) == 1
    assert "model_file" in capsys.readouterr().out


def test_the_check_loads_no_library_that_loads_models() -> None:
    program = "import sys, anyclaude.engine.files.folder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"mlx", "mlx_lm", "transformers", "numpy", "huggingface_hub"} & set(done.stdout.split())
