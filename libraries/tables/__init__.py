"""Tables, converted from one format to another."""
