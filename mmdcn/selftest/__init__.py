"""``python -m mmdcn.selftest``: whether the installed operators compute what they should."""
