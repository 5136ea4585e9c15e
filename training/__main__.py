"""`python -m training`."""

from model.command_line import errors_in_one_line

if __name__ == "__main__":
    # What a command is made of takes up to seconds to load, and Ctrl-C may come in them.
    with errors_in_one_line():
        from training.cli import main

        main()
