"""Constants shared by the tests in this folder."""

SMALL = {"width": 16, "depth": 3, "heads": 2}
