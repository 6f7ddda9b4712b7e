"""Drawings for pen plotters, as SVG."""
