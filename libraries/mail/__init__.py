"""Mails, and the server that takes them."""
