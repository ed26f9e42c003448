"""What the tests share: one thread each, and the way to real data where there is any."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real samples ($POSEBOOK_TEST_DATA); skips where there is none."""
    if "POSEBOOK_TEST_DATA" not in os.environ:
        pytest.skip("POSEBOOK_TEST_DATA does not name a folder of real samples")
    folder = Path(os.environ["POSEBOOK_TEST_DATA"])
    if not folder.is_dir():
        pytest.skip(f"POSEBOOK_TEST_DATA names {folder}, which is not there")
    return folder
