"""`flask`, with its command `jobs` where this package is on the path but not installed."""

from flask.cli import FlaskGroup

from qdjobs.cli.plugin import jobs

if __name__ == '__main__':
    flask = FlaskGroup(name='flask')
    flask.add_command(jobs)
    flask.main(prog_name='flask')
