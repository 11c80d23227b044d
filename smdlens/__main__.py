"""`python -m smdlens`."""

from smdlens.cli.app import main

if __name__ == "__main__":
    main()
