"""The papers: published tables beside measured records, ablations, claims and printed sizes."""
