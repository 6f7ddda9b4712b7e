"""Products to buy, orders, and their receipts."""

from flask import Blueprint, abort, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from qdjobs import enqueue_background_job, get_job_status
from sqlalchemy import select

from shop.account import login_required
from shop.models import Order, Product, db

pages = Blueprint('orders', __name__)


@pages.get('/')
def show_products() -> str:
    return render_template('products.html', products=db.session.scalars(select(Product)).all())


@pages.post('/orders')
@login_required
def place_order() -> ResponseReturnValue:
    product = db.get_or_404(Product, request.form.get('product', 0, type=int))
    quantity = request.form.get('quantity', 1, type=int)
    if not 1 <= quantity <= 100:
        abort(400, 'The quantity must be from 1 to 100.')
    order = Order(customer_id=g.customer.id, product_id=product.id, quantity=quantity)
    db.session.add(order)
    db.session.commit()
    return redirect(url_for('.show_order', order_id=order.id))


@pages.get('/orders/<int:order_id>')
@login_required
def show_order(order_id: int) -> ResponseReturnValue:
    return render_template('order.html', order=own_order(order_id))


@pages.post('/orders/<int:order_id>/receipt')
@login_required
def send_receipt(order_id: int) -> ResponseReturnValue:
    order = own_order(order_id)
    job = enqueue_background_job(
        'shop.tasks.receipts.send_receipt',
        order=order.id,
        job_id=f'receipt-{order.id}',
        job_queue='receipts',
    )
    return {'job': job.id}, 202, {'Location': url_for('.show_receipt', order_id=order.id)}


@pages.get('/orders/<int:order_id>/receipt')
@login_required
def show_receipt(order_id: int) -> ResponseReturnValue:
    status = get_job_status(f'receipt-{own_order(order_id).id}')
    return {'status': status['status'], 'receipt': status['result']}


def own_order(order_id: int) -> Order:
    """The order, if it is one of the customer's; else the answer is 404."""
    order = db.session.get(Order, order_id)
    if order is None or order.customer_id != g.customer.id:
        abort(404)
    return order
