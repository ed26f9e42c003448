"""Explanations: attribution maps for keypoints, and how faithful they are."""

from posebook.utils import lazy_attributes

__getattr__ = lazy_attributes(
    "posebook.explain",
    {
        "integrated_gradients": "attribution",
        "grad_cam": "attribution",
        "smooth_gradients": "attribution",
        "JointTarget": "attribution",
    },
)
