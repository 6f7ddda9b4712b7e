"""The tasks: plain typed functions that raise. They import `libraries` only."""
