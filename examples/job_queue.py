"""An application of one file: named tasks, and the HTTP API for them.

Put this file anywhere, change into its folder, and give each of two terminals the same token:

    export JOBS_API_TOKEN=only-for-development
    python -m qdjobs.server --app job_queue       # a Valkey and a worker
    python job_queue.py                           # this application, on port 5004

(In this repository, name it `examples.job_queue`, and run `python -m examples.job_queue`.) Then

    curl -X POST 127.0.0.1:5004/order -d to=zoe@example.com
    curl "127.0.0.1:5004/api/jobs?status=completed" -H "Authorization: Bearer $JOBS_API_TOKEN"
"""

from typing import Any

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from qdjobs import JobQueue, get_job_status

app = Flask(__name__)
queue = JobQueue(app)


@queue.task('send_email')
def send_email(to: str, subject: str, body: str) -> dict[str, Any]:
    app.logger.warning('To %s: %s', to, subject)  # a real one is in workers/email_tasks.py
    return {'to': to, 'characters': len(body)}


@queue.task('count')
def count(**params: str) -> int:
    return len(params)


@app.post('/order')
def order() -> ResponseReturnValue:
    job = queue.enqueue(
        'send_email', to=request.form['to'], subject='Your order', body='It is on its way.'
    )
    return jsonify(job_id=job.id, status=job.status), 202


@app.get('/order/<job_id>')
def show_order(job_id: str) -> ResponseReturnValue:
    job = get_job_status(job_id)
    return jsonify(status=job['status'], result=job['result'], error=job['error'])


if __name__ == '__main__':
    app.run(port=5004)
