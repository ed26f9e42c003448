"""The embedded dataset: seeded pictures of articulated people in clutter, in the COCO keypoint layout.

In the order of reading: `anatomy` (lengths, joint ranges, poses), `surfaces` (shapes, textures, colors),
`parts` and `bodies` (a dressed person), `scenes` (camera, people, things), `rooms` (the background),
`drawing` (pixels and light), `writing` (annotations and files).
"""

from posebook.datasets.synthetic.anatomy import FAMILIES, LIMITS, TABLE, sample_pose
from posebook.datasets.synthetic.bodies import KEYPOINTS, person, sample_look
from posebook.datasets.synthetic.drawing import rasterize
from posebook.datasets.synthetic.scenes import SIZE, Scene, look, sample_scene
from posebook.datasets.synthetic.surfaces import box
from posebook.datasets.synthetic.writing import MIN_AREA, VERSION, annotate, generate, masks, render

__all__ = [
    "FAMILIES",
    "KEYPOINTS",
    "LIMITS",
    "MIN_AREA",
    "SIZE",
    "TABLE",
    "VERSION",
    "Scene",
    "annotate",
    "box",
    "generate",
    "look",
    "masks",
    "person",
    "rasterize",
    "render",
    "sample_look",
    "sample_pose",
    "sample_scene",
]
