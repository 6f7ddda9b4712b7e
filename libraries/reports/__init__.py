"""Render reports as PDF."""
