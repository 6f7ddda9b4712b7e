"""Drawings by HTTP."""
