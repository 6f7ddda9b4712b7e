"""The jobs themselves, for people and programs outside: the `flask jobs` commands."""
