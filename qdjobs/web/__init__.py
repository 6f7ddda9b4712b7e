"""Jobs by HTTP: the API, the dashboard, the metrics, and errors as answers.

What an application's own blueprints use of it is here; JobQueue mounts the rest.
"""

from qdjobs.web.body import json_answer, read_json_body
from qdjobs.web.problems import register_problems

__all__ = ['json_answer', 'read_json_body', 'register_problems']
