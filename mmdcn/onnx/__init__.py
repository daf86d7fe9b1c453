"""Deformable operators in ONNX models; it needs torch and onnxscript."""

from mmdcn.onnx.table import translation_table

__all__ = ["translation_table"]
