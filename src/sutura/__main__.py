"""`python -m sutura`: the command line."""

from sutura.cli.app import main

if __name__ == "__main__":
    main()
