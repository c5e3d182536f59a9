"""`make bench`: print what each cut of the shipped model costs here."""

import argparse

from app import bundle as bundles
from app import engines
from app.settings import Settings
from benchmarks.cuts import measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="timed calls of each cut")
    parser.add_argument("--rows", type=int, default=1, help="photos in a call")
    options = parser.parse_args()
    settings = Settings()
    bundle = bundles.load(settings.model_path)
    engine = engines.create(
        bundle,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
    )
    info = engine.info
    print(f"{info.name} {info.version}, {info.precision}, {info.device}, {options.rows} photo(s)")
    for name, value in measure(bundle, engine, rounds=options.rounds, rows=options.rows).items():
        print(f"{name:24} {value:8.2f}{'' if '/' in name else ' ms'}")


if __name__ == "__main__":
    main()
