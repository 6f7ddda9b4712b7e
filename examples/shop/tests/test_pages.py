"""The pages of the shop."""

from flask.testing import FlaskClient


def test_a_page_that_is_not_there_is_the_shops_own(client: FlaskClient) -> None:
    answer = client.get('/pencils')
    assert answer.status_code == 404
    assert 'We do not sell that' in answer.text


def test_orders_are_for_their_customer(client: FlaskClient) -> None:
    assert client.get('/orders/1').location == '/login'
    assert client.post('/login', data={'name': 'zoe', 'password': 'wrong'}).status_code == 401
    client.post('/login', data={'name': 'zoe', 'password': 'secret'})
    assert '3 x Pen, 37.50 €' in client.get('/orders/1').text
