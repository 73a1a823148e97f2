"""`python -m anyclaude` is the command."""

from anyclaude.cli.main import run

if __name__ == "__main__":
    run()
