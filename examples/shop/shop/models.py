"""What the shop remembers."""

import click
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from werkzeug.security import generate_password_hash


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Customer(Base):
    __tablename__ = 'customer'

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]  # hashed


class Product(Base):
    __tablename__ = 'product'

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    cents: Mapped[int]


class Order(Base):
    __tablename__ = 'order'

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey('customer.id'))
    product_id: Mapped[int] = mapped_column(ForeignKey('product.id'))
    quantity: Mapped[int]
    receipt: Mapped[str | None]
    parcel: Mapped[str | None]  # the courier's number for it

    customer: Mapped[Customer] = relationship()
    product: Mapped[Product] = relationship()

    @property
    def cents(self) -> int:
        return self.quantity * self.product.cents


@click.command()
@click.option('--customer', default='zoe', show_default=True)
@click.password_option()
@with_appcontext
def setup(customer: str, password: str) -> None:
    """Create the tables, three products and a customer."""
    db.create_all()
    db.session.add(Customer(name=customer, password=generate_password_hash(password)))
    for name, cents in (('Pen', 1250), ('Ink', 990), ('Paper', 475)):
        db.session.add(Product(name=name, cents=cents))
    db.session.commit()
    click.echo(f'The shop has 3 products, and {customer} can log in.')
