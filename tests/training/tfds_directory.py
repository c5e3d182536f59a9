"""A TFDS directory as the official Stanford Dogs builder writes it, of pictures made here."""

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from app import images
from tests.training.pictures import photo

BREEDS = ("n02088364-beagle", "n02099601-golden_retriever", "n02115641-dingo")
ABSENT = ("n02085620-chihuahua", *(f"n1000{index:04}-absent_{index}" for index in range(116)))


def write_stanford_dogs(data_dir: Path, *, train: int = 40, test: int = 10) -> None:
    """Photos of `BREEDS` in turn; every fourth with a box."""
    builder = tfds.builder("stanford_dogs", data_dir=data_dir)
    features = builder.info.features
    features["label"].names = sorted(BREEDS + ABSENT)
    target = Path(builder.data_path)
    target.mkdir(parents=True)
    infos = []
    for split, count in (("train", train), ("test", test)):
        path = target / f"stanford_dogs-{split}.tfrecord-00000-of-00001"
        size = 0
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in range(count):
                made = photo(index % 2, index)
                jpeg = tf.io.encode_jpeg(images.decode(made.read()).pixels).numpy()
                xmin, ymin, xmax, ymax = made.boxes[0]
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
                    data_dir=target,
                    dataset_name="stanford_dogs",
                    split=split,
                    filetype_suffix="tfrecord",
                ),
            )
        )
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.info.write_to_directory(target)
