"""Display names of models and papers."""

import pytest

from posebook import models
from posebook.lifting.models import LIFTERS
from posebook.papers import cells, names


def test_every_model_and_paper_has_a_display_name():
    for name in [*models.names(), *LIFTERS]:
        shown = names.display_name(name)
        assert shown[0].isupper()
        assert shown.lower().replace("++", "-plus").replace("-", "") == name.replace("-", "")
    assert set(names.PAPERS) == set(cells.load_cells()["paper"])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("starnet-pose-t", "StarNet-Pose-T"),
        ("amfacpose-r18", "AMFACPose-R18"),
        ("lapx", "LAPX"),
        ("simcc-resnet50", "SimCC-ResNet-50"),
        ("simcc-hrnet-w32", "SimCC-HRNet-W32"),
        ("vitpose-plus-s", "ViTPose++-S"),
    ],
)
def test_display_names_follow_the_authors(name, shown):
    assert names.display_name(name) == shown


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("full", "MixSTE"),
        ("h2ot-uniform", "H₂OT, uniform"),
        ("ktpformer, full", "KTPFormer"),
        ("ktpformer, no-bones", "KTPFormer, no bones"),
        ("starpose + history + guided", "StarPose + history + guidance"),
    ],
)
def test_methods_of_lifters(method, shown):
    assert names.method_name(method) == shown


def test_other_projects_and_unknown_names():
    assert names.display_name_or_same("pose_landmark_full") == "BlazePose full"
    assert names.display_name_or_same("nothing-1") == "nothing-1"


def test_unknown_family_is_an_error():
    with pytest.raises(ValueError, match="no display name for 'nothing-1'"):
        names.display_name("nothing-1")


def test_size_is_height_by_width():
    assert names.display_size((256, 192)) == "256×192"
