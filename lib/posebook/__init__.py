"""posebook: reproducible companion to papers on lightweight human pose estimation.

`import posebook` is fast: each module is imported when it is first used, for example posebook.models.
"""

from posebook.utils import lazy_attributes

_FORMER_MODULES = {
    "audit": "papers.claims",
    "checkpoints": "training.checkpoints",
    "deploy": "inference.export",
    "detector": "inference.detectors",
    "diagnosis": "evaluation.error_analysis",
    "faithfulness": "explain.faithfulness",
    "files": "utils",
    "forms": "inference.runtimes",
    "grid": "papers.ablations",
    "latency": "benchmark.timing",
    "metrics": "evaluation.metrics",
    "plots": "report.figures",
    "plots3d": "report.figures_3d",
    "predict": "inference.predict",
    "published": "papers.tables",
    "recipes": "training.recipes",
    "samples": "training.data",
    "several": "training.multi_dataset",
    "sizes": "papers.size_trace",
    "throughput": "benchmark.training_throughput",
    "uncertainty": "evaluation.bootstrap",
}
__getattr__ = lazy_attributes("posebook", {"export": "inference.export"}, _FORMER_MODULES)
