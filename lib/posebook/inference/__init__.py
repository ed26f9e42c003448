"""Inference: prediction on images, detectors, export to ONNX, and runtimes."""
