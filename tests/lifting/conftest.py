"""Fixtures for this folder."""

import pytest

from posebook.lifting import clips, synthetic_motion


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    return synthetic_motion.make_clips(1, 60)[0]
