"""`python -m app.batch`."""

from app.batch.cli import main

if __name__ == "__main__":
    main()
