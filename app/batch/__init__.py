"""Photos by the thousand: `python -m app.batch IN OUT`.

    cli         the command
    inputs      photos in a folder, a list, a COCO file or a Parquet file
    rows        a photo's row in the output, and what may go wrong with it
    output      the output folder: parts, overlays, summary; written whole or not at all
    work        photos through the `Explainer`, parts into the output folder
    coco        explanation boxes as COCO results
    cluster     the same work on a Ray cluster

The input has a fixed order and is cut into parts. A part's file appears when all of its photos are
done, so whatever is killed, each photo is in the output exactly once.
"""
