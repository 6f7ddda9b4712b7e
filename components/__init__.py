"""Flask blueprints. They import `libraries` only, and name tasks by dotted path."""
