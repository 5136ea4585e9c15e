"""`pru`, and `python -m pru`."""

from model.command_line import errors_in_one_line


def main() -> None:
    """Run the command line."""
    # What a command is made of takes up to seconds to load, and Ctrl-C may come in them.
    with errors_in_one_line():
        from pru.cli import cli  # noqa: PLC0415

        cli(prog_name="pru")


if __name__ == "__main__":
    main()
