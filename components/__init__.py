"""Flask blueprints. They never import `workers`: they name tasks by dotted path."""
