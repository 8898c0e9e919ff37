"""The AWS CLI, many commands in one process, because it takes most of a second to start.

A line of JSON in: a list of commands, each a list of arguments. A line out: what each printed, as JSON, or null; or the
error of the first that failed.
"""

import contextlib
import io
import json
import sys

from awscli.clidriver import create_clidriver


def run(driver, arguments):
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        try:
            code = driver.main([*arguments, "--output", "json"])
        except SystemExit as ended:
            code = ended.code
    if code:
        raise ValueError(f"aws {' '.join(arguments)}: exit {code}: {complained.getvalue()}")
    return json.loads(printed.getvalue() or "null")


def main():
    driver = create_clidriver()
    for line in sys.stdin:
        try:
            answer = {"printed": [run(driver, command) for command in json.loads(line)]}
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
