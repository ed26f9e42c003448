"""The bundled synthetic dataset: seeded images of articulated people in clutter, in the COCO keypoint format.

Reading order: `anatomy` (lengths, joint ranges, poses), `surfaces` (shapes, textures, colors), `parts` and
`bodies` (a dressed person), `scenes` (camera, people, objects), `rooms` (the background), `drawing` (pixels
and light), `writing` (annotations and files).
"""

from posebook.datasets.synthetic.writing import VERSION, annotate, generate, render

__all__ = ["VERSION", "annotate", "generate", "render"]
