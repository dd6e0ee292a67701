"""Explanations of real, trained networks, measured."""
