"""Stand-ins for packages that a GPU machine may lack."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch

from posebook.benchmark import stand_ins

# Only PyTorch and NumPy are visible. Steps are trained, and a checkpoint is saved and resumed.
BARE = """
import importlib.machinery, json, pathlib, sys
hidden = {"cv2", "scipy", "safetensors", "tqdm", "pandas", "matplotlib", "accelerate", "psutil"}
finder = importlib.machinery.PathFinder
find = finder.find_spec.__func__
finder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] in hidden else find(cls, name, *rest)
)
from posebook.benchmark import stand_ins
assert stand_ins.install() == ["cv2", "scipy", "safetensors", "tqdm"]
from dataclasses import asdict
from posebook.benchmark import gpu_check, gpu_sections
from posebook.training.runtime import RuntimeConfig
settings = asdict(gpu_check.TINY)
assert gpu_sections.train_speed("starnet-pose-t", settings)["people_per_second"] > 0
recipe = gpu_sections.make_recipe("starnet-pose-t", settings)
state = gpu_sections.make_state("starnet-pose-t", recipe, RuntimeConfig("cpu"))
folder, first = pathlib.Path(sys.argv[1]), gpu_sections.flat(state.model)
state.step = 7
state.save(folder)
state.step = 0
next(state.model.parameters()).data.zero_()
assert state.resume(folder) and state.step == 7 and gpu_sections.flat(state.model).equal(first)
assert not any(name in sys.modules and not stand_ins.is_stand_in(name) for name in hidden)
"""


def test_training_and_checkpoints_need_only_torch_and_numpy(tmp_path):
    done = subprocess.run([sys.executable, "-c", BARE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_installed_packages_are_not_replaced():
    assert stand_ins.install() == [] and not stand_ins.is_stand_in("scipy")


def test_normal_distribution_equals_scipy():
    special = stand_ins.STAND_INS["scipy"]()["scipy.special"]
    values = np.linspace(0.001, 0.999, 101)
    assert np.allclose(special.ndtri(values), scipy.special.ndtri(values), rtol=1e-12)
    assert np.isclose(special.ndtr(-1), scipy.special.ndtr(-1), rtol=1e-12)


def test_checkpoint_file_round_trip(tmp_path):
    package = stand_ins.STAND_INS["safetensors"]()["safetensors"]
    package.torch.save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors", {"run": "facts"})
    with package.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"run": "facts"}
    assert package.torch.load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]


def test_progress_counts_and_prints_messages(capsys):
    progress = stand_ins.STAND_INS["tqdm"]()["tqdm"].tqdm
    assert list(progress(range(3), desc="x")) == [0, 1, 2]
    with progress(total=4) as bar:
        bar.n = 1
        bar.update(2)
        bar.set_postfix(loss="1", refresh=False)
        bar.write("message")
    assert bar.n == 3 and capsys.readouterr().out == "message\n"


def test_any_other_use_names_the_package():
    cv2 = stand_ins.STAND_INS["cv2"]()["cv2"]
    cv2.setNumThreads(0)
    with pytest.raises(ModuleNotFoundError, match="cv2.warpAffine needs the package: install cv2"):
        cv2.warpAffine()
