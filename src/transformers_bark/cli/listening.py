"""The address of commands that listen on one."""

from __future__ import annotations

import argparse

from .parsing import whole_number


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Adds the options of the address; `port` unless another is asked for."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=whole_number, default=port, help=f"0 takes a free one (default: {port})")


def check_address(options: argparse.Namespace) -> None:
    """Whether there is such a port.

    Raises:
        ValueError: there is none.
    """
    if options.port > 65535:
        raise ValueError(f"--port is {options.port}; the last is 65535")
