"""What `rq worker -c` reads: it logs before there is a worker, whose records know their job."""

import os

REDIS_URL = os.environ.get('REDIS_URL')
DICT_CONFIG = {
    'version': 1,
    'formatters': {
        'own': {
            '()': 'logging.Formatter',
            'fmt': 'settings %(name)s %(job_id)s %(message)s',
            'defaults': {'job_id': None},
        }
    },
    'handlers': {'own': {'class': 'logging.StreamHandler', 'formatter': 'own'}},
    'root': {'level': 'INFO', 'handlers': ['own']},
}
