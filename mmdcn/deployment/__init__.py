"""Whole models outside of Python: networks that ``torch.export`` takes, and files made of them."""
