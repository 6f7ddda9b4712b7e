"""The request of the original artboard, whose drawing has the name of its id."""

from pathlib import Path

from flask.testing import FlaskClient

from libraries.files import output_dir
from tests.support.processes import eventually
from tests.support.shared_worker import SharedWorker


def test_a_drawing_is_named_by_its_id(client: FlaskClient, shared_worker: SharedWorker) -> None:
    def create(**changes: object) -> str:
        body = {
            'id': 7,
            'width': 200,
            'height': 100,
            'pattern': 'spiral',
            'complexity': 'complex',
            'urgent': False,
        }
        answer = client.post('/api/artboard/create', json=body | changes)
        assert (answer.status_code, answer.get_json()['status']) == (202, 'generating')
        status = f'/api/artboard/jobs/{answer.get_json()["job_id"]}'
        eventually(lambda: client.get(status).get_json()['status'] == 'finished')
        return status

    def show(status: str) -> str:
        with client.get(f'{status}/svg') as answer:
            return str(answer.data.decode())

    first = create()
    assert 'height="100mm"' in drawing('artboard_7.svg').read_text()
    assert 'height="100mm"' in show(first)
    second = create(id='7', height=50)  # the same id: its file is replaced, as it was there
    assert 'height="50mm"' in drawing('artboard_7.svg').read_text()
    assert 'height="50mm"' in show(first) == show(second)
    create(id='poster-a')
    assert drawing('artboard_poster-a.svg').is_file()


def drawing(name: str) -> Path:
    return output_dir() / name
