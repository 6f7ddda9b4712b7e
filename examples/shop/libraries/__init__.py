"""What several parts of the shop share."""
