"""The colors of all plots, tables and pages."""

from matplotlib.colors import LinearSegmentedColormap, ListedColormap

from posebook.papers.statuses import STATUSES, VERDICTS

INK, MUTED, GRID = "#1f2933", "#66737f", "#e6eaee"
CELL_INK = "#262626"  # on colored cells, which look the same in both color schemes of a page; seaborn's text
TEAL, ORANGE, GOLD, BLUE = "#0b7a75", "#d1603d", "#e0a72e", "#2f6690"
BOX_COLORS = {"ground truth": ORANGE, "detector": BLUE, "not stated": MUTED}  # whose person boxes
STATUS_COLORS = dict(zip(STATUSES, (TEAL, BLUE, ORANGE, GOLD, MUTED, GRID), strict=True))
# Dark enough for white text: at least 4.5 to 1, as WCAG asks for. The same on light and dark pages.
VERDICT_COLORS = dict(zip(VERDICTS, ("#0a6f6a", "#2b5f88", "#b0402a", "#8a6100", "#5d6975"), strict=True))
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "white", TEAL])
PART_COLORS = ListedColormap(["white", GOLD, MUTED, TEAL, ORANGE, BLUE, "#8a4f7d"])  # for explain.PARTS
