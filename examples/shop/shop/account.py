"""Logging in and out."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import Blueprint, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from werkzeug.security import check_password_hash

from shop.models import Customer, db

P = ParamSpec('P')

pages = Blueprint('account', __name__)


def login_required(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """Show the login to visitors; for a customer, who is in `g.customer`, show the view."""

    @wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        g.customer = db.session.get(Customer, session.get('customer_id', 0))
        if g.customer is None:
            return redirect(url_for('account.show_login'))
        return view(*args, **kwargs)

    return wrapped


@pages.get('/login')
def show_login() -> str:
    return render_template('login.html')


@pages.post('/login')
def log_in() -> ResponseReturnValue:
    name, password = request.form.get('name', ''), request.form.get('password', '')
    customer = db.session.scalar(select(Customer).filter_by(name=name))
    if customer is None or not check_password_hash(customer.password, password):
        return render_template('login.html', problem='The name or the password is wrong.'), 401
    session.clear()
    session['customer_id'] = customer.id
    return redirect(url_for('orders.show_products'))


@pages.post('/logout')
def log_out() -> ResponseReturnValue:
    session.clear()
    return redirect(url_for('orders.show_products'))
