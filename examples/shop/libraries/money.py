"""Amounts of money, which are whole cents."""


def euros(cents: int) -> str:
    """Write an amount for customers: 1250 is `12.50 €`."""
    return f'{cents // 100}.{cents % 100:02} €'
