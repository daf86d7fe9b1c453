import importlib.util
import logging

import pytest
import torch

collect_ignore_glob = []
if not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def quiet():
    """The exporter logs which functions of torchvision it does without."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
