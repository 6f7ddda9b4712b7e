"""Optional parts that connect jobs to other tools. A module here is imported only by its users."""
