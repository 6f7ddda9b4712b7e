"""Blueprints: the HTTP API, the dashboard, the metrics, the health; and error responses.

Exports what the blueprints of an application need of it; JobQueue mounts the rest.
"""

from qdjobs.web.access import has_api_token
from qdjobs.web.body import json_answer, read_json_body
from qdjobs.web.health import health
from qdjobs.web.problems import register_problems

__all__ = ['has_api_token', 'health', 'json_answer', 'read_json_body', 'register_problems']
