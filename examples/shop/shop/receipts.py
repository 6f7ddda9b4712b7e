"""The text of a receipt."""

from libraries.money import euros
from shop.models import Order


def write_receipt(order: Order) -> str:
    """Write the receipt of an order, for its customer."""
    return (
        f'Order {order.id} for {order.customer.name}: '
        f'{order.quantity} x {order.product.name}, {euros(order.cents)}. Thank you!'
    )
