"""From a sequence of 2D poses to 3D: lifters, pruning of frames, diffusion, and the motion they learn from.

In the order of reading: `skeleton` (the joints as a tree), `camera`, `data` (clips and windows), `motion`
(the embedded clips), `models` (the lifters), `hourglass` (pruning), `diffusion`, `metrics`, `recipes`,
`training`, `starpose` (diffusion, trained and compared).
"""
