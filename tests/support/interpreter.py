"""The program of a newcomer's Python: one namespace for all blocks of a page.

Reads blocks as lines of JSON, and answers each with None or its error. An expression whose comment
begins as a value does is checked against that comment, in which `…` is anything.
"""

import ast
import json
import re
import sys
import traceback

names = {'__name__': '__main__'}
answers, sys.stdout = sys.stdout, sys.stderr  # what a block prints is no answer


def run(block: str) -> None:
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), '<page>', 'exec'), names)
            continue
        value = eval(compile(ast.Expression(statement.value), '<page>', 'eval'), names)
        comment = re.search(r'  # (["\'\d\[{(].*)$', lines[(statement.end_lineno or 1) - 1])
        if comment:
            shown = re.escape(comment[1]).replace('…', '.*')
            assert re.fullmatch(shown, repr(value)), f'{value!r} is not {comment[1]}'


for line in sys.stdin:
    try:
        run(json.loads(line))
        error = None
    except Exception:  # noqa: BLE001 - whatever it is, it is the answer
        error = traceback.format_exc()
    print(json.dumps(error), file=answers, flush=True)
