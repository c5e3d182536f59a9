"""A prepared TFDS directory of Stanford Dogs, with made photos in place of the real ones."""

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from app import images
from tests.training.pictures import photo

BREEDS = ("n02088364-beagle", "n02099601-golden_retriever", "n02115641-dingo")
ABSENT = ("n02085620-chihuahua", *(f"n1000{index:04}-absent_{index}" for index in range(116)))


def write_stanford_dogs(data_dir: Path, *, train: int = 40, test: int = 10) -> None:
    """Write photos of `BREEDS` in turn. Every fourth has a box.

    Args:
        data_dir: a TFDS data directory.
        train: number of training photos.
        test: number of test photos.
    """
    builder = tfds.builder("stanford_dogs", data_dir=data_dir)
    features = builder.info.features
    features["label"].names = sorted(BREEDS + ABSENT)
    directory = Path(builder.data_path)
    directory.mkdir(parents=True)
    infos = []
    for split, count in (("train", train), ("test", test)):
        path = directory / f"stanford_dogs-{split}.tfrecord-00000-of-00001"
        size = 0
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in range(count):
                example = photo(index % 2, index)
                jpeg = tf.io.encode_jpeg(images.decode(example.read()).pixels).numpy()
                xmin, ymin, xmax, ymax = example.boxes[0]
                box = tfds.features.BBox(ymin=ymin, xmin=xmin, ymax=ymax, xmax=xmax)
                record = features.serialize_example(
                    features.encode_example(
                        {
                            "image": jpeg,
                            "image/filename": f"{split}-{index}.jpg",
                            "label": BREEDS[index % 3],
                            "objects": [{"bbox": box}] if index % 4 == 0 else [],
                        }
                    )
                )
                size += len(record)
                writer.write(record)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count],
                num_bytes=size,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=directory,
                    dataset_name="stanford_dogs",
                    split=split,
                    filetype_suffix="tfrecord",
                ),
            )
        )
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.info.write_to_directory(directory)
