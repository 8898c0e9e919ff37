"""The AWS CLI, many commands in one process, because it takes most of a second to start.

A line of JSON in: the region, and the commands, each a list of arguments. A line out: for each either what it `printed`, as JSON
(a text if it was none, null if there was nothing), or the `error` that it ended with.
"""

import contextlib
import io
import json
import sys

from awscli.clidriver import create_clidriver


def run(driver, region, arguments):
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        try:
            code = driver.main([*arguments, "--region", region, "--output", "json"])
        except SystemExit as ended:
            code = ended.code
    if code:
        return {"error": f"aws {' '.join(arguments)}: exit {code}: {complained.getvalue()}"}
    text = printed.getvalue()
    try:
        return {"printed": json.loads(text or "null")}
    except ValueError:
        return {"printed": text}


def main():
    driver = create_clidriver()
    for line in sys.stdin:
        asked = json.loads(line)
        answers = [run(driver, asked["region"], command) for command in asked["commands"]]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
