"""Inference: prediction on images, person detectors, ONNX export, and runtimes."""
