"""Jobs by HTTP and from the shell."""
