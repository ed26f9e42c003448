"""Lifting: from a sequence of 2D poses to 3D, with frame pruning, diffusion and synthetic training motion.

In reading order: `skeleton` (the joints as a tree), `camera`, `clips` (clips and windows), `synthetic_motion`
(the bundled synthetic clips), `h36m_3dhp` and `safe_pickle` (files of Human3.6M and MPI-INF-3DHP), `models`
(the lifters), `pruning`, `key_mapping` and `weights_io` (the authors' weights and ours), `complexity`,
`metrics`, `recipes`, `training`; `diffusion` and `starpose` (StarPose, and its comparison with a plain
lifter); `synthetic_video` and `predict_3d` (from a video to 3D). `papers.lifting_tables` has the published
numbers.
"""
