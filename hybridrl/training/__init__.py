"""Phases and the loops that run them."""
