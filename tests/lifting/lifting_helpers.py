"""What the tests of this folder share."""

SMALL = {"width": 16, "depth": 3, "heads": 2}
