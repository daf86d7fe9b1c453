"""Modules around the operators: layers to build networks from."""
