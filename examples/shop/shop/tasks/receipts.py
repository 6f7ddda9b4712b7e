"""Receipts."""

from qdjobs import PermanentJobError

from shop.models import Order, db
from shop.receipts import write_receipt


def send_receipt(order: int) -> str:
    """Write the receipt of an order into its record, and return it."""
    found = db.session.get(Order, order)
    if found is None:
        raise PermanentJobError(f'There is no order {order}.')
    if found.receipt is None:  # else this is the second run
        found.receipt = write_receipt(found)
        db.session.commit()
    return found.receipt
