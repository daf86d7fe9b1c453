"""Heads that extend MMDetection's and MMSegmentation's.

A config imports the module of the heads that it names: ``dino`` and ``r_fcn`` need MMDetection,
``mask2former`` needs MMSegmentation, too. So none of them is imported here.
"""
