"""Hyper-parameters as typed dataclasses, and the runs they describe."""
