"""Explanations: attribution maps for keypoints, and how faithful they are."""
