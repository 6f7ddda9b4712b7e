"""Parcels, which a courier collects."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from flask import current_app
from qdjobs import PermanentJobError

from shop.models import Order, db


def book_parcel(order: int) -> str:
    """Have the courier collect an order; return the parcel's number."""
    found = db.session.get(Order, order)
    if found is None:
        raise PermanentJobError(f'There is no order {order}.')
    if found.parcel is None:
        found.parcel = _book(order)
        db.session.commit()
    return found.parcel


def _book(order: int) -> str:
    request = Request(
        current_app.config['COURIER_URL'],
        json.dumps({'order': order}).encode(),
        # By the key the courier knows a second run too.
        {'Content-Type': 'application/json', 'Idempotency-Key': f'order-{order}'},
    )
    try:
        with urlopen(request, timeout=10) as answer:
            return str(json.load(answer)['parcel'])
    except HTTPError as error:
        if error.code < 500:
            raise PermanentJobError(f'The courier refuses order {order}: {error}') from error
        raise
