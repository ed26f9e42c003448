"""Benchmarks: latency, memory, energy, roofline, training throughput, and the sweep over all of them."""

from posebook.utils import lazy_attributes

__getattr__ = lazy_attributes(
    "posebook.benchmark",
    {
        "run_sweep": "sweep",
        "fastest_rows": "sweep",
    },
    {
        "measure": "benchmark.sweep:run_sweep",
        "best": "benchmark.sweep:fastest_rows",
    },
)
