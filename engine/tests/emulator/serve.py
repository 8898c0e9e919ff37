"""Starts the emulator on a loopback port and lives as long as its standard input stays open."""

import argparse
import functools
import os
import sys
import threading

# Nothing here may look for real credentials or a real account.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "emulator"
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")


# The shim lies in the source tree, which a test run should leave as it was.
sys.dont_write_bytecode = True


def exit_with_parent():
    """A test process that dies, however it dies, takes the emulator with it."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--stack-polls",
        type=int,
        default=2,
        help="how many DescribeStacks calls see a stack operation in progress (the real CLI waits 30 s between two)",
    )
    arguments = parser.parse_args()
    threading.Thread(target=exit_with_parent, daemon=True).start()

    from shim import quick

    quick.prepare()
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    from shim import cloudformation, server

    class Quiet(WSGIRequestHandler):
        # Answers are written in two parts; without this the second waits for an acknowledgement.
        disable_nagle_algorithm = True

        def log(self, *_):
            pass

    class Dispatcher(DomainDispatcherApplication):
        # moto walks through its directories for every request to find out whom it is for.
        @functools.cache
        def get_backend_for_host(self, host):
            return super().get_backend_for_host(host)

    cloudformation.default_polls = arguments.stack_polls
    application = server.Application(Dispatcher(create_backend_app))
    listener = make_server("127.0.0.1", arguments.port, application, threaded=True, request_handler=Quiet)
    print(f"listening on 127.0.0.1:{listener.server_port}", flush=True)
    try:
        listener.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
