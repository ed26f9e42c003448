"""From a sequence of 2D poses to 3D: lifters, pruning of frames, diffusion, and the motion they learn from.

In the order of reading: `skeleton` (the joints as a tree), `camera`, `data` (clips and windows), `motion`
(the embedded clips), `npz` and `pickles` (Human3.6M's and MPI-INF-3DHP's files), `models` (the lifters),
`hourglass` (pruning), `weights` and `files` (theirs and ours on disk), `complexity`, `metrics`, `recipes`,
`training`; `diffusion` and `starpose` (it trained and compared); `film` and `predict` (from a video to
space); `papers` (their figures beside ours).
"""
