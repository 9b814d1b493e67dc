"""`python -m eva` is `eva`."""

from eva.cli.main import main

if __name__ == "__main__":
    main()
