"""Evaluation: predictions, metrics, bootstrap intervals and error analysis."""

from posebook.utils import lazy_attributes

__getattr__ = lazy_attributes(
    "posebook.evaluation",
    {
        "evaluate": "evaluator",
        "evaluate_weights": "evaluator",
        "protocol": "evaluator",
        "predict": "predictions",
        "forward": "predictions",
        "decode": "predictions",
        "save_predictions": "predictions",
        "load_image_stats": "predictions",
    },
    {
        "record": "evaluation.evaluator:evaluate_weights",
        "save": "evaluation.predictions:save_predictions",
        "load_units": "evaluation.predictions:load_image_stats",
        "crops": "evaluation.predictions:crop_people",
    },
)
