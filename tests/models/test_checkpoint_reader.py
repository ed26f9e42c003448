"""Checkpoints with objects of training scripts, and with pickles that try to run code."""

import argparse
import os
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from posebook.models.checkpoint_reader import list_globals, read_checkpoint

FORMATS = {"zip": True, "before PyTorch 1.6": False}


class Call:
    """An object that calls a function with text when it is unpickled."""

    def __init__(self, function, text: str):
        self.function, self.text = function, text

    def __reduce__(self):
        return self.function, (self.text,)


@pytest.fixture
def history(monkeypatch):
    """An object of a class that does not exist when the file is read, in mmengine's place and form."""

    class HistoryBuffer:
        def __init__(self):
            self._log_history, self.max_length = np.arange(3.0), 10
            self._statistics_methods = OrderedDict(mean=np.mean)

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules["mmengine.logging"].history_buffer = module
    return HistoryBuffer()


def save(content: dict, path: Path, layout: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[layout])
    return path


@pytest.mark.parametrize("layout", FORMATS)
def test_objects_of_training_scripts_are_ignored(tmp_path, monkeypatch, history, layout):
    state = OrderedDict({"module.a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(2).half()})
    content = {
        "meta": {"epoch": np.int64(7), "dataset_meta": {"sigmas": np.ones(17), "flip": np.float32(0.5)}},
        "state_dict": state,
        "message_hub": {"log_scalars": OrderedDict({"train/loss": history})},
        "args": argparse.Namespace(lr=1e-3, folder=Path("runs")),
        "random_state": np.random.RandomState(0),
    }
    path = save(content, tmp_path / "best.pth", layout)
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.delitem(sys.modules, name)
    names = list_globals(path)
    assert {"mmengine.logging.history_buffer.HistoryBuffer", "argparse.Namespace"} <= names
    read = read_checkpoint(path)
    assert read.keys() == {"a.weight", "b.bias"} and "mmengine" not in sys.modules
    assert torch.equal(read["a.weight"], state["module.a.weight"]) and read["b.bias"].dtype == torch.float16


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("function", [print, eval, exec])
def test_a_file_that_only_calls_functions_is_refused(tmp_path, capsys, layout, function):
    text = "print('code ran')"
    path = save({"state_dict": Call(function, text)}, tmp_path / "evil.pth", layout)
    message = (
        f"evil.pth cannot be read as weights: .*no named tensors, but names builtins.{function.__name__}"
    )
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", FORMATS)
def test_no_code_beside_tensors_is_run(tmp_path, capsys, layout):
    content = {"state_dict": {"weight": torch.ones(2)}, "extra": Call(eval, "print('code ran')")}
    path = save(content, tmp_path / "mixed.pth", layout)
    assert read_checkpoint(path)["weight"].tolist() == [1, 1]
    assert "code ran" not in capsys.readouterr().out


def test_calls_of_the_operating_system_are_refused_beside_tensors(tmp_path):
    marker = tmp_path / "marker"
    content = {"state_dict": {"weight": torch.ones(2)}, "extra": Call(os.system, f"touch {marker}")}
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth cannot be read as weights: .* posix.system"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not marker.exists()


@pytest.mark.parametrize("layout", FORMATS)
def test_truncated_files(tmp_path, layout):
    path = save({"state_dict": {"weight": torch.randn(1000)}}, tmp_path / "cut.pth", layout)
    content = path.read_bytes()
    for end in (0, 1, 40, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cut.pth cannot be read as weights"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "content, end",
    [({"state_dict": {"epoch": 3}}, "$"), ({0: torch.zeros(2)}, ", but names collections.OrderedDict, ")],
)
def test_files_without_named_tensors(content, end, tmp_path):
    torch.save(content, tmp_path / "empty.pth")
    message = "empty.pth cannot be read as weights: it contains no named tensors"
    with pytest.raises(ValueError, match=message + end):
        read_checkpoint(tmp_path / "empty.pth")
