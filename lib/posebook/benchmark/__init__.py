"""Benchmarks: latency, memory, energy, roofline, training throughput, and the sweep over all of them."""

from posebook.utils import lazy_attributes

__getattr__ = lazy_attributes(
    "posebook.benchmark",
    {
        "run_sweep": "sweep",
        "SweepConfig": "sweep",
        "fastest_rows": "rows",
    },
    {
        "best": "benchmark.rows:fastest_rows",
    },
)
