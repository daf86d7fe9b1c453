import logging

import pytest
import torch


@pytest.fixture(autouse=True)
def quiet():
    """The exporter logs which functions of torchvision it does without."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
